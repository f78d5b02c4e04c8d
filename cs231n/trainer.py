"""The Solver: trains a model on data, keeps the best of it, and can be stopped and resumed at any moment."""

import io
import json
import logging
import signal
import threading
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cs231n.arguments import check_count, check_number
from cs231n.files import ADVICE, read_checked_zip, write_checked_zip
from cs231n.optim import RULES

logger = logging.getLogger(__name__)

SHUFFLE, DROPOUT, SAMPLE = range(3)  # purposes of a generator, seeded by the run's seed, one of these and a counter

FORMAT = "cs231n.Solver, 2"  # marks a file as a checkpoint of this version
# What a checkpoint holds besides arrays: the solver's settings, and how far it has come.
SETTINGS = ("update_rule", "lr_decay", "batch_size", "num_epochs", "num_train_samples", "num_val_samples")
SETTINGS += ("print_every", "checkpoint_every", "seed")
DATA = ("X_train", "y_train", "X_val", "y_val")
PROGRESS = ("step", "loss_history", "train_acc_history", "val_acc_history", "best_val_acc")

# An overflow in the net shows in the loss, which `_require_finite` reports; NumPy's warnings would only repeat it.
no_warnings = np.errstate(over="ignore", invalid="ignore", divide="ignore")


class Solver:
    """Train a model by stochastic gradient descent.

    model: has params, a dict of arrays, and loss(X, y=None), which returns (loss, grads) with y and scores (N, C)
    without.  If it has bn_params, a list of dicts, their running statistics are kept with the parameters; if it has
    reseed, that is called with a new seed before each step, for its dropout.  Its other attributes that are numbers,
    strings, and lists and dicts of these, such as reg, are its settings, unless training changes them.
    data: a dict with X_train (N, ...), y_train (N,), X_val and y_val; X are float or int arrays, y int labels from 0.
    update_rule: a rule of `cs231n.optim`: sgd, sgd_momentum, rmsprop or adam.  optim_config: its settings.
    lr_decay: the learning rate is multiplied by this after each epoch.
    batch_size: examples in a step.  An epoch draws its batches without replacement from a new shuffle; examples that do
    not fill a batch are left out of that epoch.
    num_epochs: how long to train.
    num_train_samples: how many training images accuracy is measured on after each epoch, a new draw each time (None:
    all).  num_val_samples: the same for validation images.
    print_every: steps between two updates of the loss in the progress bar.  verbose: False for no bar.
    checkpoint_name: a file (.npz is added) that is rewritten after each epoch, and after every checkpoint_every steps
    if that is given; `Solver.resume` continues from it.  None: no file.
    callback: called with the solver after each epoch, before the checkpoint; training stops if it returns True.
    seed: an int that fixes the batches and the dropout masks (None: random).

    After `train`, or Ctrl-C in it, model holds the parameters with the best validation accuracy.  loss_history has an
    entry for each step; train_acc_history and val_acc_history have one before the first step and one after each epoch;
    best_val_acc is the maximum of val_acc_history.  Accuracies are between 0 and 1.
    Raises ValueError for settings or data that do not fit.
    """

    def __init__(
        self,
        model,
        data,
        update_rule="sgd",
        optim_config=None,
        lr_decay=1.0,
        batch_size=100,
        num_epochs=10,
        num_train_samples=1000,
        num_val_samples=None,
        print_every=10,
        verbose=True,
        checkpoint_name=None,
        checkpoint_every=None,
        callback=None,
        seed=None,
    ):
        if update_rule not in tuple(RULES):  # a list cannot be looked up in a dict
            raise ValueError(f"update_rule: wanted one of {', '.join(RULES)}, got {update_rule!r}")
        if not (callback is None or callable(callback)):
            raise ValueError(f"callback: wanted a function of the solver, or None, got {callback!r}")
        _check_data(data, model)
        self.model = model
        self.data = data
        self._checksums = None  # of the data, where a checkpoint needs them
        self._model_settings = _model_settings(model)
        self.update_rule = update_rule
        self.lr_decay = check_number("lr_decay", lr_decay)
        self.batch_size = check_count("batch_size", batch_size, 1)
        self.num_epochs = check_count("num_epochs", num_epochs, 1)
        self.num_train_samples = _check_optional_count("num_train_samples", num_train_samples)
        self.num_val_samples = _check_optional_count("num_val_samples", num_val_samples)
        self.print_every = check_count("print_every", print_every, 1)
        self.verbose = verbose
        self.checkpoint = None if checkpoint_name is None else _checkpoint_path(checkpoint_name)
        self.checkpoint_every = _check_optional_count("checkpoint_every", checkpoint_every)
        self.callback = callback
        self.seed = np.random.SeedSequence().entropy if seed is None else check_count("seed", seed, 0)

        self.step = 0
        self.steps_per_epoch = max(len(data["X_train"]) // self.batch_size, 1)
        optim_config = _with_learning_rate(update_rule, optim_config)
        self.optim_configs = {name: dict(optim_config) for name in model.params}
        self.loss_history = []
        self.train_acc_history = []
        self.val_acc_history = []
        self.best_val_acc = -1.0  # below any accuracy, 0 included
        self._best = self._latest = None  # what `_model_arrays` copied
        self._order = None  # the epoch's shuffle; None until a step has drawn one, as after `resume`

    @property
    def epoch(self):
        """How many epochs are complete."""
        return self.step // self.steps_per_epoch

    @no_warnings
    def train(self):
        """Train until num_epochs are complete, continuing where the last call stopped.

        However it ends, model then holds the best parameters so far; the next call continues from the latest ones.
        Ctrl-C stops after the current step.  A second Ctrl-C interrupts the current step with KeyboardInterrupt; then
        only `resume` continues exactly.  Raises FloatingPointError when the loss or a parameter is no longer finite;
        training cannot continue from that: make a new Solver with a smaller learning rate.
        """
        if self.epoch >= self.num_epochs:
            logger.warning("Already trained for %d epochs; raise num_epochs to continue.", self.epoch)
        with _ctrl_c_flag() as interrupted, self._latest_in_model(), self._progress_bar() as bar:
            if not self.val_acc_history:
                self._measure()
                self.save()
            stopped = False
            while self.epoch < self.num_epochs and not stopped and not interrupted.is_set():
                self._step()
                epoch_is_over = self.step % self.steps_per_epoch == 0
                stopped = epoch_is_over and self._end_epoch()
                if epoch_is_over or (self.checkpoint_every and self.step % self.checkpoint_every == 0):
                    self.save()
                self._show(bar)
        if interrupted.is_set():
            self.save()
            logger.warning("Stopped by Ctrl-C after step %d; the model holds its best so far.", self.step)

    def check_accuracy(self, X, y, num_samples=None, batch_size=500):
        """The share of the examples X (N, ...) whose highest score is that of their label y (N,), between 0 and 1.

        num_samples: measure on at most this many examples, drawn at random for this epoch; on all of them if it is None
        or there are no more.  batch_size: examples at a time.  An example with a score that is not finite counts as
        wrong.  Raises ValueError if arguments do not fit.
        """
        X, y = _check_examples(X, y)
        num_samples = _check_optional_count("num_samples", num_samples)
        check_count("batch_size", batch_size, 1)
        if num_samples is not None and num_samples < len(X):
            chosen = self._rng(SAMPLE, self.epoch).choice(len(X), num_samples, replace=False)
            X, y = X[chosen], y[chosen]
        correct = 0
        for i in range(0, len(X), batch_size):
            scores = no_warnings(self.model.loss)(X[i : i + batch_size])
            right = scores.argmax(axis=1) == y[i : i + batch_size]
            correct += int(np.sum(right & np.isfinite(scores).all(axis=1)))
        return correct / len(X)

    @contextmanager
    def _latest_in_model(self):
        """Within it, the model has the latest parameters; afterwards, the best ones and the seed that it had before."""
        if self._latest:
            _load_model_arrays(self.model, self._latest)
        self._latest, seed_before = None, self._reseed(None)
        try:
            yield
        finally:
            self._latest = _model_arrays(self.model)
            _load_model_arrays(self.model, self._best or self._latest)
            self._reseed(seed_before)

    def _step(self):
        """Update the parameters on the next batch of the epoch's shuffle."""
        epoch, i = divmod(self.step, self.steps_per_epoch)
        if i == 0 or self._order is None:
            self._order = self._rng(SHUFFLE, epoch).permutation(len(self.data["X_train"]))
        batch = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        self._reseed([self.seed, DROPOUT, self.step])
        loss, grads = self.model.loss(self.data["X_train"][batch], self.data["y_train"][batch])
        self._require_finite(f"the loss, {loss},", loss)
        for name, w in self.model.params.items():
            next_w, self.optim_configs[name] = RULES[self.update_rule](w, grads[name], self.optim_configs[name])
            self._require_finite(name, next_w)
            self.model.params[name] = next_w
        self.loss_history.append(float(loss))
        self.step += 1

    def _end_epoch(self):
        """Measure, decay the learning rate, call the callback.  Returns whether it asks to stop."""
        self._measure()
        for config in self.optim_configs.values():
            config["learning_rate"] *= self.lr_decay
        answer = None if self.callback is None else self.callback(self)
        return isinstance(answer, (bool, np.bool_)) and bool(answer)

    def _measure(self):
        """Enter the accuracies into the histories, and keep the parameters if they are the best so far."""
        data = self.data
        self.train_acc_history.append(self.check_accuracy(data["X_train"], data["y_train"], self.num_train_samples))
        self.val_acc_history.append(self.check_accuracy(data["X_val"], data["y_val"], self.num_val_samples))
        if self.val_acc_history[-1] > self.best_val_acc:
            self.best_val_acc = self.val_acc_history[-1]
            self._best = _model_arrays(self.model)

    def _require_finite(self, what, value):
        """Raise FloatingPointError, which calls value by the name what, unless all of it is finite."""
        if np.isfinite(value).all():
            return
        rate = next(iter(self.optim_configs.values()))["learning_rate"]
        kept = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint else "no checkpoint was kept"
        raise FloatingPointError(
            f"{what} is not finite at step {self.step + 1} (epoch {self.epoch + 1}) with learning rate {rate:g}: make "
            f"a new Solver with a smaller one, or a model with smaller initial weights. "
            f"The model holds its best parameters so far; {kept}."
        )

    def _rng(self, purpose, counter):
        """The generator for one purpose at one point of the run, the same whether or not the run was interrupted."""
        return np.random.default_rng([self.seed, purpose, counter])

    def _reseed(self, seed):
        return self.model.reseed(seed) if hasattr(self.model, "reseed") else None

    def _progress_bar(self):
        from tqdm.auto import tqdm  # here: 60 ms of start-up

        total = self.num_epochs * self.steps_per_epoch
        return tqdm(total=total, initial=self.step, unit="step", disable=not self.verbose)

    def _show(self, bar):
        if self.step % self.print_every == 0 or self.step % self.steps_per_epoch == 0:
            bar.set_description(f"epoch {self.epoch}/{self.num_epochs}", refresh=False)
            loss, train_acc, val_acc = self.loss_history[-1], self.train_acc_history[-1], self.val_acc_history[-1]
            bar.set_postfix(loss=f"{loss:.3f}", train=f"{train_acc:.3f}", val=f"{val_acc:.3f}", refresh=False)
            bar.update(self.step - bar.n)

    def save(self):
        """Write the checkpoint, if checkpoint_name was given.

        Raises OSError if that fails, FloatingPointError if a parameter is not finite; the old checkpoint is then kept.
        """
        if self.checkpoint is None:
            return
        latest = self._latest or _model_arrays(self.model)
        for name, array in latest.items():
            self._require_finite(name, array)
        meta = {"format": FORMAT, "data": self._data_checksums(), "model": self._constant_model_settings()}
        meta |= {name: getattr(self, name) for name in (*SETTINGS, *PROGRESS)}
        arrays = {f"model/{name}": array for name, array in latest.items()}
        arrays |= {f"best/{name}": array for name, array in (self._best or {}).items()}
        for param, config in self.optim_configs.items():
            arrays |= {f"optim/{param}/{name}": np.asarray(value) for name, value in config.items()}
        _write_checkpoint(self.checkpoint, meta, arrays)

    def _data_checksums(self):
        """The shape, dtype and CRC-32 of each array of the data, computed once: 0.15 s for CIFAR-10 in float32."""
        if self._checksums is None:
            self._checksums = {name: _checksum(self.data[name]) for name in DATA}
        return self._checksums

    def _constant_model_settings(self):
        """The model's settings as they were before training; of those that differ now, the names alone."""
        now = _model_settings(self.model)
        constant = {name: value for name, value in self._model_settings.items() if now.get(name) == value}
        return {"constant": constant, "changing": sorted((self._model_settings | now).keys() - constant.keys())}

    @classmethod
    def resume(cls, checkpoint_name, model, data, num_epochs=None, callback=None, verbose=True):
        """A solver whose `train` continues from a checkpoint, bit for bit as if training had never stopped.

        model and data: made as for the solver that wrote the file.  num_epochs: a new total (None: the one in the
        file).  Raises FileNotFoundError if there is no such file, ValueError if the file is damaged or of another
        version, or model or data do not fit it: if a number of the data or a setting of the model differs.
        """
        path = _checkpoint_path(checkpoint_name)
        meta, arrays = _read_checkpoint(path)
        settings = {name: meta[name] for name in SETTINGS}
        if num_epochs is not None:
            settings["num_epochs"] = num_epochs
        solver = cls(model, data, **settings, checkpoint_name=path, callback=callback, verbose=verbose)
        solver._latest, solver._best = _below("model/", arrays), _below("best/", arrays)
        for part in filter(None, (solver._latest, solver._best)):
            _check_fit(model, part, path)
        solver._check_same_data_and_settings(meta, path)
        for name in PROGRESS:
            setattr(solver, name, meta[name])
        for key, value in _below("optim/", arrays).items():
            param, name = key.rsplit("/", 1)
            if param not in model.params or value.shape not in (model.params[param].shape, ()):
                raise ValueError(f"{path}: {key}, of shape {value.shape}, fits no parameter of the model; {ADVICE}")
            solver.optim_configs[param][name] = value if value.ndim else value.item()
        _load_model_arrays(model, solver._best or solver._latest)
        return solver

    def _check_same_data_and_settings(self, meta, path):
        """Raise ValueError where data or a setting of the model differs from that of a checkpoint."""
        for name, ours in self._data_checksums().items():
            if ours != meta["data"][name]:
                raise ValueError(
                    f"data: {path} was made with other data: wanted {name} with the shape, type and checksum "
                    f"{meta['data'][name]}, got {ours}"
                )
        ours, theirs = self._model_settings, meta["model"]["constant"]
        for name in sorted((ours.keys() | theirs.keys()) - set(meta["model"]["changing"])):
            if ours.get(name) != theirs.get(name):
                raise ValueError(
                    f"model: {path} was made with another one: wanted {name} {theirs.get(name)}, got {ours.get(name)}"
                )


def _with_learning_rate(update_rule, optim_config):
    """optim_config as plain numbers, with the rule's own learning rate where it gives none."""
    if not isinstance(optim_config, Mapping | None):
        raise ValueError(f"optim_config: wanted a dict, got {optim_config!r}")
    config = {name: check_number(f"optim_config[{name!r}]", value) for name, value in (optim_config or {}).items()}
    _, filled = RULES[update_rule](np.zeros(1), np.zeros(1), dict(config))  # raises for a setting it does not know
    return {"learning_rate": filled["learning_rate"], **config}


def _check_optional_count(name, count):
    return None if count is None else check_count(name, count, 1)


@no_warnings
def _check_data(data, model):
    """Raise ValueError, which says what is wrong with the data and where, if the model cannot be trained on it."""
    if not isinstance(data, Mapping):
        raise ValueError(f"data: wanted a dict, got {type(data).__name__}")
    if missing := [key for key in DATA if key not in data]:
        raise ValueError(f"data: lacks {', '.join(missing)}; it has {', '.join(map(str, data))}")
    for split in ("train", "val"):
        X, y = data[f"X_{split}"], data[f"y_{split}"]
        for name, array in ((f"X_{split}", X), (f"y_{split}", y)):
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name}: wanted a NumPy array, got {type(array).__name__}")
        if X.ndim < 2 or len(X) == 0 or X.dtype.kind not in "fiu":
            raise ValueError(f"X_{split}: wanted numbers of shape (N, ...), N > 0, got {X.dtype} of shape {X.shape}")
        if not np.isfinite(X.sum()) and len(bad := np.argwhere(~np.isfinite(X))):
            i = tuple(bad[0].tolist())
            raise ValueError(f"X_{split}: wanted finite numbers, got {X[i]} at index {i}")
        if y.shape != X.shape[:1] or y.dtype.kind not in "iu":
            raise ValueError(f"y_{split}: wanted {len(X)} integer labels, got {y.dtype} of shape {y.shape}")
        try:
            num_classes = model.loss(X[:1]).shape[1]
        except ValueError as error:
            raise ValueError(f"X_{split}: does not fit the model: {error}") from error
        if y.min() < 0 or y.max() >= num_classes:
            i = int(np.argmax((y < 0) | (y >= num_classes)))
            raise ValueError(f"y_{split}: wanted labels from 0 to {num_classes - 1}, got {y[i]} at index {i}")


def _check_examples(X, y):
    """Return X and y as arrays; raises ValueError unless they are examples and their labels."""
    X, y = np.asarray(X), np.asarray(y)
    if X.size == 0 or y.shape != X.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"wanted X (N, ...) and y (N,) of integers, N > 0, got X {X.shape} and y {y.shape}, {y.dtype}")
    return X, y


def _checksum(array):
    """The shape, dtype and CRC-32 of an array; whole numbers of any dtype count as int64."""
    if array.ndim == 1:
        array = array.astype("<i8")
    checksum = 0
    for i in range(0, len(array), 1000):  # a part at a time, as the array may be a view of which a copy is large
        checksum = zlib.crc32(np.ascontiguousarray(array[i : i + 1000]), checksum)
    return [*array.shape, str(array.dtype), checksum]


def _model_settings(model):
    """Attribute -> value, of all but arrays and other objects; the seed of the dropout counts as None."""
    seed = model.reseed(None) if hasattr(model, "reseed") else None
    settings = {name: _plain(value) for name, value in getattr(model, "__dict__", {}).items() if name != "params"}
    if hasattr(model, "reseed"):
        model.reseed(seed)
    return settings


def _plain(value):
    """value with numbers, strings, lists and dicts as JSON has them, and without all else."""
    if isinstance(value, Mapping):
        return {str(key): plain for key, entry in value.items() if (plain := _plain(entry)) is not None}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, bool | int | float | str) else None


def _model_arrays(model):
    """Copies of all that training changes in a model: its parameters, and the running statistics of its batch norms."""
    arrays = {f"params/{name}": w.copy() for name, w in model.params.items()}
    for i, bn_param in enumerate(getattr(model, "bn_params", [])):
        arrays |= {f"bn_params/{i}/{name}": v.copy() for name, v in bn_param.items() if isinstance(v, np.ndarray)}
    return arrays


def _load_model_arrays(model, arrays):
    """Restore what `_model_arrays` copied."""
    for name in model.params:
        model.params[name] = arrays[f"params/{name}"].copy()
    for i, bn_param in enumerate(getattr(model, "bn_params", [])):
        bn_param |= {name: v.copy() for name, v in _below(f"bn_params/{i}/", arrays).items()}


def _check_fit(model, arrays, path):
    """Raise ValueError unless a checkpoint's arrays have the names, dtypes and shapes of the model's."""
    own = _model_arrays(model)
    for name in own | arrays:
        wanted, got = (f"{a[name].dtype} {a[name].shape}" if name in a else "absent" for a in (own, arrays))
        if wanted != got:
            raise ValueError(f"model: does not fit {path}; {name} is {wanted} in the model and {got} in the file")


def _below(prefix, arrays):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _checkpoint_path(name):
    if not isinstance(name, str | Path):
        raise ValueError(f"checkpoint_name: wanted the path of a file, got {name!r}")
    path = Path(name).expanduser()
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def _write_checkpoint(path, meta, arrays):
    """Write a checkpoint: at any moment, path holds a whole one, the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, meta=np.array(json.dumps(meta | {"arrays": list(arrays)}, default=np.generic.item)), **arrays)
    write_checked_zip(path, content.getbuffer())


def _read_checkpoint(path):
    """What `_write_checkpoint` wrote: meta and arrays, all of them finite.  Nothing in the file is executed."""
    content = read_checked_zip(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as npz:
            arrays = dict(npz)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["format"] != FORMAT:
            raise ValueError(f"its format is {meta['format']!r}, and this version reads {FORMAT!r}")
        if arrays.keys() != set(meta["arrays"]) or not {*SETTINGS, *PROGRESS, "data", "model"} <= meta.keys():
            raise ValueError("it lacks a part")
        if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise ValueError(f"{bad[0]} is not finite")
    except Exception as error:  # what a foreign zip file raises has no type in common
        raise ValueError(f"{path} is not a checkpoint of this Solver ({error}); {ADVICE}") from error
    return meta, arrays


@contextmanager
def _ctrl_c_flag():
    """An event that Ctrl-C sets, instead of interrupting the current step; a second Ctrl-C does interrupt it."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C never reaches it
        yield flag
        return

    def on_ctrl_c(signum, frame):
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
