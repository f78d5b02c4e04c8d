"""The argument checks: each names the argument, what was expected and what came."""

import numpy as np
import pytest

from cs231n import batchnorm, conv_layers, dropout, fast_layers, layer_utils, layers
from cs231n.arguments import check_count, check_dout, check_floats, check_keys, check_number, check_numbers
from cs231n.cnn_model import ThreeLayerConvNet
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.optim import RULES
from cs231n.trainer import Solver


@pytest.mark.parametrize("count", [1, 5, np.int64(3)])
def test_check_count_returns_a_plain_int(count):
    assert check_count("n", count, 1, 5) == count
    assert type(check_count("n", count, 1, 5)) is int


@pytest.mark.parametrize("count", [0, 6, 2.0, "3", None, True])
def test_check_count_names_the_argument_its_limits_and_what_came(count):
    with pytest.raises(ValueError, match=rf"^n: wanted a whole number from 1 to 5, got {count!r}$"):
        check_count("n", count, 1, 5)


def test_check_count_without_an_upper_limit():
    assert check_count("n", 10**20, 1) == 10**20
    with pytest.raises(ValueError, match=r"^n: wanted a whole number of at least 1, got 0$"):
        check_count("n", 0, 1)


@pytest.mark.parametrize("value", [0, 2, 0.5, np.float32(0.5), float("inf")])
def test_check_number_returns_a_plain_float(value):
    assert check_number("reg", value) == value
    assert type(check_number("reg", value)) is float


@pytest.mark.parametrize("value", [-1, float("nan"), "1", None, 1j, True])
def test_check_number_names_the_argument_and_what_came(value):
    with pytest.raises(ValueError, match=r"^reg: wanted a number of at least 0, got ") as caught:
        check_number("reg", value)
    assert str(caught.value).endswith(repr(value))


def test_check_keys_names_the_dict_the_unknown_key_and_the_known_ones():
    check_keys("pool_param", {"stride": 2}, ("pool_height", "stride"))
    with pytest.raises(ValueError, match="pool_param: wanted pool_height, stride, and nothing else; got 'strid'"):
        check_keys("pool_param", {"strid": 2}, ("pool_height", "stride"))


def test_check_number_with_an_upper_limit():
    assert check_number("momentum", 1, most=1) == 1
    with pytest.raises(ValueError, match=r"^momentum: wanted a number from 0 to 1, got 1.5$"):
        check_number("momentum", 1.5, most=1)


@pytest.mark.parametrize("array", [np.ones(3, np.float32), np.float64(2), np.ones(2, ">f4")])
def test_check_floats_takes_arrays_and_numpy_scalars(array):
    assert check_floats(x=array)[0] is array or array.ndim == 0


NO_FLOATS = {
    "int": np.ones((2, 3), int),
    "uint8": np.ones((2, 3), np.uint8),
    "bool": np.ones((2, 3), bool),
    "complex": np.ones((2, 3), complex),
    "object": np.ones((2, 3), object),
    "float16": np.ones((2, 3), np.float16),
    "list": [[1.0, 2.0, 3.0]] * 2,
    "None": None,
}


@pytest.mark.parametrize("array", NO_FLOATS.values(), ids=NO_FLOATS)
def test_check_floats_names_the_argument_and_its_dtype(array):
    got = getattr(array, "dtype", type(array).__name__)
    with pytest.raises(ValueError, match=rf"^w: wanted float32 or float64, got {got}; np.asarray\(w, np.float32\) con"):
        check_floats(x=np.ones(3), w=array)


@pytest.mark.parametrize("array", [np.ones(3), np.ones(3, np.uint8), [1, 2.5]])
def test_check_numbers_takes_floats_and_integers(array):
    check_numbers("X", array)


@pytest.mark.parametrize("array", [np.ones(3, complex), np.ones(3, bool), np.ones(3, object), ["a"], None])
def test_check_numbers_names_what_is_neither(array):
    with pytest.raises(ValueError, match=r"^X: wanted numbers, floats or integers, got "):
        check_numbers("X", array)


def test_check_dout_wants_the_shape_of_out_and_gives_its_dtype():
    assert check_dout(np.ones((2, 3)), (2, 3), np.float32).dtype == np.float32
    with pytest.raises(ValueError, match=r"^dout: wanted the shape of out, \(2, 3\), got \(3,\)$"):
        check_dout(np.ones(3), (2, 3), np.float32)


# What every layer takes.

D, IMAGES, TRAIN = np.ones(4), np.arange(2 * 4 * 5 * 5.0).reshape(2, 4, 5, 5), {"mode": "train"}
ROWS, W, FILTERS = np.arange(12.0).reshape(3, 4), np.ones((4, 4)), np.ones((4, 4, 2, 2))
POOL = {"pool_height": 2, "pool_width": 2, "stride": 1}
LAYERS = {  # name of forward -> module, and how many of its arguments are arrays; the arguments
    "affine": (layers, 3, ROWS, W, D),
    "relu": (layers, 1, ROWS),
    "batchnorm": (batchnorm, 3, ROWS, D, D, TRAIN),
    "layernorm": (batchnorm, 3, ROWS, D, D, {}),
    "spatial_batchnorm": (batchnorm, 3, IMAGES, D, D, TRAIN),
    "spatial_groupnorm": (batchnorm, 3, IMAGES, D, D, 2, {}),
    "dropout": (dropout, 1, ROWS, {"mode": "train", "p": 0.5, "seed": 0}),
    "conv_naive": (conv_layers, 3, IMAGES, FILTERS, D, {}),
    "conv_fast": (fast_layers, 3, IMAGES, FILTERS, D, {}),
    "max_pool_naive": (conv_layers, 1, IMAGES, POOL),
    "max_pool_fast": (fast_layers, 1, IMAGES, POOL),
    "affine_relu": (layer_utils, 3, ROWS, W, D),
    "affine_bn_relu": (layer_utils, 5, ROWS, W, D, D, D, TRAIN),
    "affine_ln_relu": (layer_utils, 5, ROWS, W, D, D, D, {}),
    "conv_relu": (layer_utils, 3, IMAGES, FILTERS, D, {}),
    "conv_bn_relu": (layer_utils, 5, IMAGES, FILTERS, D, D, D, {}, TRAIN),
    "conv_relu_pool": (layer_utils, 3, IMAGES, FILTERS, D, {}, POOL),
    "conv_bn_relu_pool": (layer_utils, 5, IMAGES, FILTERS, D, D, D, {}, TRAIN, POOL),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
every_bad_dtype = pytest.mark.parametrize("dtype", [int, bool, complex, object])


def layer(name):
    """Forward, backward, the number of forward's arguments that are arrays, and its arguments."""
    module, number, *args = LAYERS[name]
    first, ending, _ = name.partition("_naive" if "naive" in name else "_fast")
    forward, backward = (getattr(module, f"{first}_{way}{ending}") for way in ("forward", "backward"))
    return forward, backward, number, [dict(arg) if isinstance(arg, dict) else arg for arg in args]


def gradients(backward, dout, cache):
    grads = backward(dout, cache)
    return grads if isinstance(grads, tuple) else (grads,)


@every_layer
@every_bad_dtype
def test_forward_names_the_array_that_is_not_float(name, dtype):
    forward, _, number, args = layer(name)
    for i in range(number):
        bad = [*args[:i], args[i].astype(dtype), *args[i + 1 :]]
        with pytest.raises(ValueError, match=r"^\w+: wanted float32 or float64, got "):
            forward(*bad)


@every_layer
@every_bad_dtype
def test_backward_names_a_dout_that_is_not_float(name, dtype):
    forward, backward, _, args = layer(name)
    out, cache = forward(*args)
    with pytest.raises(ValueError, match=r"^dout: wanted float32 or float64, got "):
        backward(np.ones(out.shape, dtype), cache)


@every_layer
@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)])
def test_of_two_dtypes_that_of_x_is_the_result_s(name, dtypes):
    """x of the one; the parameters, and dout, of the other."""
    forward, backward, number, args = layer(name)
    args = [args[0].astype(dtypes[0]), *(arg.astype(dtypes[1]) for arg in args[1:number]), *args[number:]]
    out, cache = forward(*args)
    grads = gradients(backward, np.ones(out.shape, dtypes[1]), cache)
    assert {array.dtype for array in (out, *grads)} == {np.dtype(dtypes[0])}


@every_layer
def test_backward_names_a_dout_of_another_shape(name):
    forward, backward, _, args = layer(name)
    out, cache = forward(*args)
    with pytest.raises(ValueError, match="dout: wanted the shape of out"):
        backward(np.ones(out.shape)[:1], cache)


@pytest.mark.parametrize("loss", [layers.softmax_loss, layers.svm_loss])
@every_bad_dtype
def test_loss_names_scores_that_are_not_float(loss, dtype):
    with pytest.raises(ValueError, match=r"^x: wanted float32 or float64, got "):
        loss(ROWS.astype(dtype), np.array([0, 1, 2]))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@every_bad_dtype
def test_rule_names_the_array_that_is_not_float(rule, dtype):
    bad = ROWS.astype(dtype)
    for name, w, dw in (("w", bad, ROWS), ("dw", ROWS, bad)):
        with pytest.raises(ValueError, match=rf"^{name}: wanted float32 or float64, got "):
            rule(w, dw)
    _, config = rule(ROWS, ROWS)
    for name in [name for name, value in config.items() if isinstance(value, np.ndarray)]:
        with pytest.raises(ValueError, match=rf"^config\['{name}'\]: wanted float32 or float64, got "):
            rule(ROWS, ROWS, config | {name: bad})


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@every_bad_dtype
def test_batchnorm_names_a_running_average_that_is_not_float(name, dtype):
    averages = {"running_mean": D, "running_var": D} | {name: D.astype(dtype)}
    with pytest.raises(ValueError, match=rf"^bn_param\['{name}'\]: wanted float32 or float64, got "):
        batchnorm.batchnorm_forward(ROWS, D, D, {"mode": "test", **averages})


NETS = {
    "fully connected": (lambda: FullyConnectedNet([5], 4, 3, seed=0), ROWS),
    "convolutional": (lambda: ThreeLayerConvNet((4, 5, 5), 2, 3, 5, 3, seed=0), IMAGES),
}


@pytest.mark.parametrize(("net", "X"), NETS.values(), ids=NETS)
@pytest.mark.parametrize("dtype", [bool, complex, object])
def test_net_names_an_input_that_is_not_of_numbers(net, X, dtype):
    for y in (None, np.zeros(len(X), int)):
        with pytest.raises(ValueError, match=r"^X: wanted numbers, floats or integers, got "):
            net().loss(X.astype(dtype), y)


@pytest.mark.parametrize(("net", "X"), NETS.values(), ids=NETS)
def test_net_converts_integers(net, X):
    assert net().loss(X.astype(np.uint8)).dtype == np.float32


@pytest.mark.parametrize("kind", ["hidden_dims", "num_classes", "input_dim"])
def test_net_takes_no_bool_for_a_width(kind):
    settings = {"hidden_dims": [5], kind: [True] if kind == "hidden_dims" else True}
    with pytest.raises(ValueError, match=f"^{kind}: wanted a whole number of at least 1, got True"):
        FullyConnectedNet(**settings)


@pytest.mark.parametrize("name", ["batch_size", "num_samples"])
@pytest.mark.parametrize("count", [-1, 0, 1.5, True, "3"])
def test_check_accuracy_names_a_count_that_cannot_be(name, count):
    y = np.array([0, 1, 2])
    data = {"X_train": ROWS, "y_train": y, "X_val": ROWS, "y_val": y}
    solver = Solver(FullyConnectedNet([5], 4, 3, seed=0), data)
    with pytest.raises(ValueError, match=f"^{name}: wanted a whole number of at least 1, got {count!r}$"):
        solver.check_accuracy(ROWS, y, **{name: count})


@pytest.mark.parametrize("t", [-1, 1.0, True])
def test_adam_names_a_t_that_counts_no_steps(t):
    with pytest.raises(ValueError, match=rf"^config\['t'\]: wanted a whole number of at least 0, got {t}$"):
        RULES["adam"](D, D, {"t": t})


@pytest.mark.parametrize("wrong", ["kernel_h", "kernel_w", "stride", "pad"])
@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_im2col_and_col2im_name_a_count_that_cannot_be(wrong, count):
    counts = {"kernel_h": 2, "kernel_w": 2, "stride": 1, "pad": 0} | {wrong: count}
    for function, *args in ((fast_layers.im2col, IMAGES), (fast_layers.col2im, np.ones((16, 32)), IMAGES.shape)):
        with pytest.raises(ValueError, match=f"^{wrong}: wanted a whole number of at least [01], got {count}$"):
            function(*args, **counts)


# Parameters, options and subclasses of arrays that no layer, rule or net can use.

NO_DICTS = {"None": None, "number": 0.5, "list": [], "pairs": [("mode", "train")], "array": np.ones(2)}
WITH_PARAM = [
    (name, i) for name, (_, _, *args) in LAYERS.items() for i, arg in enumerate(args) if isinstance(arg, dict)
]


@pytest.mark.parametrize(("name", "i"), WITH_PARAM)
@pytest.mark.parametrize("param", NO_DICTS.values(), ids=NO_DICTS)
def test_forward_names_a_parameter_that_is_no_dict(name, i, param):
    forward, _, _, args = layer(name)
    with pytest.raises(ValueError, match=r"^\w+_param: wanted a dict, got "):
        forward(*args[:i], param, *args[i + 1 :])


@every_layer
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix
@pytest.mark.parametrize("kind", [np.matrix, np.ma.array])
def test_forward_and_backward_name_an_array_that_multiplies_otherwise(name, kind):
    forward, backward, _, args = layer(name)
    out, cache = forward(*args)
    if kind is np.ma.array or out.ndim == 2:
        with pytest.raises(ValueError, match=r"^x: wanted float32 or float64, got (matrix|MaskedArray)"):
            forward(kind(args[0]), *args[1:])
        with pytest.raises(ValueError, match=r"^dout: wanted float32 or float64, got (matrix|MaskedArray)"):
            backward(kind(np.ones(out.shape)), cache)


def test_check_floats_takes_an_array_that_is_a_file(tmp_path):
    kept = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3))
    assert check_floats(x=kept)[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("p", "0.5"), ("p", [0.5]), ("p", 1j), ("p", np.array([0.5, 0.5])), ("mode", np.ones(2)), ("mode", ["train"]),
     ("rng", 7), ("rng", np.ones(2)), ("rng", "rng"), ("seed", -1), ("seed", 0.5), ("seed", "seed")],
)  # fmt: skip
def test_dropout_names_a_parameter_of_another_type(name, value):
    with pytest.raises(ValueError, match=rf"^dropout_param\['{name}'\]: wanted "):
        dropout.dropout_forward(ROWS, {"mode": "train", "p": 0.5, name: value})


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule_names_a_setting_that_is_no_number(rule):
    _, config = rule(ROWS, ROWS)
    for name in [name for name, value in config.items() if isinstance(value, float)]:
        for value in ("0.1", None, [0.1], 1j, np.ones(4), float("nan"), -0.1):
            with pytest.raises(ValueError, match=rf"^config\['{name}'\]: wanted a number of at least 0, got "):
                rule(ROWS, ROWS, {name: value})


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("config", [[], 0.1, "learning_rate", {3: 0.1}])
def test_rule_names_a_config_that_is_no_dict_of_settings(rule, config):
    with pytest.raises(ValueError, match=r"^config: wanted "):
        rule(ROWS, ROWS, config)


@pytest.mark.parametrize("beta", ["beta1", "beta2"])
def test_adam_names_a_beta_of_1_which_would_divide_by_0(beta):
    with pytest.raises(ValueError, match=rf"^config\['{beta}'\]: wanted a number below 1, got 1"):
        RULES["adam"](D, D, {beta: 1.0})


@pytest.mark.parametrize("loss", [layers.softmax_loss, layers.svm_loss])
def test_loss_names_labels_that_are_durations(loss):
    with pytest.raises(ValueError, match=r"^y: wanted 3 integer labels "):
        loss(ROWS, np.zeros(3, "m8[s]"))


@pytest.mark.parametrize("Net", [FullyConnectedNet, ThreeLayerConvNet])
@pytest.mark.parametrize(
    ("name", "value"),
    [("dtype", "abc"), ("dtype", -1), ("dtype", [1.0]), ("dtype", np.float16),
     ("seed", -1), ("seed", 1.5), ("seed", "seed"), ("input_dim", None), ("input_dim", 1.5)],
)  # fmt: skip
def test_net_names_a_setting_of_another_type(Net, name, value):
    with pytest.raises(ValueError, match=f"^{name}: wanted "):
        Net(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("dropout", "0.5"), ("dropout", [0.5]), ("normalization", ["batchnorm"])])
def test_fully_connected_net_names_a_setting_of_another_type(name, value):
    with pytest.raises(ValueError, match=f"^{name}: wanted "):
        FullyConnectedNet(**{name: value})


def test_convnet_takes_counts_of_a_small_dtype():
    net = ThreeLayerConvNet(np.array([3, 32, 32], np.int8), np.int8(8), np.int8(3), np.int8(4), seed=0)
    assert net.params["W2"].shape == (8 * 16 * 16, 4)


@pytest.mark.parametrize("x", [None, 1.0, [[1.0]], np.ones((3, 4)), "x"])
def test_im2col_names_an_x_that_is_no_array_of_images(x):
    with pytest.raises(ValueError, match=r"^x: wanted an array of images \(N, C, H, W\), got "):
        fast_layers.im2col(x, 2, 2)


@pytest.mark.parametrize("shape", [None, 3, (2, 4, 5), (2, 4, 5, 5.0), (2, 4, 5, -5), "2455"])
def test_col2im_names_an_x_shape_that_is_none(shape):
    with pytest.raises(ValueError, match=r"^x_shape: wanted "):
        fast_layers.col2im(np.ones((16, 32)), shape, 2, 2)


@pytest.mark.parametrize("cols", [None, [[1.0]], np.ones((16, 32), int), np.ones((32, 16)), np.ones((16, 31))])
def test_col2im_names_columns_that_do_not_fit(cols):
    with pytest.raises(ValueError, match=r"^cols: wanted "):
        fast_layers.col2im(cols, IMAGES.shape, 2, 2)


def test_spatial_batchnorm_backward_names_a_dout_that_is_no_batch_of_images():
    _, cache = batchnorm.spatial_batchnorm_forward(IMAGES, D, D, dict(TRAIN))
    with pytest.raises(ValueError, match=r"^dout: wanted the shape of out"):
        batchnorm.spatial_batchnorm_backward(np.float64(1.0), cache)


SETTINGS = [("callback", "print"), ("checkpoint_name", 3), ("checkpoint_name", ["x"]), ("update_rule", ["sgd"])]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_solver_names_a_setting_of_another_type(name, value):
    y = np.array([0, 1, 2])
    data = {"X_train": ROWS, "y_train": y, "X_val": ROWS, "y_val": y}
    with pytest.raises(ValueError, match=f"^{name}: wanted "):
        Solver(FullyConnectedNet([5], 4, 3, seed=0), data, **{name: value})


def test_check_accuracy_takes_lists_and_names_what_are_no_examples():
    y = np.array([0, 1, 2])
    data = {"X_train": ROWS, "y_train": y, "X_val": ROWS, "y_val": y}
    solver = Solver(FullyConnectedNet([5], 4, 3, seed=0), data)
    assert solver.check_accuracy(ROWS.tolist(), [0, 1, 2], num_samples=2) in (0, 0.5, 1)
    for X in (None, 1.0, ROWS[:, :0]):
        with pytest.raises(ValueError, match=r"^wanted X \(N, \.\.\.\) and y "):
            solver.check_accuracy(X, y)
