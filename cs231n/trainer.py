"""The Solver: trains a model on data, keeps the best of it, and can be stopped and resumed at any moment."""

import json
import logging
import numbers
import os
import signal
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cs231n.optim import RULES
from cs231n.utils import check_count

logger = logging.getLogger(__name__)

SHUFFLE, DROPOUT, SAMPLE = range(3)  # what a generator, seeded by the run's seed, this and a counter, is for

# What a checkpoint holds beside arrays: how the solver was set up, and how far it has come.
SETTINGS = ("update_rule", "lr_decay", "batch_size", "num_epochs", "num_train_samples", "num_val_samples")
SETTINGS += ("print_every", "checkpoint_every", "seed")
PROGRESS = ("step", "loss_history", "train_acc_history", "val_acc_history", "best_val_acc")


class Solver:
    """Train a model by stochastic gradient descent.

    model: has params, a dict of arrays, and loss(X, y=None), which returns (loss, grads) with y and scores (N, C)
    without.  If it has bn_params, their running statistics are kept with the parameters; if it has reseed, that is
    called with a fresh seed before each step, for its dropout.
    data: a dict with X_train (N, ...), y_train (N,), X_val and y_val; labels are integers from 0.
    update_rule: a rule of `cs231n.optim`: sgd, sgd_momentum, rmsprop or adam.  optim_config: its settings.
    lr_decay: the learning rate is multiplied by this after each epoch.
    batch_size: examples in a step.  An epoch draws its batches without replacement from a fresh shuffle; what does not
    fill a batch is left out of that epoch.
    num_epochs: how long to train.
    num_train_samples: training images on which accuracy is measured after each epoch, drawn anew each time (None: all).
    num_val_samples: validation images likewise (None: all).
    print_every: steps between two updates of the loss in the progress bar.  verbose: False for no bar.
    checkpoint_name: a file (.npz is added) that is rewritten after each epoch, and after every checkpoint_every steps
    if that is given, from which `Solver.resume` goes on.  None: no file.
    callback: called with the solver after each epoch; training stops if it returns True.
    seed: fixes the batches and the dropout masks (None: drawn from the system).

    After `train`, or Ctrl-C in it, model holds the parameters with the best validation accuracy.  loss_history has an
    entry for each step, train_acc_history and val_acc_history one before the first step and one after each epoch;
    best_val_acc is the maximum of the last.
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
        if update_rule not in RULES:
            raise ValueError(f"update_rule: wanted one of {', '.join(RULES)}, got {update_rule!r}")
        _check_data(data, model)
        self.model = model
        self.data = data
        self.update_rule = update_rule
        self.lr_decay = float(lr_decay)
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
        self._order = None

    @property
    def epoch(self):
        """How many epochs are complete."""
        return self.step // self.steps_per_epoch

    def train(self):
        """Train until num_epochs are complete, going on from where the last call stopped.

        Ctrl-C ends it after the step in hand (a second one at once).  However it ends, model then holds the best
        parameters so far, and the next call goes on from the latest.  Raises FloatingPointError when the loss or a
        parameter is no longer finite.
        """
        if self.epoch >= self.num_epochs:
            logger.warning("Already trained for %d epochs; raise num_epochs to go on.", self.epoch)
        if self._latest is not None:
            _load_model_arrays(self.model, self._latest)
        seed_before = self._reseed(None)
        try:
            with _ctrl_c_flag() as interrupted, self._progress_bar() as bar:
                if not self.val_acc_history:
                    self._measure()
                    self.save()
                stopped = False
                while self.epoch < self.num_epochs and not stopped and not interrupted.is_set():
                    self._step()
                    stopped = self.step % self.steps_per_epoch == 0 and self._end_epoch()
                    self._show(bar)
                    if self.checkpoint_every and self.step % self.checkpoint_every == 0:
                        self.save()
                if interrupted.is_set():
                    self.save()
                    logger.warning("Stopped by Ctrl-C after step %d; the model holds its best so far.", self.step)
        finally:
            self._latest = _model_arrays(self.model)
            _load_model_arrays(self.model, self._best or self._latest)
            self._reseed(seed_before)

    def check_accuracy(self, X, y, num_samples=None, batch_size=500):
        """The share of the examples X (N, ...) whose highest score is that of their label y (N,), between 0 and 1.

        num_samples: measure on so many examples only, drawn at random for this epoch.  batch_size: examples at a time.
        """
        if num_samples is not None and num_samples < len(X):
            chosen = self._rng(SAMPLE, self.epoch).choice(len(X), num_samples, replace=False)
            X, y = X[chosen], y[chosen]
        starts = range(0, len(X), batch_size)
        correct = sum(
            int(np.sum(self.model.loss(X[i : i + batch_size]).argmax(axis=1) == y[i : i + batch_size])) for i in starts
        )
        return correct / len(X)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # _require_finite says it better
    def _step(self):
        """Update the parameters on the next batch of the epoch's shuffle."""
        epoch, i = divmod(self.step, self.steps_per_epoch)
        if i == 0 or self._order is None:
            self._order = self._rng(SHUFFLE, epoch).permutation(len(self.data["X_train"]))
        batch = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        self._reseed([self.seed, DROPOUT, self.step])
        loss, grads = self.model.loss(self.data["X_train"][batch], self.data["y_train"][batch])
        self._require_finite("the loss", loss)
        for name, w in self.model.params.items():
            next_w, self.optim_configs[name] = RULES[self.update_rule](w, grads[name], self.optim_configs[name])
            self.model.params[name] = next_w
        self.loss_history.append(float(loss))
        self.step += 1

    def _end_epoch(self):
        """Measure, decay the learning rate, save.  Returns whether the callback asks to stop."""
        self._measure()
        for config in self.optim_configs.values():
            config["learning_rate"] *= self.lr_decay
        self.save()
        return self.callback is not None and self.callback(self) is True

    def _measure(self):
        """Enter the accuracies into the histories, and keep the parameters if they are the best so far."""
        for name, w in self.model.params.items():
            self._require_finite(f"the largest entry of {name}", np.abs(w).max())
        data = self.data
        self.train_acc_history.append(self.check_accuracy(data["X_train"], data["y_train"], self.num_train_samples))
        self.val_acc_history.append(self.check_accuracy(data["X_val"], data["y_val"], self.num_val_samples))
        if self.val_acc_history[-1] > self.best_val_acc:
            self.best_val_acc = self.val_acc_history[-1]
            self._best = _model_arrays(self.model)

    def _require_finite(self, what, value):
        if np.isfinite(value):
            return
        rate = next(iter(self.optim_configs.values()))["learning_rate"]
        kept = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint else "no checkpoint was kept"
        raise FloatingPointError(
            f"{what} is {value} at step {self.step + 1} (epoch {self.epoch + 1}) with learning rate {rate:g}: try a "
            f"smaller learning rate or smaller initial weights. The model holds its best parameters so far; {kept}."
        )

    def _rng(self, purpose, counter):
        """The generator for one purpose at one point of the run, the same whether or not the run was interrupted."""
        return np.random.default_rng([self.seed, purpose, counter])

    def _reseed(self, seed):
        return self.model.reseed(seed) if hasattr(self.model, "reseed") else None

    def _progress_bar(self):
        from tqdm.auto import tqdm  # here, since it takes a while to import

        total = self.num_epochs * self.steps_per_epoch
        return tqdm(total=total, initial=self.step, unit="step", disable=not self.verbose)

    def _show(self, bar):
        if self.step % self.print_every == 0 or self.step % self.steps_per_epoch == 0:
            bar.set_description(f"epoch {self.epoch}/{self.num_epochs}", refresh=False)
            loss, train_acc, val_acc = self.loss_history[-1], self.train_acc_history[-1], self.val_acc_history[-1]
            bar.set_postfix(loss=f"{loss:.3f}", train=f"{train_acc:.3f}", val=f"{val_acc:.3f}", refresh=False)
            bar.update(self.step - bar.n)

    def save(self):
        """Write the checkpoint, if there is to be one.

        The file is written beside the old one and then takes its place, so that a whole one stands there at any moment.
        Raises OSError where it cannot be written.
        """
        if self.checkpoint is None:
            return
        meta = {name: getattr(self, name) for name in (*SETTINGS, *PROGRESS)}
        meta |= {"format": 1, "num_training": len(self.data["X_train"]), "optim_configs": {}}
        arrays = {f"model/{name}": array for name, array in _model_arrays(self.model).items()}
        arrays |= {f"best/{name}": array for name, array in (self._best or {}).items()}
        for param, config in self.optim_configs.items():
            state = {name for name, value in config.items() if isinstance(value, np.ndarray)}
            arrays |= {f"optim/{name}/{param}": config[name] for name in state}
            meta["optim_configs"][param] = {name: config[name] for name in config.keys() - state}
        beside = self.checkpoint.with_suffix(".tmp")
        with open(beside, "wb") as file:
            np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.checkpoint)

    @classmethod
    def resume(cls, checkpoint_name, model, data, num_epochs=None, callback=None, verbose=True):
        """A solver whose `train` goes on from a checkpoint, bit for bit as if training had never stopped.

        model and data: made as for the solver that wrote the file.  num_epochs: a new total (None: the one in the
        file).  Raises FileNotFoundError where there is no such file, ValueError where it or model or data do not fit.
        """
        path = _checkpoint_path(checkpoint_name)
        meta, arrays = _read_checkpoint(path)
        if meta["num_training"] != len(data["X_train"]):
            raise ValueError(f"X_train: {path} was made with {meta['num_training']} images, got {len(data['X_train'])}")
        settings = {name: meta[name] for name in SETTINGS}
        if num_epochs is not None:
            settings["num_epochs"] = num_epochs
        solver = cls(model, data, **settings, checkpoint_name=path, callback=callback, verbose=verbose)
        for name in PROGRESS:
            setattr(solver, name, meta[name])
        solver._latest, solver._best = _below("model/", arrays), _below("best/", arrays)
        _load_model_arrays(model, solver._best)
        solver.optim_configs = meta["optim_configs"]
        for name, state in _below("optim/", arrays).items():
            kind, param = name.split("/", 1)
            solver.optim_configs[param][kind] = state
        return solver


def _with_learning_rate(update_rule, optim_config):
    """optim_config as plain numbers, with the rule's own learning rate where it gives none."""
    config = {}
    for name, value in (optim_config or {}).items():
        if not isinstance(value, numbers.Real):
            raise ValueError(f"optim_config[{name!r}]: wanted a number, got {value!r}")
        config[name] = float(value)
    _, filled = RULES[update_rule](np.zeros(1), np.zeros(1), dict(config))  # raises for a setting it does not know
    return {"learning_rate": filled["learning_rate"], **config}


def _check_optional_count(name, count):
    return None if count is None else check_count(name, count, 1)


def _check_data(data, model):
    """Raise ValueError that says what is wrong with the data, and where, if the model cannot be trained on it."""
    if missing := [key for key in ("X_train", "y_train", "X_val", "y_val") if key not in data]:
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
        num_classes = model.loss(X[:1]).shape[1]  # raises if the examples do not fit the model
        if y.min() < 0 or y.max() >= num_classes:
            i = int(np.argmax((y < 0) | (y >= num_classes)))
            raise ValueError(f"y_{split}: wanted labels from 0 to {num_classes - 1}, got {y[i]} at index {i}")


def _model_arrays(model):
    """Copies of all that training changes in a model: its parameters, and the running statistics of its batch norms."""
    arrays = {f"params/{name}": w.copy() for name, w in model.params.items()}
    for i, bn_param in enumerate(getattr(model, "bn_params", [])):
        arrays |= {f"bn_params/{i}/{name}": v.copy() for name, v in bn_param.items() if isinstance(v, np.ndarray)}
    return arrays


def _load_model_arrays(model, arrays):
    """Put back what `_model_arrays` copied.  Raises ValueError where the model has other parameters."""
    for name, w in model.params.items():
        saved = arrays.get(f"params/{name}")
        if saved is None or saved.shape != w.shape or saved.dtype != w.dtype:
            found = "is not in it" if saved is None else f"is {saved.dtype} {saved.shape} in it"
            raise ValueError(f"model: does not fit the checkpoint; {name}, {w.dtype} {w.shape}, {found}")
        model.params[name] = saved.copy()
    for i, bn_param in enumerate(getattr(model, "bn_params", [])):
        bn_param |= {name: v.copy() for name, v in _below(f"bn_params/{i}/", arrays).items()}


def _below(prefix, arrays):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _checkpoint_path(name):
    path = Path(name)
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _read_checkpoint(path):
    """The settings and the arrays of a checkpoint; nothing in the file is executed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["format"] != 1:
            raise ValueError(f"format {meta['format']}")
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}; give Solver a checkpoint_name to have one written") from None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a whole checkpoint of this Solver ({error})") from error
    return meta, arrays


@contextmanager
def _ctrl_c_flag():
    """An event that Ctrl-C sets, in place of breaking off the step in hand; a second Ctrl-C does break it off."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where no Ctrl-C arrives
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
