"""The images of a run: batches on the device, and the same through torchvision."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from cs231n import pytorch_data
from cs231n.pytorch_data import (
    DeviceBatches,
    Images,
    TorchvisionBatches,
    cut_out,
    mirrored,
    normalized,
    read_splits,
    reflected,
    resized,
    seeded_generator,
    shifted,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def bytes_and_labels(n, seed=0):
    """n images (n, 3, 32, 32) uint8, the brighter, the higher the label, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, n)
    x = rng.integers(0, 40, (n, 3, 32, 32)) + 20 * y[:, None, None, None]
    return x.astype(np.uint8), y


def one_label_each(n):
    return Images(bytes_and_labels(n)[0], np.arange(n), "cpu")


def places_of(windows, images, pad, mode="constant"):
    """For each window (N, 3, 32, 32), of the image of the same number: (dy, dx, whether it is mirrored)."""
    places = []
    for image, window in zip(np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode), windows, strict=True):
        found = [
            (dy, dx, flipped)
            for dy in range(2 * pad + 1)
            for dx in range(2 * pad + 1)
            for flipped, candidate in ((False, window), (True, window[:, :, ::-1]))
            if np.array_equal(image[:, dy : dy + 32, dx : dx + 32], candidate)
        ]
        assert len(found) == 1
        places += found
    return places


def pixels_of(x, statistics):
    """The bytes that normalized images were made of."""
    mean, std = (s[:, None, None] for s in statistics)
    return (x * std + mean).round().to(torch.uint8).numpy()


def epoch_of(batches, number=0):
    x, y = zip(*batches.epoch(number), strict=True)
    return torch.cat(x), torch.cat(y)


def both_ways(images, batch_size=10, pad=4, seed=0, **settings):
    return [
        DeviceBatches(images, batch_size, pad, False, seed, **settings),
        TorchvisionBatches(images, batch_size, pad, seed, **settings),
    ]


WAYS = pytest.mark.parametrize("way", [0, 1], ids=["device", "torchvision"])


def be_process(monkeypatch, rank, world_size):
    monkeypatch.setattr(pytorch_data, "rank", lambda: rank)
    monkeypatch.setattr(pytorch_data, "world_size", lambda: world_size)


# Crops and flips


def test_a_shift_takes_the_window_of_each_padded_image_at_its_own_place():
    x = torch.from_numpy(bytes_and_labels(3)[0])
    out = shifted(x, torch.tensor([0, 4, 8]), torch.tensor([4, 1, 8]), pad=4)
    assert out.dtype == torch.uint8
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    assert np.array_equal(out[0], padded[0, :, 0:32, 4:36])
    assert np.array_equal(out[1], padded[1, :, 4:36, 1:33])
    assert np.array_equal(out[2], padded[2, :, 8:40, 8:40])


def test_images_are_mirrored_left_to_right_where_it_is_asked():
    x = torch.from_numpy(bytes_and_labels(2)[0])
    out = mirrored(x, torch.tensor([True, False]))
    assert np.array_equal(out[0], x.numpy()[0, :, :, ::-1])
    assert np.array_equal(out[1], x[1])


def test_a_reflected_image_is_numpys():
    x = torch.from_numpy(bytes_and_labels(2)[0])[:, :, :, :20]
    assert np.array_equal(reflected(x, 5), np.pad(x.numpy(), ((0, 0), (0, 0), (5, 5), (5, 5)), "reflect"))
    assert torch.equal(reflected(x, 0), x)


def test_a_square_is_cut_out_of_each_image_at_its_own_place():
    x = torch.arange(2 * 3 * 5 * 6).view(2, 3, 5, 6) + 1
    out, wanted = cut_out(x, torch.tensor([0, 2]), torch.tensor([4, 1]), 2), x.clone()
    wanted[0, :, 0:2, 4:6] = wanted[1, :, 2:4, 1:3] = 0
    assert torch.equal(out, wanted)


def test_half_the_side_is_the_mean_of_four_pixels_and_the_whole_side_is_the_image_itself():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(resized(x, 4), x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5)), atol=1e-6)
    assert resized(x, 8) is resized(x, None) is x


@WAYS
@pytest.mark.parametrize("reflect", [False, True])
def test_each_training_image_is_shifted_and_flipped_by_itself(way, reflect):
    images = one_label_each(60)
    x, y = epoch_of(both_ways(images, reflect=reflect)[way])
    places = places_of(pixels_of(x, images.statistics), images.x[y].numpy(), 4, "reflect" if reflect else "constant")
    rows, columns, flips = zip(*places, strict=True)
    assert set(rows) == set(columns) == set(range(9))
    assert any(dy != dx for dy, dx, _ in places)
    assert 15 < sum(flips) < 45


@WAYS
def test_each_training_image_loses_a_square_at_a_place_of_its_own(way):
    images = one_label_each(60)
    x, _ = epoch_of(both_ways(images, pad=0, cutout=6)[way])
    gone = (x == 0).all(dim=1)  # (N, 32, 32); no pixel has the mean colour
    corners = [torch.nonzero(image)[0].tolist() for image in gone]
    for image, (top, left) in zip(gone, corners, strict=True):
        assert image[top : top + 6, left : left + 6].all()
        assert image.sum() == 36
    tops, lefts = zip(*corners, strict=True)
    assert min(tops) < 5 < 20 < max(tops) <= 26
    assert min(lefts) < 5 < 20 < max(lefts) <= 26
    assert tops != lefts


@WAYS
def test_a_smaller_picture_is_the_whole_one_resized(way):
    images = one_label_each(20)
    whole, small = (list(both_ways(images, cutout=4, reflect=True)[way].epoch(1, side)) for side in (None, 24))
    for (x, y), (x_small, y_small) in zip(whole, small, strict=True):
        assert torch.equal(y, y_small)
        assert x_small.shape[2:] == (24, 24)
        assert torch.equal(resized(x, 24), x_small)


def test_the_images_augmented_at_a_time_change_nothing(monkeypatch):
    images, epochs = one_label_each(45), []
    for chunk in (1, 20, 25, 1000):
        monkeypatch.setitem(pytorch_data.CHUNK, "cpu", chunk)
        batches = DeviceBatches(images, 10, 2, True, 0, reflect=True, cutout=5)
        epochs.append(list(batches.epoch(3)))
    for epoch in epochs:
        assert [len(y) for _, y in epoch] == [10] * 4
        for (x, y), (first_x, first_y) in zip(epoch, epochs[0], strict=True):
            assert torch.equal(x, first_x)
            assert torch.equal(y, first_y)


def test_without_a_pad_a_cutout_or_a_flip_a_batch_is_the_images(monkeypatch):
    images = one_label_each(20)
    monkeypatch.setattr(DeviceBatches, "_flips", lambda self, *_: torch.zeros(20, dtype=torch.bool))
    for reflect in (False, True):
        x, y = epoch_of(DeviceBatches(images, 10, 0, False, 0, reflect=reflect))
        assert torch.equal(x, normalized(images.x, images.statistics)[y])


@WAYS
def test_each_loader_shows_each_image_once_an_epoch_in_a_new_order(way):
    images = one_label_each(40)
    batches = both_ways(images)[way]
    assert batches.steps == 4
    orders = [epoch_of(batches, number)[1] for number in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(40))
    assert not torch.equal(*orders)
    assert torch.equal(orders[0], epoch_of(both_ways(images)[1 - way], 0)[1])
    assert not torch.equal(orders[0], epoch_of(both_ways(images, seed=1)[way], 0)[1])


@WAYS
def test_an_epoch_is_the_same_again_whatever_was_drawn_before(way):
    images = one_label_each(40)
    first, second = (both_ways(images)[way] for _ in range(2))
    epoch_of(first, 0)
    torch.rand(7)
    for a, b in zip(epoch_of(first, 1), epoch_of(second, 1), strict=True):
        assert torch.equal(a, b)


def test_each_seed_purpose_and_number_has_a_generator_of_its_own():
    seeds = {seeded_generator("cpu", *words).initial_seed() for words in product(range(2), repeat=3)}
    assert len(seeds) == 8


def test_alternating_flips_show_each_image_both_ways_in_any_two_epochs():
    images = one_label_each(60)
    batches = DeviceBatches(images, 10, 0, True, seed=0)
    flips = []
    for number in range(4):
        x, y = epoch_of(batches, number)
        found = places_of(pixels_of(x, images.statistics), images.x[y].numpy(), 0)
        flips.append(dict(zip(y.tolist(), (flipped for *_, flipped in found), strict=True)))
    for before, after in pairwise(flips):
        assert all(before[i] != after[i] for i in range(60))
    assert 15 < sum(flips[0].values()) < 45


# Batches


@WAYS
def test_training_images_are_normalized_by_the_given_statistics(way):
    x, y = bytes_and_labels(20)
    images = Images(x, y, "cpu", (torch.tensor([1.0, 2, 3]), torch.tensor([10.0, 20, 40])))
    batch, _ = epoch_of(both_ways(images, pad=0)[way])
    assert batch.dtype == torch.float32
    mean, std = (s[:, None, None] for s in images.statistics)
    sums = ((images.x - mean) / std).sum(dim=(2, 3))  # a flip keeps them
    assert torch.allclose(batch.sum(dim=(2, 3)).sort(dim=0).values, sums.sort(dim=0).values, rtol=1e-4)


def test_the_statistics_are_those_of_each_channel_and_also_normalize_the_validation_images():
    train = Images(*bytes_and_labels(64), "cpu")
    x = torch.cat([x for x, _ in train.batches(10)])
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)
    val = Images(*bytes_and_labels(32, seed=1), "cpu", train.statistics)
    (again, _), *_ = val.batches(32)
    assert np.array_equal(pixels_of(again, train.statistics), val.x)


@WAYS
def test_what_does_not_fill_a_batch_is_left_out_of_training(way):
    images = one_label_each(64)
    for batch_size, sizes in ((60, [60]), (30, [30, 30]), (100, [64])):
        batches = both_ways(images, batch_size)[way]
        assert [len(y) for _, y in batches.epoch(0)] == sizes
        assert (batches.steps, batches.batch_size) == (len(sizes), sizes[0])


def test_every_image_is_counted_in_evaluation():
    assert [len(y) for _, y in one_label_each(64).batches(30)] == [30, 30, 4]


@WAYS
def test_the_shares_of_all_processes_make_up_the_batches_of_one(monkeypatch, way):
    images = one_label_each(24)
    whole = list(both_ways(images, 8, cutout=4)[way].epoch(1))
    shares = []
    for rank in range(2):
        be_process(monkeypatch, rank, 2)
        shares.append(list(both_ways(images, 8, cutout=4)[way].epoch(1)))
    for step, (x, y) in enumerate(whole):
        assert torch.equal(torch.cat([share[step][1] for share in shares]), y)
        assert torch.equal(torch.cat([share[step][0] for share in shares]), x)


def test_the_processes_evaluate_each_image_once(monkeypatch):
    images, seen = one_label_each(25), []
    for rank in range(3):
        be_process(monkeypatch, rank, 3)
        seen += [label for _, y in images.batches(4) for label in y.tolist()]
    assert sorted(seen) == list(range(25))


@WAYS
def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch, way):
    images = one_label_each(24)
    be_process(monkeypatch, 0, 3)
    make = [lambda: DeviceBatches(images, 8, 4, False, 0), lambda: TorchvisionBatches(images, 8, 4, 0)][way]
    with pytest.raises(ValueError, match="batch_size: wanted a multiple of the 3 processes, got 8"):
        make()


# torchvision


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, where torch has threads
def test_the_number_of_workers_changes_nothing():
    images = one_label_each(24)
    alone, shared = (TorchvisionBatches(images, 8, 4, seed=0, workers=workers) for workers in (0, 2))
    for number in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(epoch_of(alone, number), epoch_of(shared, number), strict=True))
    shared.loader = None  # ends the workers now; the garbage collector would wait 5 seconds for each


def test_torchvisions_batches_leave_the_generator_that_all_share_alone():
    before = torch.get_rng_state()
    epoch_of(TorchvisionBatches(one_label_each(24), 8, 4, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


# The split


def small_read(monkeypatch):
    x, y = bytes_and_labels(5100)
    x_test, y_test = bytes_and_labels(200, seed=1)
    monkeypatch.setattr(
        pytorch_data, "read_images", lambda data_dir: ("Shapes10", "abcdefghij", (x, y, x_test, y_test))
    )
    return x, y, x_test, y_test


def test_5000_images_are_held_out_and_all_splits_have_the_training_statistics(monkeypatch):
    x, y, x_test, y_test = small_read(monkeypatch)
    train, val, test = read_splits(None, 80, "cpu")
    assert np.array_equal(train.x, x[:80])
    assert np.array_equal(val.x, x[100:])
    assert np.array_equal(test.x, x_test)
    assert [images.y.tolist() for images in (train, val, test)] == [s.tolist() for s in (y[:80], y[100:], y_test)]
    assert torch.allclose(train.statistics[0], train.x.float().mean(dim=(0, 2, 3)))
    for images in (train, val, test):
        assert images.statistics is train.statistics
        assert (images.name, images.class_names) == ("Shapes10", tuple("abcdefghij"))


def test_with_more_training_images_none_is_held_out(monkeypatch):
    x, *_ = small_read(monkeypatch)
    train, val, test = read_splits(None, 101, "cpu")
    assert (len(train), val, len(test)) == (101, None, 200)
    assert np.array_equal(read_splits(None, 5100, "cpu")[0].x, x)
    with pytest.raises(ValueError, match="train_images: wanted a whole number from 1 to 5100, got 5101"):
        read_splits(None, 5101, "cpu")
