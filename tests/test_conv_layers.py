"""Convolution and max-pooling, naive and fast, checked in the same ways.

test_fast_layers.py has what is particular to the fast ones, and test_layers.py what is common to all layers.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cs231n.conv_layers import (
    conv_backward_naive,
    conv_forward_naive,
    max_pool_backward_naive,
    max_pool_forward_naive,
)
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from cs231n.utils import check_layer, rel_error

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CONVS = {"naive": (conv_forward_naive, conv_backward_naive), "fast": (conv_forward_fast, conv_backward_fast)}
POOLS = {
    "naive": (max_pool_forward_naive, max_pool_backward_naive),
    "fast": (max_pool_forward_fast, max_pool_backward_fast),
}
every_conv = pytest.mark.parametrize(("forward", "backward"), CONVS.values(), ids=CONVS)
every_pool = pytest.mark.parametrize(("forward", "backward"), POOLS.values(), ids=POOLS)
# The order of the axes of an array in memory.
every_order = pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)], ids=str)


def draw_conv(N=2, C=2, H=6, W=5, F=3, KH=3, KW=3, dtype=np.float64, seed=0):
    """x, w and b."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in [(N, C, H, W), (F, C, KH, KW), (F,)]]


def draw_images(N=2, C=3, H=7, W=6, seed=0):
    return np.random.default_rng(seed).standard_normal((N, C, H, W))


def draw_dout(out):
    return np.random.default_rng(out.size).standard_normal(out.shape).astype(out.dtype)


def window(PH, PW, stride):
    return {"pool_height": PH, "pool_width": PW, "stride": stride}


def images(rows):
    """One image of one channel."""
    return np.array(rows, float)[None, None]


def laid_out(x, order):
    """x, its axes in another order in memory, and read-only."""
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    x.flags.writeable = False
    return x


def assert_as_torch(forward, backward, torch_layer, arrays, param):
    """out and all gradients agree with torch's, in shape and value."""
    out, cache = forward(*arrays, param)
    dout = draw_dout(out)
    grads = backward(dout, cache)
    grads = grads if isinstance(grads, tuple) else (grads,)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    torch_out = torch_layer(*tensors)
    assert out.shape == torch_out.shape
    torch_grads = torch.autograd.grad(torch_out, tensors, torch.from_numpy(dout))
    for ours, theirs in zip([out, *grads], [torch_out.detach(), *torch_grads], strict=True):
        assert rel_error(ours, theirs.numpy(), floor=1e-3) < 1e-10


# Convolution.


@every_conv
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (2, 1), (3, 3), (4, 2)], ids=str)  # larger and smaller than stride
def test_conv_gradients_agree_with_numerical_ones(forward, backward, stride, pad, kernel):
    arrays = draw_conv(KH=kernel[0], KW=kernel[1])
    # Linear in each argument, so that a long step leaves no error but rounding.
    check_layer(forward, backward, *arrays, {"stride": stride, "pad": pad}, h=0.1, directions=3, log=str)


@every_conv
@pytest.mark.parametrize("N", [1, 2])
@pytest.mark.parametrize(("stride", "pad"), [(1, 1), (2, 1), (3, 0)])
def test_conv_gradients_agree_with_numerical_ones_entry_by_entry(forward, backward, N, stride, pad):
    arrays = draw_conv(N, H=4, W=5, F=2, KH=2, KW=3)
    check_layer(forward, backward, *arrays, {"stride": stride, "pad": pad}, log=str)


@every_conv
@given(data=st.data(), stride=st.integers(1, 4), pad=st.integers(0, 3), seed=st.integers(0, 99))
def test_conv_agrees_with_torch_at_any_shape(forward, backward, data, stride, pad, seed):
    N, C, filters, KH, KW = (data.draw(st.integers(1, 4)) for _ in range(5))
    H, W = (data.draw(st.integers(max(1, K - 2 * pad), 6)) for K in (KH, KW))
    arrays = draw_conv(N, C, H, W, filters, KH, KW, seed=seed)
    param = {"stride": stride, "pad": pad}
    assert_as_torch(forward, backward, lambda x, w, b: F.conv2d(x, w, b, stride, pad), arrays, param)


@every_conv
def test_conv_worked_by_hand(forward, backward):
    x, w, b = images([[1, 2, 0], [0, 1, 3], [2, 1, 1]]), images([[1, 2], [0, -1]]), np.array([10.0])
    out, cache = forward(x, w, b, {"stride": 1, "pad": 0})
    assert out[0, 0].tolist() == [
        [14, 9],  # 1*1 + 2*2 + 0*0 + 1*-1 + 10, 2*1 + 0*2 + 1*0 + 3*-1 + 10
        [11, 16],  # 0*1 + 1*2 + 2*0 + 1*-1 + 10, 1*1 + 3*2 + 1*0 + 1*-1 + 10
    ]
    dx, dw, db = backward(images([[1, 0], [0, 3]]), cache)
    assert dw[0, 0].tolist() == [
        [4, 11],  # 1*1 + 3*1, 1*2 + 3*3
        [3, 4],  # 1*0 + 3*1, 1*1 + 3*1
    ]
    assert dx[0, 0].tolist() == [
        [1, 2, 0],  # 1 times w above on the left
        [0, -1 + 3, 6],  # both meet in the middle
        [0, 0, -3],  # 3 times w below on the right
    ]
    assert db.tolist() == [4]  # 1 + 0 + 0 + 3


@every_conv
def test_conv_with_stride_and_padding_worked_by_hand(forward, backward):
    # In its frame of zeros, x is 0 0 0 0 / 0 1 2 0 / 0 3 4 0 / 0 0 0 0; the four patches each hold one of its pixels.
    x, w, b = images([[1, 2], [3, 4]]), images([[5, 6], [7, 8]]), np.array([0.0])
    out, cache = forward(x, w, b, {"stride": 2, "pad": 1})
    assert out[0, 0].tolist() == [[1 * 8, 2 * 7], [3 * 6, 4 * 5]]
    dx, dw, db = backward(images([[1, 10], [100, 1000]]), cache)
    assert dx[0, 0].tolist() == [[1 * 8, 10 * 7], [100 * 6, 1000 * 5]]
    assert dw[0, 0].tolist() == [[1000 * 4, 100 * 3], [10 * 2, 1 * 1]]
    assert db.tolist() == [1111]


@every_conv
def test_conv_sums_over_channels_but_not_over_filters_or_images(forward, backward):
    x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)  # two images, each one pixel of two channels
    w = np.array([[1.0, 10.0], [0.0, 1.0], [-1.0, 1.0]]).reshape(3, 2, 1, 1)
    out, _ = forward(x, w, np.array([0.0, 100.0, 0.0]), {})
    assert out.reshape(2, 3).tolist() == [[21, 102, 1], [43, 104, 1]]


@every_conv
def test_conv_output_size_is_floored_and_what_no_filter_sees_has_no_gradient(forward, backward):
    x, w, b = draw_conv(H=6, W=7, KH=3, KW=2)
    out, cache = forward(x, w, b, {"stride": 2, "pad": 0})
    assert out.shape == (2, 3, 2, 3)  # floor((6 - 3) / 2) + 1, floor((7 - 2) / 2) + 1
    dx, _, _ = backward(np.ones_like(out), cache)
    assert not dx[:, :, 5:].any()
    assert not dx[:, :, :, 6:].any()
    assert dx[:, :, :5, :6].all()


@every_conv
def test_conv_stride_is_1_and_pad_0_where_absent(forward, backward):
    arrays = draw_conv()
    np.testing.assert_array_equal(forward(*arrays, {})[0], forward(*arrays, {"stride": 1, "pad": 0})[0])


@every_conv
@every_order
def test_conv_arrays_may_have_any_memory_layout_and_are_not_written_to(forward, backward, order):
    arrays, param = draw_conv(), {"stride": 2, "pad": 1}
    out, cache = forward(*arrays, param)
    dout = draw_dout(out)
    x, w, b = arrays
    strewn, strewn_cache = forward(laid_out(x, order), laid_out(w, order), b, param)
    strewn_grads = backward(laid_out(dout, order), strewn_cache)
    for got, wanted in zip([strewn, *strewn_grads], [out, *backward(dout, cache)], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)


@every_conv
def test_conv_leaves_conv_param_alone(forward, backward):
    conv_param = {"pad": 1}
    out, cache = forward(*draw_conv(), conv_param)
    backward(out, cache)
    assert conv_param == {"pad": 1}


@every_conv
@pytest.mark.parametrize(
    ("x", "w", "b", "message"),
    [
        ((2, 3, 5, 5), (4, 2, 3, 3), (4,), r"got x \(2, 3, 5, 5\), w \(4, 2, 3, 3\) and b \(4,\)"),
        ((2, 3, 5, 5), (4, 3, 3, 3), (3,), r"got x \(2, 3, 5, 5\), w \(4, 3, 3, 3\) and b \(3,\)"),
        ((2, 3, 5, 5), (4, 3, 3, 3), (1, 4), r"got .* and b \(1, 4\)"),
        ((2, 3, 5, 5), (4, 3, 9), (4,), r"got .* w \(4, 3, 9\) and"),
        ((3, 5, 5), (4, 3, 3, 3), (4,), r"got x \(3, 5, 5\)"),
        ((2, 3, 5), (4, 3, 3, 3), (4,), r"got x \(2, 3, 5\)"),
        ((2, 75), (4, 75), (4,), r"got x \(2, 75\), w \(4, 75\)"),
        ((0, 3, 5, 5), (4, 3, 3, 3), (4,), r"got x \(0, 3, 5, 5\)"),
        ((2, 0, 5, 5), (4, 0, 3, 3), (4,), r"got x \(2, 0, 5, 5\)"),
        ((2, 3, 5, 5), (0, 3, 3, 3), (0,), r"got .* w \(0, 3, 3, 3\)"),
        ((2, 3, 5, 5), (4, 3, 0, 3), (4,), r"got .* w \(4, 3, 0, 3\)"),
    ],
)
def test_conv_names_the_shapes_that_do_not_fit(forward, backward, x, w, b, message):
    with pytest.raises(ValueError, match=r"x \(N, C, H, W\), w \(F, C, KH, KW\) and b \(F,\), .*" + message):
        forward(np.ones(x), np.ones(w), np.ones(b), {})


@every_conv
@pytest.mark.parametrize(
    ("H", "W", "pad", "fits"),
    [(2, 5, 0, False), (3, 3, 0, False), (1, 5, 1, True), (1, 2, 1, True), (1, 1, 1, False), (3, 4, 0, True)],
)
def test_conv_names_a_kernel_larger_than_the_padded_image(forward, backward, H, W, pad, fits):
    arrays = draw_conv(H=H, W=W, KH=3, KW=4)
    if fits:
        assert forward(*arrays, {"pad": pad})[0].shape == (2, 3, H + 2 * pad - 2, W + 2 * pad - 3)
        return
    padded = rf"\({H + 2 * pad}, {W + 2 * pad}\)"
    with pytest.raises(ValueError, match=rf"\(3, 4\).* does not fit .* {padded}, its padding included"):
        forward(*arrays, {"pad": pad})


@every_conv
@pytest.mark.parametrize(
    ("conv_param", "message"),
    [
        *[({"stride": s}, rf"conv_param\['stride'\]: .* at least 1, got {s}") for s in (0, -1, 1.5, None)],
        *[({"pad": p}, rf"conv_param\['pad'\]: .* at least 0, got {p}") for p in (-1, 1.5, None)],
        ({"stride": "2"}, r"conv_param\['stride'\]: .* got '2'"),
        ({"stride": (1, 2)}, r"conv_param\['stride'\]: .* got \(1, 2\)"),
        ({"padding": 1, "strid": 2}, "conv_param: wanted stride, pad, and nothing else; got 'padding', 'strid'"),
    ],
)
def test_conv_names_what_is_wrong_in_conv_param(forward, backward, conv_param, message):
    with pytest.raises(ValueError, match=message):
        forward(*draw_conv(), conv_param)


@every_conv
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_conv_names_images_that_are_not_floats(forward, backward, dtype):
    x, w, b = draw_conv()
    with pytest.raises(ValueError, match=f"x: wanted float32 or float64, got {np.dtype(dtype)}"):
        forward(x.astype(dtype), w, b, {})


@every_conv
@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 3, 4, 3), (2, 3, 12), (3,), ()], ids=str)
def test_conv_backward_names_a_dout_that_does_not_fit(forward, backward, shape):
    out, cache = forward(*draw_conv(), {})
    assert out.shape == (2, 3, 4, 3)
    with pytest.raises(ValueError, match=r"dout: wanted the shape of out, \(2, 3, 4, 3\), got \(.*\)") as error:
        backward(np.ones(shape), cache)
    assert str(error.value).endswith(f"got {shape}")


# Slips that learners make: each is right somewhere, and caught elsewhere.


def stride_forgotten_in_dw(dout, cache):
    x, w, _, _ = cache
    dx, dw, db = conv_backward_naive(dout, cache)
    H_out, W_out = dout.shape[2:]
    for p, q in np.ndindex(w.shape[2:]):
        dw[:, :, p, q] = np.einsum("nfij,ncij->fc", dout, x[:, :, p : p + H_out, q : q + W_out])
    return dx, dw, db


def frame_cropped_at_the_wrong_side(dout, cache):
    x, w, b, conv_param = cache
    p = conv_param["pad"]
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dxp, dw, db = conv_backward_naive(dout, (xp, w, b, conv_param | {"pad": 0}))
    return dxp[:, :, : x.shape[2], : x.shape[3]], dw, db


def db_of_the_first_image(dout, cache):
    dx, dw, _ = conv_backward_naive(dout, cache)
    return dx, dw, dout[0].sum(axis=(1, 2))


def filters_not_mirrored_in_dx(dout, cache):
    _, w, _, conv_param = cache
    _, dw, db = conv_backward_naive(dout, cache)
    pad = w.shape[2] - 1 - conv_param["pad"]
    dx, _ = conv_forward_naive(dout, w.swapaxes(0, 1), np.zeros(w.shape[1]), {"pad": pad})
    return dx, dw, db


@pytest.mark.parametrize(
    ("slip", "gradient", "right", "wrong"),
    [
        (stride_forgotten_in_dw, "dw", {"stride": 1}, {"stride": 2}),
        (frame_cropped_at_the_wrong_side, "dx", {"pad": 0}, {"pad": 1}),
        (db_of_the_first_image, "db", {"N": 1}, {"N": 2}),
        (filters_not_mirrored_in_dx, "dx", {"K": 1}, {"K": 2}),
    ],
)
def test_a_slip_in_conv_backward_is_caught(slip, gradient, right, wrong):
    def check(N=2, K=3, stride=1, pad=0):
        check_layer(conv_forward_naive, slip, *draw_conv(N, KH=K, KW=K), {"stride": stride, "pad": pad}, log=str)

    check(**right)
    with pytest.raises(AssertionError, match=f"conv_forward_naive: {gradient}"):
        check(**wrong)


# Max-pooling.


@every_pool
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (3, 2), (3, 3)], ids=str)  # overlapping, touching and apart
def test_pool_gradient_agrees_with_the_numerical_one(forward, backward, stride, size):
    check_layer(forward, backward, draw_images(), window(*size, stride), log=str)


@every_pool
@given(data=st.data(), stride=st.integers(1, 4), levels=st.integers(1, 4), seed=st.integers(0, 99))
def test_pool_agrees_with_torch_at_any_shape_and_with_any_ties(forward, backward, data, stride, levels, seed):
    N, C, PH, PW = (data.draw(st.integers(1, 4)) for _ in range(4))
    H, W = (data.draw(st.integers(P, 8)) for P in (PH, PW))
    x = np.random.default_rng(seed).integers(-levels, levels, (N, C, H, W)).clip(-1).astype(float)
    assert_as_torch(forward, backward, lambda x: F.max_pool2d(x, (PH, PW), stride), [x], window(PH, PW, stride))


@every_pool
def test_pool_worked_by_hand(forward, backward):
    x = images([[1, 5, 2, 0], [3, -4, 7, 1], [-9, -2, -6, -3], [-5, -7, -8, -4]])
    out, cache = forward(x, window(2, 2, 2))
    assert out[0, 0].tolist() == [[5, 7], [-2, -3]]
    dx = backward(images([[1, 2], [3, 4]]), cache)
    assert dx[0, 0].tolist() == [[0, 1, 0, 0], [0, 0, 2, 0], [0, 3, 0, 4], [0, 0, 0, 0]]


@every_pool
def test_pool_adds_up_the_gradients_of_windows_that_share_a_maximum(forward, backward):
    x = images([[0, 1, 2], [3, 9, 4], [5, 6, 7]])
    out, cache = forward(x, window(2, 2, 1))
    assert (out == 9).all()
    assert backward(images([[1, 10], [100, 1000]]), cache)[0, 0].tolist() == [[0, 0, 0], [0, 1111, 0], [0, 0, 0]]


@every_pool
@pytest.mark.parametrize(
    ("size", "stride", "wanted"),
    [
        ((2, 2), 2, [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
        ((3, 3), 2, [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
        ((3, 3), 1, [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
        ((2, 2), 3, [[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]),
    ],
    ids=["touching", "overlapping", "at every pixel", "with gaps"],
)
@pytest.mark.parametrize("value", [0.0, -3.0, np.inf, -np.inf])
def test_pool_of_equals_gives_the_gradient_to_the_first(forward, backward, size, stride, wanted, value):
    out, cache = forward(np.full((1, 1, 5, 5), value), window(*size, stride))
    assert (out == value).all()
    assert backward(np.ones_like(out), cache)[0, 0].tolist() == wanted


@every_pool
def test_pool_ties_go_to_the_first_in_reading_order(forward, backward):
    x = images([[0, 4, 4, 0], [4, 0, 0, 4]])  # the row above goes before the column on the left
    _, cache = forward(x, window(2, 2, 2))
    assert backward(images([[1, 2]]), cache)[0, 0].tolist() == [[0, 1, 2, 0], [0, 0, 0, 0]]


@every_pool
@pytest.mark.parametrize("place", range(4))
def test_pool_passes_nan_on(forward, backward, place):
    x = np.arange(8.0).reshape(1, 1, 2, 4)
    x[0, 0, place // 2, place % 2] = np.nan
    out, _ = forward(x, window(2, 2, 2))
    np.testing.assert_array_equal(out[0, 0], [[np.nan, 7]])  # a net that diverged says so


@pytest.mark.parametrize("pool_param", [window(2, 2, 2), window(3, 3, 2), window(3, 3, 1), window(2, 2, 3)], ids=str)
def test_fast_pool_is_naive_pool_to_the_bit_after_relu(pool_param):
    x = draw_images(N=3, H=9, W=8).clip(0)
    naive, naive_cache = max_pool_forward_naive(x, pool_param)
    fast, fast_cache = max_pool_forward_fast(x, pool_param)
    np.testing.assert_array_equal(fast, naive)
    dout = np.random.default_rng(1).integers(1, 100, naive.shape).astype(float)  # exact, in whatever order it adds up
    np.testing.assert_array_equal(max_pool_backward_fast(dout, fast_cache), max_pool_backward_naive(dout, naive_cache))


def spread(share):
    """A backward that gives each of a window's maxima the gradient, or its share of it."""

    def backward(dout, cache):
        x, pool_param = cache
        PH, PW, s = (pool_param[name] for name in ("pool_height", "pool_width", "stride"))
        dx = np.zeros_like(x)
        for n, c, i, j in np.ndindex(dout.shape):
            patch = np.s_[n, c, i * s : i * s + PH, j * s : j * s + PW]
            largest = x[patch] == x[patch].max()
            dx[patch] += dout[n, c, i, j] * largest / (largest.sum() if share else 1)
        return dx

    return backward


@pytest.mark.parametrize("share", [True, False], ids=["split among equals", "given to all equals"])
def test_a_slip_in_pool_backward_shows_at_ties_alone(share):
    def agree(x):
        out, cache = max_pool_forward_naive(x, window(3, 3, 2))
        dout = draw_dout(out)
        return rel_error(spread(share)(dout, cache), max_pool_backward_naive(dout, cache)) < 1e-12

    check_layer(max_pool_forward_naive, spread(share), draw_images(), window(3, 3, 2), log=str)
    assert agree(draw_images())
    assert not agree(np.ones((1, 1, 5, 5)))


@every_pool
def test_pool_output_size_is_floored_and_what_no_window_sees_has_no_gradient(forward, backward):
    out, cache = forward(draw_images(H=6, W=7), window(3, 2, 2))
    assert out.shape == (2, 3, 2, 3)  # floor((6 - 3) / 2) + 1, floor((7 - 2) / 2) + 1
    dx = backward(np.ones_like(out), cache)
    assert not dx[:, :, 5:].any()
    assert not dx[:, :, :, 6:].any()


@every_pool
@every_order
def test_pool_arrays_may_have_any_memory_layout_and_are_not_written_to(forward, backward, order):
    x, pool_param = draw_images(), window(3, 2, 2)
    out, cache = forward(x, pool_param)
    dout = draw_dout(out)
    strewn, strewn_cache = forward(laid_out(x, order), pool_param)
    np.testing.assert_array_equal(strewn, out)
    np.testing.assert_allclose(backward(laid_out(dout, order), strewn_cache), backward(dout, cache), rtol=1e-14)
    assert pool_param == window(3, 2, 2)


@every_pool
@pytest.mark.parametrize(
    ("pool_param", "message"),
    [
        (window(8, 1, 1), r"\(8, 1\).* does not fit .* \(7, 6\)"),
        (window(1, 7, 1), r"\(1, 7\).* does not fit .* \(7, 6\)"),
        (window(0, 2, 2), r"pool_param\['pool_height'\]: .* at least 1, got 0"),
        (window(2, 2.0, 2), r"pool_param\['pool_width'\]: .* at least 1, got 2.0"),
        (window(2, 2, -1), r"pool_param\['stride'\]: .* at least 1, got -1"),
        ({"pool_height": 2, "pool_width": 2}, r"pool_param\['stride'\]: .* at least 1, got None"),
        ({}, r"pool_param\['pool_height'\]: .* at least 1, got None"),
        (
            window(2, 2, 2) | {"pad": 1},
            "pool_param: wanted pool_height, pool_width, stride, and nothing else; got 'pad'",
        ),
    ],
)
def test_pool_names_what_is_wrong_in_pool_param(forward, backward, pool_param, message):
    with pytest.raises(ValueError, match=message):
        forward(draw_images(), pool_param)


@every_pool
@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7), (2, 3, 6, 7, 1), (0, 3, 6, 7), (2, 0, 6, 7)], ids=str)
def test_pool_names_an_x_that_is_not_images(forward, backward, shape):
    with pytest.raises(ValueError, match=r"x: wanted images \(N, C, H, W\)") as error:
        forward(np.ones(shape), window(2, 2, 2))
    assert str(error.value).endswith(f"got {shape}")


@every_pool
@pytest.mark.parametrize("shape", [(2, 3, 3, 2), (1, 3, 3, 3), (2, 3, 9), (3,), ()], ids=str)
def test_pool_backward_names_a_dout_that_does_not_fit(forward, backward, shape):
    out, cache = forward(draw_images(), window(2, 2, 2))
    assert out.shape == (2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"dout: wanted the shape of out, \(2, 3, 3, 3\), got \(.*\)") as error:
        backward(np.ones(shape), cache)
    assert str(error.value).endswith(f"got {shape}")
