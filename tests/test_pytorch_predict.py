"""Image files are classified as the net was trained to see them, and what cannot be is one clear line."""

import os
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cs231n import pytorch_files as files
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_data import Images
from cs231n.pytorch_predict import Classifier, predict, read_image
from cs231n.pytorch_recipes import Classic
from cs231n.pytorch_training import Training

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay"]
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and its training images."""
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (32, 3, 32, 32), np.uint8), np.arange(32) % 10, "cpu", class_names=NAMES)
    recipe = Classic(epochs=1, batch_size=16, widths=(4, 6), blocks=1, lr=0.1, test_flip=True, train_images=32)
    folder = tmp_path_factory.mktemp("run")
    Training(recipe, images, images, folder).run(verbose=False)
    return folder, images


def picture(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def save(path, array, mode=None, **settings):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **settings)
    return str(path)


# Reading


def test_an_image_of_the_nets_size_is_read_to_the_byte(tmp_path):
    x = picture()
    out = read_image(save(tmp_path / "a.png", x))
    assert (out.dtype, out.shape) == (np.uint8, (3, 32, 32))
    assert np.array_equal(out, x.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(64, 64), (7, 7), (64, 90), (500, 64), (1, 40), (33, 1)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_any_size_becomes_32_by_32(tmp_path, shape, suffix):
    x = np.full((*shape, 3), (200, 100, 50), np.uint8)
    out = read_image(save(tmp_path / f"a.{suffix}", x))
    assert out.shape == (3, 32, 32)
    assert np.abs(out.astype(int) - np.array([200, 100, 50])[:, None, None]).max() <= 3


def test_the_middle_of_a_wide_image_is_taken_and_not_squashed(tmp_path):
    x = np.zeros((32, 96, 3), np.uint8)
    x[:, 32:64] = picture()
    assert np.array_equal(read_image(save(tmp_path / "a.png", x)), picture().transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_other_kinds_of_pixels_become_colours(tmp_path, mode):
    grey = np.full((40, 40, 3), 255, np.uint8)
    assert np.all(read_image(save(tmp_path / "a.png", grey, mode)) == 255)


def test_16_bits_of_grey_keep_their_shades(tmp_path):
    x = (np.arange(32 * 32, dtype=np.uint16) * 64).reshape(32, 32)
    out = read_image(save(tmp_path / "a.png", x))
    assert np.array_equal(out, np.broadcast_to(x >> 8, (3, 32, 32)))


def test_a_cmyk_jpeg_becomes_colours(tmp_path):
    out = read_image(save(tmp_path / "a.jpg", np.full((32, 32, 3), (0, 0, 255), np.uint8), "CMYK"))
    assert out[2].mean() > 200 > 60 > out[0].mean()


def test_transparent_pixels_become_white(tmp_path):
    x = np.zeros((32, 32, 4), np.uint8)
    x[:16, :, 3] = 255
    out = read_image(save(tmp_path / "a.png", x))
    assert np.all(out[:, :16] == 0)
    assert np.all(out[:, 16:] == 255)


def test_a_palettes_transparent_colour_becomes_white(tmp_path):
    image = Image.fromarray(np.zeros((32, 32), np.uint8)).convert("P")
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    assert np.all(read_image(tmp_path / "a.png") == 255)


def test_a_photograph_is_turned_as_the_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    x = np.zeros((32, 32, 3), np.uint8)
    x[:, :16] = 255  # white on the left; turned, at the top
    out = read_image(save(tmp_path / "a.png", x, exif=exif))
    assert np.all(out[:, :16] == 255)
    assert np.all(out[:, 16:] == 0)


@pytest.mark.parametrize("kind", ["empty", "text", "half", "gif", "bomb"])
def test_a_broken_or_odd_image_is_one_clear_line(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.png"
    save(path, picture(side=100), format="GIF" if kind == "gif" else "PNG")
    if kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # 10,000 are more than that, and less than twice as many
    path.write_bytes({"empty": b"", "text": b"text", "half": path.read_bytes()[:5000]}.get(kind, path.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"a\.png is not a complete PNG or JPEG image that fits in memory$"):
            read_image(path)


def test_a_missing_image_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


# Classifying


def test_the_probabilities_are_the_softmax_of_the_trained_nets_scores(run):
    folder, images = run
    training = Training(Classic(epochs=1, widths=(4, 6), blocks=1), images, images, folder)
    net = training.model
    net.load_state_dict(files.load(folder / "best.pt", "cpu")["model"])
    (x, _), *_ = images.batches(32)
    with torch.inference_mode():
        scores = (net.eval()(x) + net(x.flip(3))) / 2
    wanted = torch.exp(scores) / torch.exp(scores).sum(dim=1, keepdim=True)
    out = Classifier(folder / "best.pt", "cpu").probabilities(images.x.numpy())
    assert (out.shape, out.dtype) == ((32, 10), np.float32)
    assert np.allclose(out, wanted, atol=1e-5)


def test_predict_ranks_the_classes_by_name(run, tmp_path):
    folder, images = run
    paths = [save(tmp_path / f"{i}.png", images.x[i].permute(1, 2, 0).numpy()) for i in range(3)]
    wanted = Classifier(folder / "best.pt", "cpu").probabilities(images.x[:3])
    for ranked, probabilities in zip(predict(folder / "best.pt", paths, "cpu"), wanted, strict=True):
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
        assert [ranked[name] for name in NAMES] == pytest.approx(list(probabilities))


def test_predict_reads_best_and_last(run, tmp_path):
    path = save(tmp_path / "a.png", picture())
    assert predict(run[0] / "best.pt", [path], "cpu") == predict(run[0] / "last.pt", [path], "cpu")


# The command line


def test_the_command_line_names_the_classes_of_each_image(run, tmp_path, capsys):
    paths = [save(tmp_path / f"{i}.png", picture(i)) for i in range(2)]
    assert main(["predict", str(run[0] / "best.pt"), *paths, "--device=cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path, line, ranked in zip(paths, lines, predict(run[0] / "best.pt", paths, "cpu"), strict=True):
        assert line == f"{path}: " + ", ".join(f"{name} {100 * p:.2f} %" for name, p in ranked.items())


def test_top_limits_the_classes(run, tmp_path, capsys):
    assert main(["predict", str(run[0] / "best.pt"), save(tmp_path / "a.png", picture()), "--top=2"]) == 0
    assert capsys.readouterr().out.count(" %") == 2


def test_an_image_that_cannot_be_read_does_not_keep_the_others_from_being_classified(run, tmp_path, capsys, caplog):
    good = save(tmp_path / "a.png", picture())
    (tmp_path / "b.png").write_text("no image")
    missing = str(tmp_path / "c.png")
    assert main(["predict", str(run[0] / "best.pt"), str(tmp_path / "b.png"), missing, good]) == 1
    assert capsys.readouterr().out.startswith(f"{good}: ")
    assert [r.message.split(" ", 1)[0] for r in caplog.records] == [str(tmp_path / "b.png"), "[Errno"]


@pytest.mark.parametrize(
    ("checkpoint", "options", "says"),
    [
        ("none.pt", [], "No such file or directory: 'none.pt'"),
        (".", [], "Is a directory"),
        (__file__, [], "has no checksum: it is damaged, or another program or an earlier version wrote it"),
        (None, ["--device=nonsense"], "device: wanted cuda, mps, cpu, or one with a number"),
        (None, ["--device=cuda:77"], "device: cuda:77 cannot be used here"),
        (None, ["--top=0"], "top: wanted a whole number of at least 1, got 0"),
    ],
)
def test_a_wrong_command_is_one_clear_line(run, tmp_path, monkeypatch, caplog, checkpoint, options, says):
    image = save(tmp_path / "a.png", picture())
    monkeypatch.chdir(tmp_path)
    assert main(["predict", checkpoint or str(run[0] / "best.pt"), os.path.basename(image), *options]) == 1
    (record,) = caplog.records
    assert says in record.message
    assert "\n" not in record.message


CHANGES = {
    "nan": lambda state: state["model"]["affine.weight"].mul_(torch.nan),
    "another shape": lambda state: state["model"].update({"affine.weight": torch.zeros(10, 7)}),
    "another dtype": lambda state: state["model"].update({"affine.weight": torch.zeros(10, 6, dtype=torch.float64)}),
    "a weight less": lambda state: state["model"].popitem(),
    "another net": lambda state: state["architecture"].update(net="VGG"),
    "a class less": lambda state: state["class_names"].pop(),
    "no statistics": lambda state: state.pop("statistics"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_does_not_fit_is_one_clear_line(run, tmp_path, caplog, capsys, change):
    state = files.load(run[0] / "best.pt", "cpu")
    change(state)
    files.save(tmp_path / "best.pt", state)
    assert main(["predict", str(tmp_path / "best.pt"), save(tmp_path / "a.png", picture())]) == 1
    (record,) = caplog.records
    assert re.search(r"best\.pt.*; use another copy of it, or train again$", record.message)
    assert "\n" not in record.message
    assert capsys.readouterr().out == ""
