"""A net that is handed in layer by layer: its scores are those of the net it came from, and no bad file is run."""

import io
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from zips import zipped

from cs231n import FullyConnectedNet, ThreeLayerConvNet, handin, shapes10
from grading import hand_ins
from grading.checks import layered
from grading.expect import Wrong

IMAGES, _ = shapes10.draw(30, 5)
RELU, MEAN, POOL = ("relu", {}), ("mean", {}), ("max_pool", {"size": 2, "stride": 2})


def conv(c_in, c_out, size=3, stride=1, pad=1):
    height, width = size if isinstance(size, tuple) else (size, size)
    w, b = np.random.default_rng(c_out).standard_normal((c_out, c_in, height, width)), np.arange(c_out) / 10
    return "conv", {"w": w / np.sqrt(c_in * height * width), "b": b, "stride": stride, "pad": pad}


def norm(c):
    rng = np.random.default_rng(c)
    return "norm", {"gamma": rng.standard_normal(c), "beta": rng.random(c), "mean": rng.random(c), "var": rng.random(c)}


def affine(inputs, outputs=10):
    w = np.random.default_rng(inputs).standard_normal((inputs, outputs)) / np.sqrt(inputs)
    return "affine", {"w": w, "b": np.arange(outputs) / 10}


def residual(branch, shortcut=()):
    return "residual", {"branch": branch, "shortcut": list(shortcut)}


@pytest.fixture
def saved(tmp_path):
    """A function that writes layers to a file and gives its bytes."""

    def saved(layers, mean=(120.0, 120.0, 120.0), std=60.0):
        handin.save_layers(layers, mean, std, tmp_path / "net.npz")
        return (tmp_path / "net.npz").read_bytes()

    return saved


def scores(content, images=IMAGES):
    arrays = hand_ins.arrays(content, layered.MOST_ARRAYS, layered.DTYPES, layered.AXES)
    return layered.scores_of(arrays, images).numpy()


# --- the scores ---


def trained(net):
    """A net whose batch norms have running statistics of their own."""
    rng = np.random.default_rng(0)
    for bn_param in net.bn_params:
        bn_param["running_mean"] = rng.standard_normal(bn_param["running_mean"].shape).astype(np.float32)
        bn_param["running_var"] = rng.uniform(0.5, 2, bn_param["running_var"].shape).astype(np.float32)
    for name, param in net.params.items():
        if name[0] in "bg":
            param += rng.standard_normal(param.shape).astype(np.float32)
    return net


@pytest.mark.parametrize(
    "net",
    [
        ThreeLayerConvNet(num_filters=8, filter_size=5, weight_scale=0.1, seed=0),
        ThreeLayerConvNet(num_filters=8, filter_size=3, use_batchnorm=True, weight_scale=0.1, seed=0),
        FullyConnectedNet([20, 10], use_batchnorm=True, weight_scale=0.1, seed=0),
    ],
    ids=["conv", "conv-batchnorm", "affine-batchnorm"],
)
def test_scores_are_those_of_the_packs_net(net, saved):
    mean = IMAGES.mean(axis=0)
    wanted = trained(net).loss(IMAGES - mean)
    found = scores(saved(handin.layers_of(net), mean, 1.0))
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def by_torch(x, layers):
    """The layers, by PyTorch in float64."""
    for kind, values in layers:
        v = {name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}
        if kind == "conv":
            x = F.conv2d(x, v["w"], v["b"], v["stride"], v["pad"])
        elif kind == "norm":
            x = F.batch_norm(x, v["mean"], v["var"], v["gamma"], v["beta"])
        elif kind == "relu":
            x = x.clamp(min=0)
        elif kind == "max_pool":
            x = F.max_pool2d(x, v["size"], v["stride"])
        elif kind == "mean":
            x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        elif kind == "affine":
            x = F.linear(x.flatten(1), v["w"].T, v["b"])
        else:
            x = by_torch(x, v["branch"]) + by_torch(x, v["shortcut"])
    return x


STEM = [conv(3, 8), norm(8), RELU]
NETS = {
    "affine": [affine(3072, 30), norm(30), RELU, affine(30)],
    "stride": [conv(3, 8, 5, 3, 2), RELU, affine(8 * 121)],
    "not-square": [conv(3, 8, (2, 5), 2, 1), affine(8 * 17 * 15)],
    "overlapping-pool": [*STEM, ("max_pool", {"size": 3, "stride": 2}), MEAN, affine(8)],
    "around": [*STEM, residual([conv(8, 8), norm(8), RELU, conv(8, 8)]), RELU, MEAN, affine(8)],
    "around-by-1x1": [
        *STEM,
        residual([conv(8, 6, 3, 2), RELU, conv(6, 6)], [conv(8, 6, 1, 2, 0), norm(6)]),
        POOL,
        affine(6 * 64),
    ],
}


@pytest.mark.parametrize("name", NETS)
def test_scores_are_those_of_pytorch(name, saved):
    wanted = by_torch((torch.tensor(IMAGES).double() - 120) / 60, NETS[name]).numpy()
    found = scores(saved(NETS[name]))
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


# --- what it costs ---


def test_operations_worked_by_hand():
    # conv: 16 * 27 products for each of 1024 positions; it reads 3 * 34 * 34 numbers and writes 16 * 1024
    # norm and relu: 16 * 1024 each; pool: 4 for each of 16 * 256; affine: 4096 * 10
    numbers = 3 * 1024 + 3 * 34**2 + 16 * 1024 + 2 * 16 * 1024 + 4 * 16 * 256
    layers = [conv(3, 16), norm(16), RELU, POOL, affine(4096)]
    arrays = {f"00.norm.{name}": np.ones(3, "f4") for name in ("scale", "shift")}
    arrays |= {name: handin._saved(value) for name, value in handin._named(layers, "", 1).items()}
    _, shape, operations = layered._stretch(arrays, (3, 32, 32), "")
    assert shape == (10,)
    assert operations == 16 * 27 * 1024 + 40960 + layered.ELEMENTWISE * numbers


def test_a_net_at_the_limits_is_run_and_one_beyond_them_is_not(saved, monkeypatch):
    net = [conv(3, 64), RELU, conv(64, 64), conv(64, 64), MEAN, affine(64)]
    content = saved(net)
    assert scores(content, IMAGES[:1]).shape == (1, 10)
    applied, apply = [], layered._apply
    monkeypatch.setattr(layered, "_apply", lambda *args: applied.append(1) or apply(*args))
    for limit in ("OPERATIONS", "ACTIVATION"):
        with monkeypatch.context() as patched:
            patched.setattr(layered, limit, 60_000)
            with pytest.raises(Wrong) as caught:
                scores(content)
        assert caught.value.mistake == layered.TOO_COSTLY
    assert not applied
    scores(content, IMAGES[:1])
    assert applied


BOMBS = {
    "wide": [conv(3, 255, 1, 1, 0), conv(255, 255), MEAN, affine(255)],
    "deep": [conv(3, 64), *[conv(64, 64)] * 20, MEAN, affine(64)],
    "one-large-filter": [conv(3, 255, 1, 1, 0), conv(255, 1, 31, 1, 15), affine(1024)],
    "large-pools": [conv(3, 128, 1, 1, 0), *[("max_pool", {"size": 8, "stride": 1})] * 3, MEAN, affine(128)],
    "many-relus": [conv(3, 255, 1, 1, 0), *[RELU] * 90, MEAN, affine(255)],
    "in-a-branch": [conv(3, 64), *[residual([conv(64, 64)] * 3)] * 3, MEAN, affine(64)],
    "many-maps": [conv(3, 300, 1, 1, 0), MEAN, affine(300)],
    "large-pads": [conv(3, 32, 32, 1, 31), MEAN, affine(32)],
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_net_that_would_take_minutes_is_refused_at_once(name, saved):
    content, start = saved(BOMBS[name]), time.process_time()
    with pytest.raises(Wrong, match=r"multiplications for an image|numbers, expected") as caught:
        scores(content)
    assert caught.value.mistake == layered.TOO_COSTLY
    assert time.process_time() - start < 3


# --- files that are wrong ---


def arrays_of(content, **changes):
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        return {name: array for name, array in {**loaded, **changes}.items() if array is not None}


def npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


NET = [conv(3, 16), norm(16), RELU, POOL, residual([conv(16, 16)], [conv(16, 16, 1, 1, 0)]), MEAN, affine(16)]
W, WHOLE = NET[0][1]["w"].astype(np.float32), np.int64
NO_AFFINE = {"07.affine.w": None, "07.affine.b": None}
DEEP = "00." + "residual.branch.00." * 300 + "relu"
BAD = {  # name -> changes of the arrays of NET, and words of the hint; None: it is right
    "no-input-norm": ({"00.norm.scale": None, "00.norm.shift": None}, "without a gap, got 07"),
    "a-gap": ({"03.relu": None}, "without a gap, got 07"),
    "one-too-many": ({"08.relu": np.zeros(0)}, None),
    "unknown-kind": ({"08.gelu": np.zeros(0)}, "layer 08: expected one of conv, norm"),
    "unknown-name": ({"weights": W}, "without a gap, got weights"),
    "a-path": ({"../09.relu": np.zeros(0)}, "without a gap"),
    "two-kinds-in-one": ({"03.mean": np.zeros(0)}, "layer 03: expected one of"),
    "value-missing": ({"01.conv.b": None}, "layer 01.conv: expected the values w, b, stride, pad"),
    "value-too-many": ({"01.conv.groups": WHOLE(1)}, "layer 01.conv: expected the values w, b, stride, pad"),
    "relu-with-entries": ({"03.relu": np.zeros(5)}, "layer 03.relu has entries"),
    "no-array": ({"03.relu": None, "03.relu.x": np.zeros(0)}, "layer 03.relu: expected the values"),
    "other-channels": ({"01.conv.w": W[:, :2]}, "layer 01.conv.w has the shape (16, 2, 3, 3), expected (*, 3, *, *)"),
    "three-axes": ({"01.conv.w": W[0]}, "layer 01.conv.w has the shape (3, 3, 3)"),
    "five-axes": ({"01.conv.w": W[None]}, "01.conv.w has 5 axes"),
    "other-bias": ({"01.conv.b": np.zeros(15)}, "layer 01.conv.b has the shape (15,), expected (16)"),
    "no-filters": ({"01.conv.w": W[:0], "01.conv.b": np.zeros(0)}, "layer 01: its output for an image has 0 numbers"),
    "a-window-of-nothing": ({"01.conv.w": W[:, :, :0]}, "a window of (0, 3) does not fit"),
    "large-window": ({"04.max_pool.size": WHOLE(32), "01.conv.stride": WHOLE(2)}, "a window of (32, 32) does not"),
    "stride-0": ({"01.conv.stride": WHOLE(0)}, "expected a stride above 0"),
    "stride-below-0": ({"01.conv.stride": WHOLE(-1)}, "layer 01.conv.stride is -1, expected 0 to 32"),
    "huge-stride": ({"01.conv.stride": WHOLE(10**12)}, "layer 01.conv.stride is 1000000000000, expected 0 to 32"),
    "huge-pad": ({"01.conv.pad": WHOLE(10**6)}, "layer 01.conv.pad is 1000000"),
    "pad-of-zeros-alone": ({"01.conv.pad": WHOLE(3)}, "makes windows of zeros alone"),
    "two-strides": ({"01.conv.stride": np.array([1, 1])}, "layer 01.conv.stride: expected a whole number"),
    "stride-a-float": ({"01.conv.stride": np.float32(1)}, "expected a stride above 0 and a pad, both whole numbers"),
    "size-a-float": ({"04.max_pool.size": np.float32(2)}, "layer 04.max_pool.size: expected a whole number"),
    "whole-weights": ({"01.conv.w": W.astype(int)}, "layer 01.conv.w: expected a whole number"),
    "weight-a-setting": ({"07.affine.w": WHOLE(3)}, "layer 07.affine.w: expected floats"),
    "other-norm": ({"02.norm.scale": np.ones(15)}, "layer 02.norm.scale has the shape (15,), expected (16)"),
    "nan": ({"01.conv.b": np.full(16, np.nan)}, "layer 01.conv.b has entries that are not finite"),
    "infinity": ({"02.norm.shift": np.full(16, np.inf)}, "layer 02.norm.shift has entries that are not finite"),
    "too-large-for-float32": ({"01.conv.b": np.full(16, 1e300)}, "entries that are not finite"),
    "float16": ({"01.conv.w": W.astype("f2")}, "01.conv.w has the dtype float16, expected float32 or float64 or int64"),
    "big-endian": ({"01.conv.w": W.astype(">f4")}, "01.conv.w has the dtype >f4"),
    "complex": ({"01.conv.w": W.astype(complex)}, "01.conv.w has the dtype complex128"),
    "texts": ({"03.relu": np.array(["a"])}, "03.relu has the dtype <U1"),
    "objects": ({"03.relu": np.array([{}])}, "03.relu has the dtype object"),
    "eleven-classes": ({"07.affine.w": np.ones((16, 11)), "07.affine.b": np.ones(11)}, "shape (11,), expected (10,)"),
    "no-affine": (NO_AFFINE, "has the shape (16,), expected (10,)"),
    "mean-of-a-row": ({**NO_AFFINE, "07.mean": np.zeros(0)}, "layer 07.mean: its input has the shape (16,)"),
    "affine-of-another-width": ({"07.affine.w": np.ones((17, 10))}, "has the shape (17, 10), expected (16, *)"),
    "third-side": ({"05.residual.third.00.relu": np.zeros(0)}, "expected branch or shortcut, got 'third'"),
    "no-branch": ({f"05.residual.branch.00.conv.{name}": None for name in ("w", "b", "stride", "pad")},
                  "expected the layers 05.residual.branch.00"),
    "sides-do-not-fit": ({"05.residual.branch.00.conv.stride": WHOLE(2)}, "the branch gives the shape (16, 8, 8), and"),
    "nested": ({"05.residual.branch.01.residual.branch.00.relu": np.zeros(0)}, "branch.01: expected one of conv"),
    "deep-recursion": ({f"08{DEEP[2:]}": np.zeros(0)}, "layer 08.residual.branch.00: expected one of"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_wrong_is_refused_and_the_words_say_why(name, saved):
    changes, words = BAD[name]
    content = npz(arrays_of(saved(NET), **changes))
    if words is None:
        assert scores(content).shape == (30, 10)
        return
    with pytest.raises(Wrong) as caught:
        scores(content)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_too_many_arrays_a_pickle_and_no_zip_are_refused(saved, tmp_path):
    many = zipped(**{f"{i:02d}.relu": b"" for i in range(layered.MOST_ARRAYS + 1)})
    bomb = zipped(zipfile.ZIP_DEFLATED, **{"00.relu.npy": bytes(64 << 20)})
    for content, words in (
        (many, "601 arrays"),
        (bomb, "67108864 bytes"),
        (pickle.dumps([1]), "not an .npz"),
        (b"", "not"),
    ):
        with pytest.raises(Wrong, match=words):
            scores(content)
