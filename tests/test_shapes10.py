"""The stand-in data set: the same bytes everywhere, ten even classes, hard enough, a file that is whole or absent."""

import hashlib
import logging

import numpy as np
import pytest

from cs231n import shapes10

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture
def small(monkeypatch):
    """Shapes10 with 250 images to train on and 50 to test on."""
    monkeypatch.setattr(shapes10, "TRAIN", 250)
    monkeypatch.setattr(shapes10, "TEST", 50)


@pytest.fixture
def drawn(monkeypatch):
    """The list of the numbers of images that `draw` was asked for."""
    counts, draw = [], shapes10.draw
    monkeypatch.setattr(shapes10, "draw", lambda n, seed: counts.append(n) or draw(n, seed))
    return counts


def assert_is_shapes10(data):
    images, labels = shapes10.draw(300, shapes10.SEED)
    for name, array, wanted in zip(ARRAYS, data, (images[:250], labels[:250], images[250:], labels[250:]), strict=True):
        np.testing.assert_array_equal(array, wanted, err_msg=name, strict=True)


def test_the_bytes_are_the_same_on_every_platform():
    images, labels = shapes10.draw(1000, 7)
    digest = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert digest == "83cc3a08524691865cdfaee199bd6295950abb16be4933423e2dc8fcb8c4920f"


def test_images_are_uint8_and_labels_int64():
    images, labels = shapes10.draw(3, 0)
    assert (images.shape, images.dtype) == ((3, 3, 32, 32), np.uint8)
    assert (labels.shape, labels.dtype) == ((3,), np.int64)


@pytest.mark.parametrize("n", [0, 1, shapes10.BLOCK, shapes10.BLOCK + 1])
def test_fewer_images_are_the_first_of_more(n, monkeypatch):
    images, labels = shapes10.draw(2 * shapes10.BLOCK + 2, 5)
    monkeypatch.setattr(shapes10, "BLOCK", 70)
    fewer_images, fewer_labels = shapes10.draw(n, 5)
    np.testing.assert_array_equal(fewer_images, images[:n], strict=True)
    np.testing.assert_array_equal(fewer_labels, labels[:n], strict=True)


def test_another_seed_draws_other_images():
    assert not np.array_equal(shapes10.draw(5, 0)[0], shapes10.draw(5, 1)[0])


def test_no_two_images_are_equal():
    images, _ = shapes10.draw(1000, 0)
    assert len({image.tobytes() for image in images}) == 1000


def test_classes_are_even():
    _, labels = shapes10.draw(3000, 0)
    counts = np.bincount(labels)
    assert len(counts) == len(shapes10.CLASS_NAMES) == 10
    assert np.all(np.abs(counts - 300) < 5 * np.sqrt(300 * 0.9))  # five standard deviations of a fair draw


@pytest.mark.parametrize(("n", "seed", "name"), [(-1, 0, "n"), (2.5, 0, "n"), (1, -1, "seed"), (1, None, "seed")])
def test_bad_arguments_are_named(n, seed, name):
    with pytest.raises(ValueError, match=f"^{name}: wanted a whole number"):
        shapes10.draw(n, seed)


@pytest.mark.parametrize("name", shapes10.CLASS_NAMES)
def test_each_shape_is_a_signed_distance(name):
    """It is negative somewhere, positive at the picture's corners, and changes no faster than the distance does."""
    y, x = np.indices((101, 101), np.float32) / 25 - 2
    distance = shapes10.SHAPES[name](x, y)
    assert distance.min() < -0.1
    assert min(distance[0, 0], distance[0, -1], distance[-1, 0], distance[-1, -1]) > 0.5
    assert max(np.abs(np.diff(distance, axis=axis)).max() for axis in (0, 1)) < 1.01 / 25


def test_star_has_five_points():
    """On a circle between the notches and the tips, inside and outside take turns five times."""
    angle = np.linspace(0, 2 * np.pi, 1000)
    inside = shapes10.star(0.6 * np.sin(angle), -0.6 * np.cos(angle)) < 0
    assert np.count_nonzero(np.diff(inside.astype(int)) == 1) == 5


def test_load_keeps_what_it_draws(small, drawn, tmp_path):
    assert_is_shapes10(shapes10.load(tmp_path / "new" / "folder"))
    drawn.clear()
    assert_is_shapes10(shapes10.load(tmp_path / "new" / "folder"))
    assert drawn == [shapes10.BLOCK, 300]  # a sample to compare, and the check's own
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["shapes10.npz"]


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


def one_byte_changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def an_array_alone(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


class Trap:
    """Fails the test where its pickle is read."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def a_pickle(path):
    np.savez(path, images=np.array([Trap()]), labels=np.zeros(300, np.int64))


def of_another_seed(path):
    images, labels = shapes10.draw(300, shapes10.SEED + 1)
    np.savez(path, images=images, labels=labels)


def too_short(path):
    images, labels = shapes10.draw(200, shapes10.SEED)
    np.savez(path, images=images, labels=labels)


def of_other_names(path):
    images, labels = shapes10.draw(300, shapes10.SEED)
    np.savez(path, x=images, y=labels)


@pytest.mark.parametrize(
    "damage",
    [truncated, empty, one_byte_changed, an_array_alone, a_pickle, of_another_seed, too_short, of_other_names],
)
def test_a_file_that_is_damaged_or_not_ours_is_drawn_again(damage, small, drawn, tmp_path):
    path = tmp_path / "shapes10.npz"
    shapes10.load(tmp_path)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert_is_shapes10(shapes10.load(tmp_path))
    drawn.clear()
    assert_is_shapes10(shapes10.load(tmp_path))
    assert drawn == [shapes10.BLOCK, 300]  # the file is whole again


def test_a_folder_that_cannot_be_written_to_is_no_error(small, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.INFO, "cs231n.shapes10"):
        assert_is_shapes10(shapes10.load(tmp_path / "file" / "data"))
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "cannot be written to" in caplog.text


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_writing_that_is_cut_short_leaves_no_file(error, small, tmp_path, monkeypatch):
    def cut_short(file, **arrays):
        file.write(b"PK")
        raise error

    monkeypatch.setattr(np, "savez", cut_short)
    if isinstance(error, OSError):
        assert_is_shapes10(shapes10.load(tmp_path))
    else:
        with pytest.raises(KeyboardInterrupt):
            shapes10.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_linear_classifier_learns_something_and_not_all():
    """The nearest mean image of a class is the highest of the scores x . mean - |mean|^2 / 2: a linear classifier."""
    images, labels = shapes10.draw(6000, 1)
    x = images.reshape(6000, -1) / 255
    means = np.stack([x[:5000][labels[:5000] == label].mean(axis=0) for label in range(10)])
    scores = x[5000:] @ means.T - (means**2).sum(axis=1) / 2
    accuracy = np.mean(scores.argmax(axis=1) == labels[5000:])
    assert 0.2 < accuracy < 0.5
