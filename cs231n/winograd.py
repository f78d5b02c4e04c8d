"""Convolution with 3 x 3 filters at stride 1 in fewer multiplications: Winograd's algorithm F(4 x 4, 3 x 3).

In one dimension, four neighbouring outputs y_i = sum_k d_{i+k} g_k of a filter g of three read six inputs d and take
4 * 3 = 12 multiplications.  They are coefficients of a product of polynomials, which is of degree 5 and hence known by
six values, here those at 0, 1, -1, 2, -2 and infinity; so six multiplications are enough:

    y = A^T ((G g) * (B^T d)),  with the constant matrices A^T (4, 6), G (6, 3) and B^T (6, 6) below.

In two dimensions rows and columns are transformed alike, and a tile of 4 x 4 outputs takes 6 * 6 = 36 multiplications
in place of 16 * 9 = 144.  Summed over the channels, for many tiles at once, they are 36 matrix products.  The
transforms B^T, G and A^T multiply too, here as dense matrices, so the whole saves less than the products alone.

Rounding errors grow: float32 results are good to about 1e-5 of their largest entry, those of a plain sum to 1e-6.
Source: Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016, section 4.
"""

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cs231n.parallel import in_parallel

A_T = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)


def fits(w, stride, pad):
    """Whether filters w (F, C, KH, KW) are 3 x 3, at stride 1, and have enough channels for the algorithm to pay."""
    F, C, KH, KW = w.shape
    return (KH, KW, stride) == (3, 3, 1) and pad <= 2 and min(F, C) >= 16


def winograd_forward(x, w, b, pad):
    """As `conv_forward_naive` at stride 1.

    x (N, C, H, W), w (F, C, 3, 3) and b (F,), float; pad: 0 to 2.  Returns out (N, F, H_out, W_out), of x's dtype.
    """
    (F, C), H, W = w.shape[:2], x.shape[2] + 2 * pad - 2, x.shape[3] + 2 * pad - 2
    to_out, to_w, to_x = _transforms(x.dtype)
    out = np.empty((len(x), F, H, W), x.dtype)

    def forward(blocks):
        # Computed by each thread: outside, BLAS would start threads of its own, which go on spinning beside these.
        U = (to_w @ w.transpose(2, 3, 1, 0).reshape(9, -1)).reshape(36, C, F)
        for block in blocks:
            V = (to_x @ _patches(x[block], 6, H, W, pad)).reshape(36, -1, C)
            Y = to_out @ (V @ U).reshape(36, -1)
            out[block] = _untile(Y, F, H, W)
            out[block] += b[:, None, None]

    in_parallel(forward, len(x), _size(C, F, H, W))
    return out


def winograd_backward(dout, x, w, pad, need_dx=True):
    """As `conv_backward_naive` at stride 1.

    dout (N, F, H_out, W_out), x and w as in `winograd_forward`, float.  Returns dx (N, C, H, W), or None with
    need_dx=False, and dw (F, C, 3, 3), of x's dtype.
    dw is forward's chain of products, backwards: dM = A dY, dU = V^T dM and dw = G^T dU.
    dx is itself a convolution, of dout with the filters mirrored and their two channel axes swapped.
    """
    (F, C), (H, W) = w.shape[:2], dout.shape[2:]
    to_out, to_w, to_x = _transforms(x.dtype)

    def backward(blocks):
        dU = np.zeros((36, C, F), x.dtype)
        for block in blocks:
            V = (to_x @ _patches(x[block], 6, H, W, pad)).reshape(36, -1, C)
            dM = (to_out.T @ _patches(dout[block], 4, H, W)).reshape(36, -1, F)
            dU += V.swapaxes(1, 2) @ dM
        return (to_w.T @ dU.reshape(36, -1)).reshape(3, 3, C, F)

    dw = sum(in_parallel(backward, len(x), _size(C, F, H, W))).transpose(3, 2, 0, 1)
    mirrored = w[:, :, ::-1, ::-1].swapaxes(0, 1)
    return winograd_forward(dout, mirrored, np.zeros(C, x.dtype), 2 - pad) if need_dx else None, dw


@functools.cache
def _transforms(dtype):
    """A^T, G and B^T for rows and columns at once: A^T M A, written as a column, is kron(A^T, A^T) times that of M."""
    return [np.kron(matrix, matrix).astype(dtype) for matrix in (A_T, G, B_T)]


def _tiles(length):
    """How many tiles of 4 cover a length."""
    return -(-length // 4)


def _patches(x, size, H, W, pad=0):
    """The patches of size x size pixels, 4 apart, for each tile of an output H x W: (size^2, examples * tiles * C).

    Beyond x there are zeros.  One extra column, which is never read, keeps the rows from being a power of 2 apart in
    memory, where they would share a few lines of the cache.
    """
    TH, TW = _tiles(H), _tiles(W)
    xp = np.zeros((*x.shape[:2], 4 * TH + size - 4, 4 * TW + size - 3), x.dtype)
    xp[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]] = x
    patches = sliding_window_view(xp[..., :-1], (size, size), axis=(2, 3))[:, :, ::4, ::4]
    return patches.transpose(4, 5, 0, 2, 3, 1).reshape(size * size, -1)


def _untile(Y, F, H, W):
    """Tiles (16, examples * tiles * F) as images (examples, F, H, W)."""
    TH, TW = _tiles(H), _tiles(W)
    images = Y.reshape(4, 4, -1, TH, TW, F).transpose(2, 5, 3, 0, 4, 1)
    return images.reshape(-1, F, 4 * TH, 4 * TW)[:, :, :H, :W]


def _size(C, F, H, W):
    """Numbers that an example takes once it is transformed."""
    return 36 * _tiles(H) * _tiles(W) * max(C, F)
