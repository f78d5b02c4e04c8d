"""What is written to be handed in: a net that takes pixels, an interval, an ablation."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cs231n import FullyConnectedNet, Solver, ThreeLayerConvNet, handin, plots, shapes10
from cs231n.conv_layers import conv_forward_naive, max_pool_forward_naive
from cs231n.experiments import over_seeds


def test_the_data_is_the_beginning_of_the_stand_ins_training_split():
    data = handin.shapes10_data(num_training=250, num_validation=50)
    images, labels = shapes10.draw(300, shapes10.SEED)
    X = np.concatenate([data["X_train"], data["X_val"]])
    assert np.array_equal(np.round(X + data["mean_image"]), images)
    assert np.array_equal(np.concatenate([data["y_train"], data["y_val"]]), labels)
    assert X.dtype == np.float32
    assert np.abs(data["X_train"].mean(axis=0)).max() < 1e-3
    assert np.abs(data["X_val"].mean(axis=0)).max() > 1  # of the training pictures alone
    with pytest.raises(ValueError, match="num_validation"):
        handin.shapes10_data(50000, 1)


def test_the_saved_net_takes_pixels_and_gives_the_scores_of_the_net(tmp_path):
    data = handin.shapes10_data(60, 40)
    net = FullyConnectedNet([30, 20], weight_scale=0.05, seed=0)
    net.params["b1"][:] = 1
    handin.save_net(net, data["mean_image"], tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as saved:
        assert {array.dtype for array in saved.values()} == {np.dtype("float32")}
        pixels = FullyConnectedNet([30, 20])
        pixels.params = dict(saved)
    wanted = net.loss(data["X_val"])
    assert np.allclose(pixels.loss(data["X_val"] + data["mean_image"]), wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_net_with_norms_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="wanted the params W1, b1, W2"):
        handin.save_net(FullyConnectedNet([30], use_batchnorm=True), np.zeros((3, 32, 32)), tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_welch_interval_worked_by_hand():
    # means 2 and 5; v = 1/3 and 4/3; sqrt(5/3) = 1.29099; freedom (25/9) / ((1/9 + 16/9) / 2) = 50/17 = 2.94, t = 4.303
    low, high = handin.welch_interval([1, 2, 3], [3, 5, 7])
    assert low == pytest.approx(3 - 4.303 * 1.29099, abs=1e-4)
    assert high == pytest.approx(3 + 4.303 * 1.29099, abs=1e-4)


def test_welch_interval_covers_the_difference_in_95_of_100_cases():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        low, high = handin.welch_interval(rng.standard_normal(5), 1 + 3 * rng.standard_normal(4))
        inside += low < 1 < high
    assert 0.935 < inside / 2000 < 0.98  # rounding the degrees of freedom down makes it slightly wider


def test_welch_interval_of_equal_numbers_and_of_too_few():
    assert handin.welch_interval([1, 1, 1], [2, 2, 2]) == (1, 1)
    with pytest.raises(ValueError, match="two numbers or more"):
        handin.welch_interval([1], [2, 3])


WORDS = {"question": "Does dropout help here?", "setting": "a net", "change": "dropout=0.5"}


def test_an_ablation_is_saved_by_the_labels_of_its_sides(tmp_path):
    results = {"plain": np.array([0.1, 0.2]), "dropout": np.array([[0.3], [0.4]]), "shuffled": [0, 1], "other": [5]}
    sides = {"baseline": "plain", "changed": "dropout", "control": "shuffled"}
    handin.save_ablation(results, **WORDS, **sides, conclusion="worse", path=tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["numbers"] == {"baseline": [0.1, 0.2], "changed": [0.3, 0.4], "control": [0.0, 1.0]}
    assert saved == {
        **WORDS,
        "labels": sides,
        "numbers": saved["numbers"],
        "higher_is_better": True,
        "conclusion": "worse",
    }


@pytest.mark.parametrize("wrong", [{"control": "none"}, {"conclusion": "good"}])
def test_an_ablation_with_an_unknown_label_or_conclusion_is_not_saved(tmp_path, wrong):
    given = {"baseline": "a", "changed": "b", "control": "c", "conclusion": "better", **wrong}
    with pytest.raises(ValueError, match=r"(results|conclusion): wanted"):
        handin.save_ablation({"a": [1], "b": [1], "c": [1]}, **WORDS, **given, path=tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


# --- nets of any layers, and attempts ---


def layers_and_net():
    """The layers of a net that has each kind, and what it gives, as the formulas say."""
    rng = np.random.default_rng(0)
    w1, w2, w3 = (0.3 * rng.standard_normal(shape) for shape in ((4, 3, 3, 3), (4, 4, 1, 1), (4, 10)))
    norm = dict(zip(("gamma", "beta", "mean", "var"), rng.random((4, 4)), strict=True))
    w_s = {"w": w2, "b": np.ones(4), "stride": 1, "pad": 0}
    layers = [
        ("conv", {"w": w1, "b": np.zeros(4), "stride": 2, "pad": 1}),
        ("norm", norm),
        ("relu", {}),
        ("max_pool", {"size": 3, "stride": 2}),
        ("residual", {"branch": [("conv", w_s), ("relu", {})], "shortcut": []}),
        ("residual", {"branch": [("relu", {})], "shortcut": [("conv", w_s), ("norm", {**norm, "eps": 1e-3})]}),
        ("mean", {}),
        ("affine", {"w": w3, "b": np.arange(10)}),
    ]

    def batchnorm(x, eps):
        gamma, beta, mean, var = (norm[name][:, None, None] for name in ("gamma", "beta", "mean", "var"))
        return gamma * (x - mean) / np.sqrt(var + eps) + beta

    def mixed(x):
        return np.einsum("fc,nchw->nfhw", w2[:, :, 0, 0], x) + 1

    def net(x):
        x = conv_forward_naive(x, w1, np.zeros(4), {"stride": 2, "pad": 1})[0]
        x = np.maximum(batchnorm(x, 1e-5), 0)
        x = max_pool_forward_naive(x, {"pool_height": 3, "pool_width": 3, "stride": 2})[0]
        x = np.maximum(mixed(x), 0) + x
        x = np.maximum(x, 0) + batchnorm(mixed(x), 1e-3)
        return x.mean(axis=(2, 3)) @ w3 + np.arange(10)

    return layers, net


def test_the_net_in_the_file_gives_the_scores_of_the_layers(tmp_path):
    images, (layers, net) = shapes10.draw(8, 1)[0], layers_and_net()
    mean, std = np.array([100.0, 120, 140]), np.array([50.0, 60, 70])
    handin.save_layers(layers, mean, std, tmp_path / "net.npz")
    wanted = net((images - mean[:, None, None]) / std[:, None, None])
    assert np.abs(handin.scores(images, tmp_path / "net.npz") - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_names_in_the_file_are_those_of_the_layers(tmp_path):
    layers, _ = layers_and_net()
    handin.save_layers(layers[:5], np.zeros(3), path=tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as saved:
        kinds = {name: (array.dtype.str, array.shape) for name, array in saved.items()}
    f4, whole = "<f4", ("<i8", ())
    assert kinds == {
        "00.norm.scale": (f4, (3,)), "00.norm.shift": (f4, (3,)),
        "01.conv.w": (f4, (4, 3, 3, 3)), "01.conv.b": (f4, (4,)), "01.conv.stride": whole, "01.conv.pad": whole,
        "02.norm.scale": (f4, (4,)), "02.norm.shift": (f4, (4,)),
        "03.relu": (f4, (0,)),
        "04.max_pool.size": whole, "04.max_pool.stride": whole,
        "05.residual.branch.00.conv.w": (f4, (4, 4, 1, 1)), "05.residual.branch.00.conv.b": (f4, (4,)),
        "05.residual.branch.00.conv.stride": whole, "05.residual.branch.00.conv.pad": whole,
        "05.residual.branch.01.relu": (f4, (0,)),
    }  # fmt: skip


def test_a_net_of_the_packs_is_saved_with_its_running_statistics(tmp_path):
    images = shapes10.draw(60, 1)[0]
    mean_image = images.mean(axis=0)
    net = ThreeLayerConvNet(num_filters=4, filter_size=3, use_batchnorm=True, weight_scale=0.1, seed=0)
    for _ in range(3):
        net.loss(images - mean_image, np.zeros(60, int))
    handin.save_layers(handin.layers_of(net), mean_image, path=tmp_path / "net.npz")
    wanted = net.loss(images - mean_image)
    assert np.abs(handin.scores(images, tmp_path / "net.npz") - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([("gelu", {})], "layer 01.gelu: wanted one of conv, norm"),
        ([("conv", {"w": np.ones((1, 3, 3, 3)), "b": np.ones(1), "stride": 1})], "wanted the values"),
        ([("residual", {"branch": [("relu", {"x": 1})], "shortcut": []})], "layer 01.residual.branch.00.relu"),
    ],
)
def test_layers_that_the_file_does_not_know_are_not_saved(tmp_path, layers, words):
    with pytest.raises(ValueError, match=words):
        handin.save_layers(layers, np.zeros(3), path=tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_a_net_with_layer_norm_is_not_a_list_of_layers():
    with pytest.raises(ValueError, match="wanted batch norm, which has running statistics, in layer 1"):
        handin.layers_of(FullyConnectedNet([5], normalization="layernorm"))


def test_attempts_are_saved_with_their_settings_and_numbers(tmp_path):
    attempts = [{"settings": "8 filters", "accuracy": np.float32(0.5), "seconds": 3}]
    handin.save_attempts(attempts, tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved == {"attempts": [{"settings": "8 filters", "accuracy": 0.5, "seconds": 3.0}]}
    with pytest.raises(ValueError, match="wanted settings, accuracy and seconds"):
        handin.save_attempts([{"settings": "8 filters"}], tmp_path / "b.json")


# --- the notebooks' briefs ---


def brief(notebook, cell):
    """The code in a Markdown cell of a notebook."""
    cells = json.loads((Path(__file__).parents[1] / f"notebooks/{notebook}.ipynb").read_text())["cells"]
    (source,) = ("".join(found["source"]) for found in cells if found["id"] == cell)
    return re.search(r"```python\n(.*?)```", source, re.DOTALL)[1]


def test_the_code_that_saves_a_net_runs(tmp_path, monkeypatch):
    few, save = handin.shapes10_data, handin.save_net
    monkeypatch.setattr(handin, "shapes10_data", lambda n: few(n // 100, 50))
    monkeypatch.setattr(handin, "save_net", lambda *args: save(*args, path=tmp_path / "net.npz"))
    exec(
        brief("01_fully_connected_nets", "good-net"),
        {"handin": handin, "FullyConnectedNet": FullyConnectedNet, "Solver": Solver},
    )
    with np.load(tmp_path / "net.npz", allow_pickle=False) as saved:
        assert {name: array.shape for name, array in saved.items()} == {"W1": (3072, 10), "b1": (10,)}


def test_the_code_that_saves_an_ablation_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(handin, "ABLATION", tmp_path / "a.json")
    code = brief("03_dropout", "ablation").replace("return ...", "return np.random.default_rng(seed).random()")
    code = code.replace('conclusion="..."', 'conclusion="better", path=handin.ABLATION')
    exec(code, {"handin": handin, "over_seeds": over_seeds, "plots": plots, "np": np})
    assert len(json.loads((tmp_path / "a.json").read_text())["numbers"]["control"]) == 5
