"""Write what is handed in beside the code: trained nets, a list of attempts, and an ablation of your own."""

import math
from pathlib import Path

import numpy as np

from cs231n import shapes10
from cs231n.arguments import check_count
from cs231n.fast_layers import conv_forward_fast, max_pool_forward_fast
from cs231n.files import atomic_write, write_json
from cs231n.layers import affine_forward, relu_forward

FOLDER = Path(__file__).parents[1]  # the project's
NET, ABLATION = FOLDER / "my_net.npz", FOLDER / "my_ablation.json"
CONV_NET, ATTEMPTS, RESNET = FOLDER / "my_convnet.npz", FOLDER / "my_attempts.json", FOLDER / "my_resnet.npz"
MOST, _ = shapes10.WHOLE  # pictures to train a net on, and to validate it
CONCLUSIONS = "better", "worse", "no difference that these seeds show"
# 0.975 quantiles of Student's t distribution with 1, 2, ..., 20 degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
T_975 += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)


def shapes10_data(num_training=19000, num_validation=1000):
    """Pictures of Shapes10 to train a net on, in the form that `cs231n.utils.get_cifar10_data` gives.

    They are the first num_training of the stand-in's 50,000 training pictures, and the num_validation after them, drawn
    in about a second per 10,000.  The net that is handed in is judged by others, which nobody has seen.
    Returns a dict of arrays: X_train, X_val (N, 3, 32, 32) float32, less mean_image (3, 32, 32), the mean of X_train;
    y_train, y_val (N,) int64; class_names (10,); name.  Raises ValueError for counts that the data set cannot meet.
    """
    check_count("num_training", num_training, 1, MOST)
    check_count("num_validation", num_validation, 0, MOST - num_training)
    images, labels = shapes10.draw(num_training + num_validation, shapes10.SEED)
    X = images.astype(np.float32)
    mean_image = X[:num_training].mean(axis=0)
    X -= mean_image
    return {
        "X_train": X[:num_training],
        "y_train": labels[:num_training],
        "X_val": X[num_training:],
        "y_val": labels[num_training:],
        "mean_image": mean_image,
        "class_names": np.array(shapes10.CLASS_NAMES),
        "name": np.array("Shapes10"),
    }


def save_net(net, mean_image, path=NET):
    """Write the net that is handed in: W1 (3072, H1), b1 (H1,), W2 (H1, H2), ..., float32, in an .npz without pickles.

    net: a `FullyConnectedNet` without normalization; what matters are its params.  mean_image (3, 32, 32): what was
    subtracted from the pictures that it was trained on.  The file's net takes pixels from 0 to 255, since
    (x - mean) W1 + b1 = x W1 + (b1 - mean W1); so b1 - mean W1 is saved in place of b1.
    Raises ValueError for a net with other params than W and b: its norms have to be part of its W and b first.
    """
    depth = len(net.params) // 2
    names = [f"{kind}{i}" for i in range(1, depth + 1) for kind in "Wb"]
    if set(net.params) != set(names):
        raise ValueError(f"net: wanted the params {', '.join(names)} alone, got {', '.join(net.params)}")
    arrays = {name: net.params[name].astype(np.float64) for name in names}
    arrays["b1"] -= np.ravel(mean_image).astype(np.float64) @ arrays["W1"]
    with atomic_write(path) as file:
        np.savez_compressed(file, **{name: array.astype(np.float32) for name, array in arrays.items()})


# --- nets of any layers ---


def save_layers(layers, mean, std=1.0, path=CONV_NET):
    """Write a net that is handed in layer by layer: arrays in an .npz, without pickles.

    layers: the net in test mode, a list of pairs (kind, values), from the first layer to the scores:
        ("conv", {"w": (F, C, KH, KW), "b": (F,), "stride": 1, "pad": 0})
        ("norm", {"gamma": ..., "beta": ..., "mean": ..., "var": (C,), "eps": 1e-5}): batch norm by running statistics
        ("relu", {})
        ("max_pool", {"size": 2, "stride": 2})
        ("mean", {}): over all positions, (N, C, H, W) -> (N, C)
        ("affine", {"w": (D, M), "b": (M,)}): reads each example as a row of D numbers, as `affine_forward`
        ("residual", {"branch": layers, "shortcut": layers}): out = branch(x) + shortcut(x); of [], shortcut(x) is x
    mean, std: the net was trained on (pixels - mean) / std; the net in the file takes pixels from 0 to 255, since its
    first layer does this.  mean (3,) or (3, 32, 32); std: a number or the shape of mean.
    A norm is saved as its scale, gamma / sqrt(var + eps), and its shift, beta - mean * scale.
    Raises ValueError for an unknown kind, and for values that are missing or too many.
    """
    scale = np.broadcast_to(1 / np.asarray(std, float), np.shape(mean))
    first = {"00.norm.scale": scale, "00.norm.shift": -np.asarray(mean, float) * scale}
    arrays = {name: _saved(value) for name, value in {**first, **_named(layers, "", 1)}.items()}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


VALUES = {
    "conv": {"w", "b", "stride", "pad"},
    "norm": {"gamma", "beta", "mean", "var", "eps"},
    "relu": set(),
    "max_pool": {"size", "stride"},
    "mean": set(),
    "affine": {"w", "b"},
    "residual": {"branch", "shortcut"},
}


def _named(layers, inside, start=0):
    """The values of layers by their names in the file, such as 03.conv.w; inside: what precedes these names."""
    arrays = {}
    for i, (kind, values) in enumerate(layers, start):
        name = f"{inside}{i:02d}.{kind}"
        if kind not in VALUES:
            raise ValueError(f"layer {name}: wanted one of {', '.join(VALUES)}")
        values = {"eps": 1e-5, **values} if kind == "norm" else values
        if set(values) != VALUES[kind]:
            raise ValueError(f"layer {name}: wanted the values {sorted(VALUES[kind])}, got {sorted(values)}")
        if kind == "residual":
            for side, stretch in values.items():
                arrays |= _named(stretch, f"{name}.{side}.")
        elif kind == "norm":
            scale = np.asarray(values["gamma"], float) / np.sqrt(np.asarray(values["var"], float) + values["eps"])
            arrays[f"{name}.scale"], arrays[f"{name}.shift"] = scale, values["beta"] - values["mean"] * scale
        else:
            arrays |= {f"{name}.{key}": value for key, value in values.items()} or {name: np.zeros(0)}
    return arrays


def _saved(value):
    """A setting as int64, and floats as float32."""
    return np.asarray(value, np.int64 if isinstance(value, int | np.integer) else np.float32)


def layers_of(net):
    """The layers, for `save_layers`, of a `ThreeLayerConvNet`, a `FullyConnectedNet`, or a deeper net of that kind.

    net: its params W1, b1, gamma1, beta1, W2, ... are those of layers conv - [batch norm] - relu - 2x2 max-pool, where
    W has four axes, and affine - [batch norm] - relu, where it has two; the last has no relu.  conv_param, of all
    convolutions, and bn_params are attributes of the net.
    Raises ValueError for a norm without running statistics, such as layer norm.
    """
    params, norms, layers = net.params, iter(net.bn_params), []
    depth = sum(name.startswith("W") for name in params)
    for i in range(1, depth + 1):
        w = {"w": params[f"W{i}"], "b": params[f"b{i}"]}
        convolution = w["w"].ndim == 4
        layers.append(("conv", {**w, **net.conv_param}) if convolution else ("affine", w))
        if f"gamma{i}" in params:
            bn_param = next(norms)
            if "running_mean" not in bn_param:
                raise ValueError(f"net: wanted batch norm, which has running statistics, in layer {i}")
            statistics = {"mean": bn_param["running_mean"], "var": bn_param["running_var"]}
            statistics |= {"eps": bn_param.get("eps", 1e-5)}
            layers.append(("norm", {"gamma": params[f"gamma{i}"], "beta": params[f"beta{i}"], **statistics}))
        layers += [("relu", {})] if i < depth else []
        layers += [("max_pool", {"size": 2, "stride": 2})] if convolution else []
    return layers


def scores(X, path=CONV_NET):
    """The scores (N, 10) that the net in a file of layers gives to images, by the layers of this package.

    X (N, 3, 32, 32): pixels from 0 to 255.  They are those of the net that was saved, up to rounding, if it was saved
    as it is: compare them.
    """
    with np.load(path, allow_pickle=False) as saved:
        arrays = dict(saved)
    return _apply(arrays, np.asarray(X, np.float32))


def _apply(arrays, x):
    """The output of the layers whose values these are, by their names."""
    layers = {}
    for name, array in arrays.items():
        index, kind, *value = name.split(".", 2)
        layers.setdefault((index, kind), {}).update(dict.fromkeys(value, array))
    for (_, kind), values in sorted(layers.items(), key=lambda layer: int(layer[0][0])):
        x = FORWARD[kind](x, values)
    return x


def _residual(x, values):
    sides = {"branch": {}, "shortcut": {}}
    for name, array in values.items():
        side, _, rest = name.partition(".")
        sides[side][rest] = array
    return _apply(sides["branch"], x) + _apply(sides["shortcut"], x)


def _per_channel(x, v):
    """v, of the shape of one example or a number for each of its channels, for a product with x (N, C, ...)."""
    return v.reshape(*v.shape, *[1] * (x.ndim - 1 - v.ndim))


def _max_pool(x, v):
    size, stride = int(v["size"]), int(v["stride"])
    return max_pool_forward_fast(x, {"pool_height": size, "pool_width": size, "stride": stride})[0]


FORWARD = {
    "conv": lambda x, v: conv_forward_fast(x, v["w"], v["b"], {name: int(v[name]) for name in ("stride", "pad")})[0],
    "norm": lambda x, v: x * _per_channel(x, v["scale"]) + _per_channel(x, v["shift"]),
    "relu": lambda x, _: relu_forward(x)[0],
    "max_pool": _max_pool,
    "mean": lambda x, _: x.mean(axis=(2, 3)),
    "affine": lambda x, v: affine_forward(x, v["w"], v["b"])[0],
    "residual": _residual,
}


def save_attempts(attempts, path=ATTEMPTS):
    """Write the list of attempts that is handed in, as JSON.

    attempts: a list of dicts, in the order in which you made them: settings, in words, such as "16 filters of 5 x 5,
    2 epochs"; accuracy, on the validation set, from 0 to 1; seconds, of training.
    Raises ValueError for other keys.
    """
    for attempt in attempts:
        if set(attempt) != {"settings", "accuracy", "seconds"}:
            raise ValueError(f"attempts: wanted settings, accuracy and seconds in each, got {sorted(attempt)}")
    numbers = [{key: float(attempt[key]) for key in ("accuracy", "seconds")} for attempt in attempts]
    words = [{"settings": str(attempt["settings"])} for attempt in attempts]
    write_json(path, {"attempts": [w | n for w, n in zip(words, numbers, strict=True)]})


# --- an ablation ---


def welch_interval(baseline, changed):
    """The 95 % confidence interval of mean(changed) - mean(baseline), two samples of unequal variance (Welch, 1947).

    baseline, changed: a number for each seed, at least two on each side.  With v = s^2 / n for each side, where s^2 is
    sum((x - mean)^2) / (n - 1), the interval is the difference of the means -+ t sqrt(v_b + v_c).  t is the 0.975
    quantile of Student's t distribution with (v_b + v_c)^2 / (v_b^2 / (n_b - 1) + v_c^2 / (n_c - 1)) degrees of
    freedom, rounded down.
    Returns its ends, low and high.  If 0 is between them, these seeds show no difference.
    Raises ValueError for fewer than two numbers.
    """
    baseline, changed = np.asarray(baseline, float), np.asarray(changed, float)
    if min(len(baseline), len(changed)) < 2:
        raise ValueError("welch_interval: wanted two numbers or more on each side")
    difference = float(changed.mean() - baseline.mean())
    v = [float(x.var(ddof=1)) / len(x) for x in (baseline, changed)]
    if sum(v) == 0:
        return difference, difference
    freedom = sum(v) ** 2 / sum(vi**2 / (len(x) - 1) for vi, x in zip(v, (baseline, changed), strict=True))
    reach = T_975[min(max(1, int(freedom + 1e-9)), len(T_975)) - 1] * math.sqrt(sum(v))
    return difference - reach, difference + reach


def save_ablation(
    results, question, setting, change, baseline, changed, control, conclusion, higher_is_better=True, path=ABLATION
):
    """Write the ablation that is handed in, as JSON.

    results: a dict from label to a number for each seed, at least three.  question: what you wanted to know; setting:
    the net, the data and the training; change: what differs between the two sides; each in words.
    baseline, changed, control: labels in results: the runs without the change, those with it, and some that could have
    refuted the conclusion, such as with shuffled labels.  higher_is_better: False for a loss.
    conclusion: one of `CONCLUSIONS`, as `welch_interval` of baseline and changed says: "better" or "worse" than the
    baseline if 0 is outside of it.
    Raises ValueError for a label that is not in results and for another conclusion.
    """
    for label in (baseline, changed, control):
        if label not in results:
            raise ValueError(
                f"results: wanted the labels {baseline!r}, {changed!r} and {control!r}; got {list(results)}"
            )
    if conclusion not in CONCLUSIONS:
        raise ValueError(f"conclusion: wanted one of {', '.join(map(repr, CONCLUSIONS))}; got {conclusion!r}")
    sides = {"baseline": baseline, "changed": changed, "control": control}
    values = {"question": question, "setting": setting, "change": change, "labels": sides}
    values["numbers"] = {side: np.ravel(results[label]).astype(float).tolist() for side, label in sides.items()}
    write_json(path, {**values, "higher_is_better": bool(higher_is_better), "conclusion": conclusion})
