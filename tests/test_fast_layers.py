"""What is particular to the fast layers: im2col, blocks and threads, and memory.

test_conv_layers.py checks them beside the naive ones, at small sizes.
"""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from memory import memory_of
from threadpoolctl import threadpool_limits
from threads import blas_threads

from cs231n import parallel
from cs231n.conv_layers import conv_backward_naive, conv_forward_naive
from cs231n.fast_layers import (
    col2im,
    conv_backward_fast,
    conv_forward_fast,
    im2col,
    max_pool_backward_fast,
    max_pool_forward_fast,
)
from cs231n.utils import rel_error

pytestmark = pytest.mark.usefixtures("one_torch_thread")

POOL = {"pool_height": 3, "pool_width": 2, "stride": 2}


def random(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def draw_conv(N, C, H, W, filters, K=3, dtype=np.float64, seed=0):
    """x, w and b, scaled so that out is of the size of x."""
    w = random(filters, C, K, K, dtype=dtype, seed=[seed, 1]) / np.sqrt(C * K * K, dtype=dtype)
    return [random(N, C, H, W, dtype=dtype, seed=seed), w, random(filters, dtype=dtype, seed=[seed, 2])]


def run_conv(arrays, conv_param):
    """out, dx, dw and db, for a dout that follows from the shapes."""
    out, cache = conv_forward_fast(*arrays, conv_param)
    dout = random(*out.shape, dtype=out.dtype, seed=out.size)
    return [out, *conv_backward_fast(dout, cache)]


def run_pool(x):
    """out and dx."""
    out, cache = max_pool_forward_fast(x, POOL)
    return [out, max_pool_backward_fast(random(*out.shape, dtype=out.dtype, seed=out.size), cache)]


def with_torch(torch_layer, *arrays):
    """What torch_layer and autograd give for the same dout."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = torch_layer(*tensors)
    dout = torch.from_numpy(random(*out.shape, dtype=arrays[0].dtype, seed=out.numel()))
    return [a.detach().numpy() for a in (out, *torch.autograd.grad(out, tensors, dout))]


def torch_conv(arrays, stride=1, pad=0):
    return with_torch(lambda x, w, b: F.conv2d(x, w, b, stride, pad), *arrays)


def torch_pool(x):
    return with_torch(lambda x: F.max_pool2d(x, (3, 2), 2), x)


def assert_close(ours, theirs, tol):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert rel_error(a, b) < tol


# im2col and col2im.

any_patches = given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(4, 7), st.integers(4, 7)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 5),
    pad=st.integers(0, 3),
)


def test_im2col_of_4x4_pixels_worked_by_hand():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    # A column for each place of the 3x3 kernel: above left, above right, below left, below right.
    assert im2col(x, 3, 3).tolist() == [
        [0, 1, 4, 5],
        [1, 2, 5, 6],
        [2, 3, 6, 7],
        [4, 5, 8, 9],
        [5, 6, 9, 10],
        [6, 7, 10, 11],
        [8, 9, 12, 13],
        [9, 10, 13, 14],
        [10, 11, 14, 15],
    ]


def test_im2col_with_stride_and_padding_and_an_oblong_kernel_worked_by_hand():
    x = np.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    # In its frame of zeros, x is 0 0 0 0 / 0 1 2 0 / 0 3 4 0 / 0 0 0 0; the kernel is one row of 3, moved by 2.
    assert im2col(x, 1, 3, stride=2, pad=1).tolist() == [[0, 0], [0, 3], [0, 4]]


def test_im2col_puts_channels_below_each_other_and_images_side_by_side():
    x = np.arange(8.0).reshape(2, 2, 1, 2)  # two images of two channels of two pixels
    assert im2col(x, 1, 2).tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_col2im_counts_the_patches_that_hold_a_pixel():
    assert col2im(np.ones((4, 9)), (1, 1, 4, 4), 2, 2)[0, 0].tolist() == [
        [1, 2, 2, 1],
        [2, 4, 4, 2],
        [2, 4, 4, 2],
        [1, 2, 2, 1],
    ]


def test_col2im_sums_over_each_pixel_and_drops_the_frame():
    # x is one row of 3 pixels in a frame of zeros: a kernel of 1 x 3 moves over rows of 5 pixels, at 3 places in each
    # of 3 rows, of which the middle one is x.  The columns of the middle row are (1, 10, 100), (2, 20, 200), ...
    cols = np.zeros((3, 3, 3))
    cols[:, 1] = [[1, 2, 3], [10, 20, 30], [100, 200, 300]]
    # pixel 0: 10 + 2;  pixel 1: 100 + 20 + 3;  pixel 2: 200 + 30
    assert col2im(cols.reshape(3, 9), (1, 1, 1, 3), 1, 3, 1, pad=1).tolist() == [[[[12, 123, 230]]]]


@any_patches
def test_im2col_and_col2im_are_adjoint(shape, kernel, stride, pad):
    x = random(*shape)
    cols = im2col(x, *kernel, stride, pad)
    y = random(*cols.shape, seed=1)
    assert np.vdot(cols, y) == pytest.approx(np.vdot(x, col2im(y, shape, *kernel, stride, pad)), rel=1e-10, abs=1e-10)


@any_patches
def test_im2col_agrees_with_torch(shape, kernel, stride, pad):
    x = random(*shape)
    theirs = F.unfold(torch.from_numpy(x), kernel, padding=pad, stride=stride)
    theirs = theirs.transpose(0, 1).flatten(1)  # (N, rows, places) -> (rows, N * places)
    np.testing.assert_array_equal(im2col(x, *kernel, stride, pad), theirs.numpy())


@any_patches
def test_filters_times_columns_is_the_convolution(shape, kernel, stride, pad):
    x, w, b = random(*shape), random(2, shape[1], *kernel, seed=1), random(2, seed=2)
    out, _ = conv_forward_fast(x, w, b, {"stride": stride, "pad": pad})
    by_hand = w.reshape(2, -1) @ im2col(x, *kernel, stride, pad) + b[:, None]
    by_hand = by_hand.reshape(2, len(x), *out.shape[2:]).swapaxes(0, 1)
    assert rel_error(by_hand, out) < 1e-12


def test_im2col_and_col2im_keep_float32_and_read_only_views():
    x = random(2, 5, 4, 3, dtype=np.float32).transpose(0, 3, 1, 2)
    x.flags.writeable = False
    cols = im2col(x, 2, 2, 1, 1)
    np.testing.assert_array_equal(cols, im2col(x.copy(), 2, 2, 1, 1))
    cols.flags.writeable = False
    assert cols.dtype == col2im(cols, x.shape, 2, 2, 1, 1).dtype == np.float32


def test_col2im_undoes_im2col_of_1x1():
    x = random(2, 3, 4, 5)
    np.testing.assert_array_equal(col2im(im2col(x, 1, 1), x.shape, 1, 1), x)


# Many channels, and numbers that are not finite.


@pytest.mark.parametrize(("C", "filters"), [(15, 32), (16, 16), (32, 17)])
@pytest.mark.parametrize(("K", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (3, 1, 3), (5, 1, 2), (1, 1, 0)])
def test_any_number_of_channels_agrees_with_torch(C, filters, K, stride, pad):
    arrays = draw_conv(2, C, 6, 7, filters, K)
    assert_close(run_conv(arrays, {"stride": stride, "pad": pad}), torch_conv(arrays, stride, pad), tol=1e-10)


@pytest.mark.parametrize("kernel", [(3, 1), (1, 3), (3, 5), (5, 3)], ids=str)
def test_oblong_filters_of_many_channels_agree_with_torch(kernel):
    arrays = [random(2, 16, 7, 8), random(17, 16, *kernel, seed=1), random(17, seed=2)]
    assert_close(run_conv(arrays, {"pad": 1}), torch_conv(arrays, pad=1), tol=1e-10)


def test_3x3_filters_of_many_channels_agree_with_the_naive_layer():
    arrays, conv_param = draw_conv(1, 16, 5, 3, 16), {"pad": 1}
    out, cache = conv_forward_naive(*arrays, conv_param)
    grads = conv_backward_naive(random(*out.shape, seed=out.size), cache)
    assert_close(run_conv(arrays, conv_param), [out, *grads], tol=1e-10)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_pixel_that_is_not_finite_reaches_the_outputs_that_it_reaches_in_the_loops(value):
    (x, w, b), conv_param = draw_conv(1, 16, 9, 9, 16), {"pad": 1}
    x[0, 3, 4, 5] = value
    np.testing.assert_array_equal(
        np.isfinite(conv_forward_fast(x, w, b, conv_param)[0]), np.isfinite(conv_forward_naive(x, w, b, conv_param)[0])
    )


# Blocks and threads.


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that the many images below fill four or more, and leave some over."""
    monkeypatch.setattr(parallel, "BLOCK", 1 << 16)


CONVS = {
    "im2col": (draw_conv(37, 3, 32, 30, 4, 5), {"pad": 2}),
    "im2col, stride 2": (draw_conv(75, 3, 31, 31, 5), {"stride": 2, "pad": 1}),
    "1x1": (draw_conv(41, 20, 16, 16, 18, 1), {}),
    "many channels": (draw_conv(37, 16, 14, 15, 17), {"pad": 1}),
    "one image": (draw_conv(1, 16, 9, 9, 16), {"pad": 1}),
    "one image larger than a block": (draw_conv(1, 16, 90, 90, 3, 5), {}),
    "two images": (draw_conv(2, 3, 9, 9, 4), {"pad": 1}),
}
every_conv = pytest.mark.parametrize(("arrays", "conv_param"), CONVS.values(), ids=CONVS)
every_thread_count = pytest.mark.parametrize("threads", [1, 2, 3])
in_small_blocks = pytest.mark.usefixtures("small_blocks")


@in_small_blocks
@every_conv
@every_thread_count
def test_conv_is_the_same_on_any_number_of_threads(arrays, conv_param, threads):
    theirs = torch_conv(arrays, **conv_param)
    with threadpool_limits(threads, user_api="blas"):
        assert_close(run_conv(arrays, conv_param), theirs, tol=1e-10)


@in_small_blocks
@every_thread_count
@pytest.mark.parametrize("N", [1, 2, 3, 70])
def test_pool_is_the_same_on_any_number_of_threads(N, threads):
    x = random(N, 8, 32, 31)
    with threadpool_limits(threads, user_api="blas"):
        assert_close(run_pool(x), torch_pool(x), tol=1e-14)


@in_small_blocks
@every_conv
@every_thread_count
def test_the_same_call_gives_the_same_bits(arrays, conv_param, threads):
    with threadpool_limits(threads, user_api="blas"):
        for first, second in zip(run_conv(arrays, conv_param), run_conv(arrays, conv_param), strict=True):
            np.testing.assert_array_equal(first, second)


@in_small_blocks
@every_conv
@every_thread_count
def test_blas_has_its_threads_back_after_a_call(arrays, conv_param, threads):
    with threadpool_limits(threads, user_api="blas"):
        run_conv(arrays, conv_param)
        run_pool(arrays[0])
        assert blas_threads() == {threads}


@in_small_blocks
@every_conv
@every_thread_count
def test_an_error_in_a_thread_reaches_the_caller_and_blas_has_its_threads_back(arrays, conv_param, threads):
    x, w, b = (a.astype(np.float32) for a in arrays)
    x[...] = 1e38
    with threadpool_limits(threads, user_api="blas"):
        with np.errstate(over="raise", invalid="raise"), pytest.raises(FloatingPointError):
            conv_forward_fast(x, 1e3 * np.abs(w), b, conv_param)
        assert blas_threads() == {threads}


@in_small_blocks
@every_conv
@every_thread_count
def test_errstate_holds_in_the_threads_too(arrays, conv_param, threads):
    x, w, b = (1e30 * a.astype(np.float32) for a in arrays)  # products of which are beyond float32
    with threadpool_limits(threads, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        out, cache = conv_forward_fast(x, w, b, conv_param)
        dx, _, _ = conv_backward_fast(np.full_like(out, 1e30), cache)
    assert not np.isfinite(out).all()  # or there was nothing to warn of
    assert not np.isfinite(dx).all()


# Memory, and what is left out.


@in_small_blocks
@every_conv
def test_need_dx_false_leaves_out_dx_alone(arrays, conv_param):
    out, cache = conv_forward_fast(*arrays, conv_param)
    dout = random(*out.shape, seed=1)
    nothing, *grads = conv_backward_fast(dout, cache, need_dx=False)
    assert nothing is None
    for got, wanted in zip(grads, conv_backward_fast(dout, cache)[1:], strict=True):
        np.testing.assert_array_equal(got, wanted)


def megabytes_of(function, *args):
    """As `memory_of`, in megabytes."""
    held, peak, result = memory_of(function, *args)
    return held / 1e6, peak / 1e6, result


@pytest.mark.parametrize(
    ("filters", "K", "conv_param"),
    [(64, 3, {"pad": 1}), (8, 3, {"pad": 1}), (8, 5, {"stride": 2, "pad": 2}), (64, 1, {})],
    ids=["3x3", "im2col", "im2col, stride 2", "1x1"],
)
def test_columns_never_exist_for_the_whole_batch_and_none_are_kept(filters, K, conv_param):
    """Columns of the batch would take 151 MB at 3x3, 105 at 5x5 and stride 2; x and dx take 17, and out up to 17."""
    x, w, b = draw_conv(64, 64, 32, 32, filters, K, np.float32)
    with threadpool_limits(2, user_api="blas"):
        held, peak, (out, cache) = megabytes_of(conv_forward_fast, x, w, b, conv_param)
        assert held < out.nbytes / 1e6 + 1
        assert peak < out.nbytes / 1e6 + 30
        held, peak, (dx, _, _) = megabytes_of(conv_backward_fast, random(*out.shape, dtype=np.float32), cache)
        assert held < dx.nbytes / 1e6 + 1
        assert peak < dx.nbytes / 1e6 + 30


FAULTS = """
import resource
import numpy as np
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast

def step():
    out, cache = conv_forward_fast(x, w, b, {"stride": 2, "pad": 1})
    conv_backward_fast(out, cache)

x, w, b = (np.ones(shape, np.float32) for shape in ((100, 3, 31, 31), (25, 3, 3, 3), (25,)))
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_blocks_take_memory_that_the_process_has():
    """Page faults a step; there are some 1,400, on two threads, where freed memory goes back to the system."""
    child = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 100


def test_pool_holds_no_windows():
    x = random(64, 32, 32, 32, dtype=np.float32)  # 8 MB
    with threadpool_limits(2, user_api="blas"):
        held, peak, (out, cache) = megabytes_of(
            max_pool_forward_fast, x, {"pool_height": 3, "pool_width": 3, "stride": 1}
        )
        assert held < out.nbytes / 1e6 + 1  # the cache holds no copies of x and out, let alone 9 numbers a window
        assert peak < out.nbytes / 1e6 + 4
        _, peak, _ = megabytes_of(max_pool_backward_fast, out, cache)
        assert peak < x.nbytes / 1e6 + 5
