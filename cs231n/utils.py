"""CIFAR-10 in the form that the nets take, and gradient checks."""

import copy
import functools
import inspect
import logging
import numbers

import numpy as np

from cs231n import shapes10
from cs231n.arguments import OTHERS, check_count, check_number, check_numbers
from cs231n.browser import budget

logger = logging.getLogger(__name__)

EPS = float(np.finfo(float).eps)
SIZES = budget((49000, 1000, 1000), (4000, 500, 500))  # images for training, validation and test
FLOOR = 1e-3  # gradients smaller than this are compared as if they were this large
SLOPES = np.array(  # of f on the left of x, in the middle and on the right, from f at x - 2, x - 1, x, x + 1 and x + 2
    [[1 / 2, -2, 3 / 2, 0, 0], [1 / 12, -2 / 3, 0, 2 / 3, -1 / 12], [0, 0, -3 / 2, 2, -1 / 2]]
)


def get_cifar10_data(
    num_training=SIZES[0], num_validation=SIZES[1], num_test=SIZES[2], subtract_mean=True, data_dir=None
):
    """CIFAR-10 in the course's split, as float32 images (N, 3, 32, 32) and int64 labels (N,).

    Training takes the first num_training images of the 50,000, validation the num_validation after them, and test the
    first num_test of the 10,000; in a browser, there are 5,000 and 1,000.  subtract_mean takes the mean training image,
    pixel by pixel, from all three; the scale stays 0 to 255.  data_dir: the folder that holds the data, or will (None:
    the places that `cs231n.cifar10.find_cifar10` names, those of the current folder first).

    Returns a dict of arrays: X_train, y_train, X_val, y_val, X_test, y_test; mean_image (3, 32, 32) float32, which was
    subtracted (0 where none was), so that X + mean_image are the pixels again; class_names (10,), of strings; name, a
    string of shape (), "CIFAR-10".
    Data that is absent is downloaded.  Where that fails, the drawn stand-in Shapes10 is returned in its place, under
    its own name, and a warning says so.  Raises ValueError for counts that the data set cannot meet.
    """
    num_training = check_count("num_training", num_training, 1, shapes10.TRAIN)
    num_validation = check_count("num_validation", num_validation, 0, shapes10.TRAIN - num_training)
    num_test = check_count("num_test", num_test, 0, shapes10.TEST)
    name, class_names, (x_train, y_train, x_test, y_test) = read_images(data_dir)

    train, val = slice(num_training), slice(num_training, num_training + num_validation)
    data = {
        "X_train": x_train[train].astype(np.float32),
        "y_train": y_train[train],
        "X_val": x_train[val].astype(np.float32),
        "y_val": y_train[val],
        "X_test": x_test[:num_test].astype(np.float32),
        "y_test": y_test[:num_test],
        "mean_image": np.zeros(x_train.shape[1:], np.float32),
        "class_names": np.array(class_names),
        "name": np.array(name),
    }
    if subtract_mean:
        data["mean_image"] = data["X_train"].mean(axis=0)  # exact: 50,000 * 255 < 2^24
        for split in ("X_train", "X_val", "X_test"):
            data[split] -= data["mean_image"]
    return data


def read_images(data_dir=None):
    """CIFAR-10 as it was published, or its stand-in where it cannot be had; a warning then says so.

    Returns the data set's name, its class_names (a tuple of 10), and (x_train, y_train, x_test, y_test): images
    (N, 3, 32, 32) uint8 and labels (N,) int64, 50,000 for training and 10,000 for testing.
    data_dir: as in `get_cifar10_data`.
    """
    from cs231n import cifar10  # here: imported with its package, `python -m cs231n.cifar10` would load it twice

    try:
        folder = cifar10.fetch_cifar10(data_dir, retry=False)
    except cifar10.DownloadError as error:
        _announce_stand_in(str(error))
        return "Shapes10", shapes10.CLASS_NAMES, shapes10.load(data_dir or cifar10.data_dir())
    return "CIFAR-10", cifar10.CLASS_NAMES, cifar10.read_cifar10(folder)


@functools.cache
def _announce_stand_in(reason):
    """Say loudly, and once in a process, that the data is not CIFAR-10."""
    logger.warning("NOT CIFAR-10: the drawn stand-in Shapes10 is used in its place. %s", reason)


def rel_error(x, y, floor=1e-8):
    """The largest difference of two arrays over their largest magnitude: max |x - y| / max(|x|, |y|, floor).

    x, y: arrays of the same shape, or numbers, of any dtype; integers do not wrap around.  Returns a Python float: 0 if
    they are empty, NaN if an entry is.  An entry that is infinite in one of them alone gives infinity; one that is the
    same infinity in both counts as equal, and not as a magnitude.  Raises ValueError if the shapes differ.
    It is taken over the whole array: entry by entry, rounding in an entry that is truly 0 would count as an error of 1.
    floor does the same for an array that is 0 everywhere.
    """
    x, y = np.asarray(x), np.asarray(y)
    check_number("floor", floor)
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "biufc":
            raise ValueError(f"{name}: wanted numbers, got {array.dtype}")
    if x.shape != y.shape:
        raise ValueError(f"x and y: wanted arrays of the same shape, got {x.shape} and {y.shape}")
    both = np.stack(
        [array.astype(np.result_type(x, y, np.longdouble)) for array in (x, y)]
    )  # 64 bits, on most machines
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.max(np.abs(both[0] - both[1]), where=both[0] != both[1], initial=0)
    return float(difference / np.max(np.abs(both), where=np.isfinite(both), initial=floor))


def eval_numerical_gradient(f, x, verbose=False, h=1e-5):
    """The gradient of a scalar function by central differences: df/dx_i = (f(x + h e_i) - f(x - h e_i)) / 2h + O(h^2).

    f: called with x, returns a number, or an array that holds one; it may ignore its argument and read the same array
    elsewhere, as a net reads its params, since each entry of x is changed in place and restored.  x: float64, any
    shape.  verbose: log each entry.
    Returns the gradient, float64, of x's shape.  Raises ValueError for another dtype, whose rounding would hide a step
    of h, and for an f that returns several numbers.
    """
    return eval_numerical_gradient_array(_scalar(f), x, 1.0, h, verbose)


def eval_numerical_gradient_array(f, x, df, h=1e-5, verbose=False):
    """The gradient of a loss with respect to x by central differences, where df is its gradient with respect to f(x).

    f returns an array of df's shape; everything else is as in `eval_numerical_gradient`.
    """
    _check_step(x, h)
    check_numbers("df", df)
    grad = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        difference = _difference(f, x, _entry(x, i, h))
        if difference.shape != np.shape(df):
            raise ValueError(f"f: wanted an array of df's shape, {np.shape(df)}, got {difference.shape}")
        grad[i] = np.sum(difference * df) / (2 * h)
        if verbose:
            logger.info("gradient at %s: %g", i, grad[i])
    return grad


def check_gradient(name, f, x, dx, tol=1e-7, h=1e-5, directions=None, seed=0):
    """Assert that dx is the gradient of the scalar function f at x.

    f, x: as in `eval_numerical_gradient`.  dx: an array of x's shape.
    directions: None compares each entry of dx with the numerical gradient.  A number n compares n random projections
    instead, sum(dx * u) with (f(x + h u) - f(x - h u)) / 2h for a random unit vector u: two calls of f each, whatever
    the size of x, and any wrong entry shows in nearly all of them.
    tol: the `rel_error` allowed, over a magnitude of at least 1e-3, since the numerical gradient itself has a rounding
    error of about 1e-16 f / h.
    A kink near x, such as a ReLU's, changes the numerical gradient, but is no error: see `_problem`.
    Raises AssertionError that says what differs, and where; that f is random; or, at a kink, that it cannot tell.
    """
    _check_step(x, h)
    check_number("tol", tol)
    _compare_shapes(name, dx, x)
    f, dx = _scalar(f), np.asarray(dx)
    try:
        if directions is None:
            _check_entries(name, f, x, dx, tol, h)
        else:
            _check_projections(name, f, x, dx, tol, h, check_count("directions", directions, 1), seed)
    except AssertionError as error:
        values = [f(x) for _ in range(10)]
        if any(rel_error(value, values[0]) > 1e-12 for value in values):
            problem = "cannot be checked: f is random, two calls at the same x differ; give it a seed"
            raise AssertionError(f"{name} {problem}") from error
        raise


def _check_entries(name, f, x, dx, tol, h):
    numerical = eval_numerical_gradient(f, x, h=h)
    floor = np.max(np.abs([dx, numerical]), initial=FLOOR)
    error = np.nan_to_num(np.abs(dx - numerical), nan=np.inf, posinf=np.inf)
    for i in np.argsort(-error, axis=None):
        if error.flat[i] < tol * floor:
            break
        _check_along(name, f, x, dx, _entry(x, np.unravel_index(i, x.shape), 1.0), float(floor), tol, h)


def _check_projections(name, f, x, dx, tol, h, directions, seed):
    rng = np.random.default_rng(seed)
    for _ in range(directions if x.size else 0):
        u = rng.standard_normal(x.shape)
        _check_along(name, f, x, dx, u / np.linalg.norm(u), FLOOR, tol, h)


def _check_along(name, f, x, dx, u, floor, tol, h):
    """Compare the slopes along u.  If they differ, compare those along the two halves of u, down to single entries.

    A slope is linear in u, so if it is wrong, it is wrong along one of the halves, too.
    """
    entries = np.flatnonzero(u)
    slope, numerical = float(dx.flat[entries] @ u.flat[entries]), float(_difference(f, x, h * u)) / (2 * h)
    magnitude = max(abs(slope), abs(numerical), floor)
    if abs(slope - numerical) < tol * magnitude:
        return
    problem = _problem(f, x, u, slope, numerical, magnitude, tol, h)
    if not problem:
        return
    if len(entries) == 1:
        index = ", ".join(map(str, np.unravel_index(entries[0], x.shape)))
        raise AssertionError(
            f"{name}[{index}] is {slope:.7g}, but the numerical gradient gives {numerical:.7g}{problem}"
        )
    for half in np.array_split(entries, 2):
        v = np.zeros(x.shape)
        v.flat[half] = u.flat[half] / np.linalg.norm(u.flat[half]) if len(half) > 1 else 1.0
        _check_along(name, f, x, dx, v, floor, tol, h)


def _problem(f, x, u, slope, numerical, magnitude, tol, h):
    """What is wrong with the slope along u, whose central difference is another, numerical: "" if a kink explains that.

    The slopes on either side of x are estimated separately, and so is the one in the middle, to a higher order.  A kink
    within reach of an estimate changes it from step to step; the first that a smaller step confirms is taken.  Beside a
    kink, or between two, all three are the slope; at a kink in x itself, a right slope is that of one side.
    """
    here, error = f(x), abs(slope - numerical)
    wrong = f" (relative error {error / magnitude:.1e}, allowed {tol:.0e})"
    if not np.isfinite(error):
        return wrong
    allowed = tol * magnitude + 4 * EPS * abs(here) / h
    estimates, slopes = np.full((2, 3), np.nan)
    for step in (h / 3**k for k in range(12)):
        rounding, before = 4 * EPS * abs(here) / step, estimates
        estimates = SLOPES @ [_moved(f, x, k * step * u) for k in range(-2, 3)] / step
        confirmed = np.isnan(slopes) & (np.abs(estimates - before) < allowed + rounding)
        if error < allowed or np.any(np.abs(estimates[confirmed] - slope) < allowed + rounding):
            return ""
        slopes[confirmed] = estimates[confirmed]
        left, _, right = slopes
        if np.isfinite(left + right):
            break
    if abs(left - right) < 2 * (allowed + rounding):
        return wrong
    if np.isnan(left - right):
        return ", and beside x no slope is the same for smaller steps: the check cannot tell; move x away"
    return (
        f", {left:.7g} on the one side of x and {right:.7g} on the other: at a kink, the check cannot tell; move x away"
    )


def check_layer(forward, backward, *args, tol=1e-7, h=1e-5, directions=None, seed=0, log=print):
    """Assert that a layer's backward agrees with the numerical gradient of its forward, for a random dout.

    args: forward's arguments, float64 arrays first; a parameter dict may follow.  They are copied, not written to.
    tol, h, directions: as in `check_gradient`.  log: called with the one line that reports success.
    The arrays that forward and backward get are read-only, so a layer that writes into x or dout raises ValueError.
    """
    out, cache = forward(*_read_only(args))
    dout = np.random.default_rng([seed, 1]).standard_normal(out.shape)  # not what default_rng(seed) drew x from
    grads = backward(*_read_only([dout]), cache)
    grads = grads if isinstance(grads, tuple) else (grads,)
    layer = forward.__name__.removesuffix("_forward")
    args = copy.deepcopy(args)  # the numerical gradient moves these
    arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
    names = ["d" + name for name in inspect.signature(forward).parameters][: len(arrays)]
    if len(grads) != len(arrays):
        raise AssertionError(f"{layer}: wanted the gradients {', '.join(names)}, got {len(grads)} of them")

    def loss(_):
        return np.sum(forward(*args)[0] * dout)

    for name, x, dx in zip(names, arrays, grads, strict=True):
        check_gradient(f"{layer}: {name}", loss, x, dx, tol, h, directions, seed)
    log(_passed(layer, names, tol))


def check_loss(loss_function, x, y, tol=1e-7, h=1e-5, directions=None, log=print):
    """Assert that the dx of a loss such as `softmax_loss(x, y) -> loss, dx` is its gradient; as `check_layer`."""
    _, dx = loss_function(*_read_only([x, y]))
    x = x.copy()
    check_gradient(f"{loss_function.__name__}: dx", lambda _: loss_function(x, y)[0], x, dx, tol, h, directions)
    log(_passed(loss_function.__name__, ["dx"], tol))


def check_model(model, X, y, tol=1e-7, h=1e-5, directions=None, log=print):
    """Assert that model.loss(X, y) returns the gradient of its loss for each of model.params; as `check_layer`.

    The model must compute in float64, and its loss must be the same at every call: with dropout, give it a seed.
    """
    _, grads = model.loss(X, y)
    if grads.keys() != model.params.keys():
        raise AssertionError(f"grads: wanted {', '.join(model.params)}, got {', '.join(grads)}")
    for name, w in model.params.items():
        label = f"{type(model).__name__}: d{name}"
        check_gradient(label, lambda _: model.loss(X, y)[0], w, grads[name], tol, h, directions)
    log(_passed(type(model).__name__, ["d" + name for name in model.params], tol))


def must_fail(check, *args, log=print):
    """Assert that a check, such as `check_layer`, catches wrong code: check(*args) must raise.

    log: called with the one line that says what the check found.
    """
    try:
        check(*args)
    except (AssertionError, ValueError) as error:
        log(f"caught: {error}")
    else:
        raise AssertionError("wrong code has passed the check")


def _scalar(f):
    """f, with its value, a number or an array of one entry, as a float."""

    def scalar(x):
        value = np.asarray(f(x))
        if value.size != 1:
            raise ValueError(f"f: wanted a scalar loss, got an array of shape {value.shape}")
        return float(value.item())

    return scalar


def _entry(x, i, size):
    """A step of that size along entry i of x."""
    step = np.zeros(x.shape)
    step[i] = size
    return step


def _difference(f, x, step):
    return _moved(f, x, step) - _moved(f, x, -step)


def _moved(f, x, step):
    """f(x + step), with x changed in place and restored bit for bit."""
    original = x.copy()
    try:
        x += step
        return np.array(f(x))
    finally:
        x[...] = original


def _read_only(args):
    """Copies of the arguments, the arrays among them read-only."""
    copies = copy.deepcopy(args)
    for arg in copies:
        if isinstance(arg, np.ndarray):
            arg.flags.writeable = False
    return copies


def _passed(checked, names, tol):
    return f"{checked}: gradient check passed for {', '.join(names)} (relative error below {tol:.0e})"


def _compare_shapes(name, dx, wanted):
    if (dtype := np.asarray(dx).dtype).kind not in "biuf" and dx is not None:
        raise AssertionError(f"{name}: wanted an array of floats, got {dtype}")
    if dx is None or np.shape(dx) != wanted.shape:
        raise AssertionError(
            f"{name}: wanted an array of shape {wanted.shape}, got {'None' if dx is None else np.shape(dx)}"
        )


def _check_step(x, h):
    if not isinstance(x, np.ndarray) or isinstance(x, OTHERS):
        raise ValueError(f"x: wanted a NumPy array, got {type(x).__name__}")
    if x.dtype != np.float64:
        raise ValueError(f"x: wanted float64, got {x.dtype}; a numerical gradient needs the digits")
    if not x.flags.writeable:
        raise ValueError("x: wanted an array that may be written to, since its entries are moved; got a read-only one")
    if not (isinstance(h, numbers.Real) and 0 < h < np.inf):
        raise ValueError(f"h: wanted a step above 0, got {h!r}")
