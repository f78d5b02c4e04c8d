"""A training run by a recipe: its epochs, its checkpoints and its log."""

import math
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from cs231n import pytorch_files as files
from cs231n.files import ADVICE
from cs231n.pytorch_data import DeviceBatches, TorchvisionBatches, normalized, resized
from cs231n.pytorch_device import (
    memory_format,
    rank,
    reason,
    sum_over_processes,
    synchronize_batchnorm,
    wait_for,
    world_size,
)
from cs231n.pytorch_optim import Scheduled
from cs231n.pytorch_proxy import Proxy, kept
from cs231n.pytorch_resnet import build
from cs231n.pytorch_step import WARM_UP, Evaluation, Step

WHITENED = 5000  # training images, the first ones, that a recipe may compute initial weights from


class Training:
    """A run: the model, its optimizers and schedules, and its progress; a checkpoint holds all of these.

    recipe: a `Recipe`.  train, val: `Images` on the device to train on; val None: no image is held out, and the last
    epoch takes the place of the best.  output_dir: for checkpoints and the log; where the processes are on several
    machines, these must share it; None: nothing is written.  compiled: train through torch.compile.  workers: processes
    of the torchvision loader.  graphed: on CUDA, in a single process, repeat the step as a CUDA graph.
    Raises ValueError for workers without that loader, or a batch that the processes cannot share evenly.

    After each epoch `last.pt`, `log.csv` and, if the validation accuracy is the best so far, `best.pt` are replaced, in
    the background, from a copy of the state; `resume` alone reads them.  The training loss and accuracy are means over
    the batches of the epoch, as the net was when it saw them, and the loss is that of smoothed labels where the recipe
    smooths them.  The validation loss and accuracy are measured after the epoch, with labels as they are.

    history: the rows of the log, a dict of numbers for each complete epoch.  best, best_val_acc: the weights of the
    best epoch so far, by name, and its validation accuracy (None and -1 before the first epoch is complete).
    training_seconds: the time spent on the first weights and in epochs, without validation.  warm_up_seconds: the time
    of a few steps before them, which are undone; torch.compile compiles, cuDNN may choose its algorithms, and CUDA
    graphs are recorded then.
    """

    def __init__(self, recipe, train, val, output_dir, compiled=False, workers=0, graphed=True):
        self.recipe, self.train_images, self.val_images = recipe, train, val
        self.output_dir, self.device = output_dir and Path(output_dir).expanduser(), train.x.device
        self.versions = files.versions(self.device)
        self.batches = self._training_batches(workers)
        self.kept = kept(recipe.hardest, self.batches.batch_size)  # images of a batch that a step learns from
        if self.kept * recipe.last_side**2 == 1:
            raise ValueError(
                "batch_size, train_images: wanted at least 2, as batch norm needs in a net of these widths, got 1"
            )
        if recipe.proxy and world_size() > 1:
            raise ValueError(f"hardest: wanted 1.0 with several processes, got {recipe.hardest}")
        self.steps = recipe.epochs * self.batches.steps
        self.graphed = graphed and self.device.type == "cuda" and world_size() == 1
        self.training_seconds, self.warm_up_seconds = 0.0, 0.0
        self.model, self.proxy = self._first_nets()
        self.average = recipe.average(self.model)
        self.trained = Scheduled(self.model, recipe.optimizers(self.model, self.device), self._rate, self.device)
        self.optimizers = self.trained.optimizers
        self.epoch, self.history, self.best, self.best_val_acc = 0, [], None, -1.0
        self.writer, self.compiled = files.Writer(), compiled
        if world_size() > 1:
            synchronize_batchnorm(self.model)
        settings = self.device, recipe.precision, recipe.label_smoothing, self.graphed
        self.step = Step(self._net(), self.optimizers, *settings, choose=self.proxy and self.proxy.choose)
        self.evaluation = Evaluation(self.model, self.device, recipe.views, recipe.precision, self.graphed)

    def _net(self):
        """What training calls: the model, perhaps wrapped for several processes or compiled."""
        net = self.model
        if world_size() > 1:
            ids = [self.device] if self.device.type == "cuda" else None
            net = nn.parallel.DistributedDataParallel(net, device_ids=ids)
        return torch.compile(net, dynamic=False) if self.compiled else net

    def _rate(self, step):
        """The factor on the learning rate at the middle of a step; PyTorch asks for one more than there are."""
        return self.recipe.rate((min(step, self.steps - 1) + 0.5) / self.steps)

    def _training_batches(self, workers):
        recipe, images = self.recipe, self.train_images
        if recipe.loader == "torchvision":
            settings = recipe.seed, workers, recipe.reflect, recipe.cutout
            return TorchvisionBatches(images, recipe.batch_size, recipe.pad, *settings)
        if workers:
            raise ValueError(f"workers: wanted 0, since only the torchvision loader has any, got {workers}")
        settings = recipe.alternating_flip, recipe.seed, recipe.reflect, recipe.cutout
        return DeviceBatches(images, recipe.batch_size, recipe.pad, *settings)

    def _first_nets(self):
        """The model and the proxy, or None, with their first weights; some of these are computed from images."""
        recipe, classes = self.recipe, len(self.train_images.class_names)
        x = normalized(self.train_images.x[:WHITENED], self.train_images.statistics)
        with torch.random.fork_rng(devices=[]):  # PyTorch draws initial weights from its global generator only
            torch.manual_seed(recipe.seed)
            model = build(recipe.architecture(classes)).to(self.device, memory_format=memory_format(self.device))
            if self.device.type == "cuda":
                recipe.prepare(model, x)  # the first call loads libraries, which is no training
            wait_for(self.device)
            start = time.perf_counter()
            recipe.prepare(model, x)
            proxy = None
            if recipe.proxy:
                proxy = Proxy(recipe.proxy, recipe.hardest, classes, x, self._rate, self.graphed)
            wait_for(self.device)
        self.training_seconds = time.perf_counter() - start
        return model, proxy

    def run(self, verbose=True, report=None):
        """Train until the recipe's epochs are complete, then load the weights of the best epoch into model.

        The best epoch is the first one with the highest validation accuracy.  verbose: show a progress bar.  report: in
        the first process, a function that is called with the log's row after each epoch.
        Raises FloatingPointError when the loss or a weight is no longer finite, OSError where a file cannot be written,
        ValueError where torch.compile or the recording of a CUDA graph fails.
        """
        is_first = rank() == 0
        writes = is_first and self.output_dir is not None
        if writes:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        if self.epoch < self.recipe.epochs:
            self._warm_up()
        done, hidden = self.epoch * self.batches.steps, not (is_first and verbose)
        with tqdm(total=self.steps, initial=done, unit="step", disable=hidden) as bar, self.writer:
            while self.epoch < self.recipe.epochs:
                row = self._train_epoch(bar)
                if self.val_images is not None:
                    row |= dict(zip(("val_loss", "val_acc"), self.evaluate(self.val_images), strict=True))
                is_best = self._record(row)
                if writes:
                    self._save(is_best)
                if is_first and report:
                    report(row)
                shown = {"loss": f"{row['train_loss']:.3f}"}
                shown |= {"val": f"{row['val_acc']:.4f}"} if "val_acc" in row else {}
                bar.set_postfix(shown, refresh=False)
        self.model.load_state_dict(self.best)
        self.average = None  # the best weights are averaged ones, and the model has them now

    def _record(self, row):
        """Enter an epoch's row into the history, and keep the weights if they are the best so far: returns whether."""
        if name := files.not_finite({"the validation loss": row.get("val_loss", 0.0)} | self._resume_state()):
            raise FloatingPointError(
                f"{name} is not finite after epoch {self.epoch}, with a learning rate of {row['lr']:g}: "
                f"try a smaller one"
            )
        self.history.append(row)
        is_best = self.val_images is None or row["val_acc"] > self.best_val_acc
        if is_best:
            self.best_val_acc = row.get("val_acc", -1.0)
            self.best = {name: w.clone() for name, w in self._measured_weights().items()}
        return is_best

    def _save(self, is_best):
        """Start to write the files of an epoch, once those of the epoch before are complete."""
        state = files.snapshot(self.state())
        wait_for(self.device)
        self.writer.start(files.save_epoch, self.output_dir, state, is_best)

    def _train_epoch(self, bar):
        """Pass once over the training images.  Returns the first columns of the log's row, from epoch to train_acc.

        lr is that of the epoch's first step, of the first optimizer.  Raises FloatingPointError where the mean loss is
        not finite.
        """
        self._start_epoch(self.epoch)
        rate = float(self.optimizers[0].param_groups[0]["lr"])
        self.step.reset()
        wait_for(self.device)
        start = time.perf_counter()
        for x, y in self.batches.epoch(self.epoch, self.recipe.side(self.epoch)):
            self._step(x, y)
            bar.update()
        wait_for(self.device)
        seconds = time.perf_counter() - start
        self.epoch += 1
        self.training_seconds += seconds
        images = self.batches.steps * self.kept
        loss = sum_over_processes(self.step.loss).item() / (self.batches.steps * world_size())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {self.epoch}, with a learning rate of {rate:g}: try a smaller one"
            )
        return {
            "epoch": self.epoch,
            "lr": rate,
            "images_per_second": images / seconds,
            "training_seconds": self.training_seconds,
            "train_loss": loss,
            "train_acc": sum_over_processes(self.step.correct).item() / images,
        }

    def _step(self, x, y):
        """Update the weights by the gradient on a batch, then the proxy, the learning rates and the average."""
        self.step(x, y)
        done = self.trained.schedules[0].last_epoch
        if self.proxy:
            self.proxy.train(done, x, y)
        self.trained.advance()
        if self.average:
            self.average.update((done + 1) / self.steps)

    def _start_epoch(self, number):
        """Prepare the model for an epoch; where other weights are trained, several processes exchange others."""
        before = [w.requires_grad for w in self.model.parameters()]
        self.model.train()
        self.recipe.freeze(self.model, number)
        if world_size() > 1 and before != [w.requires_grad for w in self.model.parameters()]:
            self.step.net = self._net()

    def _warm_up(self):
        """Take a few steps on the first images, for each kind of step to come, and undo everything that they changed.

        CUDA graphs are recorded meanwhile, that of the validation too: later, a checkpoint may be under way.
        """
        start, nets = time.perf_counter(), [self, self.proxy] if self.proxy else [self]
        share = self.batches.batch_size // world_size()
        x = normalized(self.train_images.x[:share], self.train_images.statistics)
        try:
            next(iter(self.batches.epoch(self.epoch, self.recipe.side(self.epoch))))
            with ExitStack() as stack:
                for net in nets:
                    stack.enter_context(net.trained.undone())
                for epoch in range(self.epoch, self.recipe.epochs):
                    self._start_epoch(epoch)
                    batch = resized(x, self.recipe.side(epoch)), self.train_images.y[:share], WARM_UP
                    for net in nets:
                        net.step.prepare(*batch)
            if self.graphed and self.val_images is not None:
                self.evaluate(self.val_images)
        except RuntimeError as error:
            if not (self.compiled or self.graphed) or isinstance(error, torch.OutOfMemoryError):
                raise
            tried = "compile: torch.compile" if self.compiled else "graph: recording a CUDA graph"
            raise ValueError(f"{tried} fails here ({reason(error)})") from error
        wait_for(self.device)
        self.warm_up_seconds = time.perf_counter() - start

    def evaluate(self, images):
        """The loss and the accuracy on images: of the averaged weights if the recipe averages them, else of the model.

        As `cs231n.pytorch_step.Evaluation`, with the recipe's views and precision.
        """
        with self.average.in_model() if self.average else nullcontext():
            return self.evaluation(images)

    def state(self):
        """The content of a checkpoint, a dict: what `predict` needs and, under the key resume, what `resume` needs.

        Its model entry has the averaged weights, if the recipe averages them.
        """
        mean, std = (s.tolist() for s in self.train_images.statistics)
        return {
            "data": self.train_images.name,
            "class_names": list(self.train_images.class_names),
            "statistics": {"mean": mean, "std": std},
            "architecture": self.recipe.architecture(len(self.train_images.class_names)),
            "test_flip": self.recipe.test_flip,
            "test_shifts": self.recipe.test_shifts,
            "model": self._measured_weights(),
            "recipe": self._made_with(),
            "versions": self.versions,
            "progress": {name: getattr(self, name) for name in ("epoch", "best_val_acc", "training_seconds")},
            "resume": self._resume_state() | {"history": self.history},
        }

    def _measured_weights(self):
        """The weights that `evaluate` measures, by name."""
        return self.model.state_dict() | (self.average.slow if self.average else {})

    def _made_with(self):
        """The data set and the settings, which a run that resumes a checkpoint must have in common with it."""
        checksums = [images.checksum for images in (self.train_images, self.val_images) if images is not None]
        return {"data": self.train_images.name, "images with the checksums": checksums, **self.recipe.settings()}

    def _resume_state(self):
        extras = {name: part.state_dict() if part else None for name, part in self._extras()}
        return self.trained.state_dict() | extras

    def _extras(self):
        """Pairs of name and object, or None, of what a run may keep beside the model and its optimizers."""
        return ("average", self.average), ("proxy", self.proxy and self.proxy.trained)

    def _set_resume_state(self, state):
        self.trained.load_state_dict(state)
        for name, part in self._extras():
            if part:
                part.load_state_dict(state[name])

    def resume(self):
        """Restore the state in last.pt and the weights in best.pt, so that `run` continues the run that wrote them.

        Where no epoch was completed, neither file exists: nothing changes, and `run` starts with the first epoch.
        On a CPU the result then agrees bit for bit with that of an uninterrupted run; on a GPU this was not measured.
        Raises OSError where a file cannot be read, ValueError where it is damaged, or lacks the state to continue a run
        (best.pt does), or was made with another recipe or other data.
        """
        last, best = (self.output_dir / name for name in ("last.pt", "best.pt"))
        if last.exists():
            self._continue_from(last)
        if self.epoch and not best.exists():
            raise FileNotFoundError(f"{best} is missing, and {last} needs it; {ADVICE}")
        if best.exists():
            self._take_best(best)

    def _load(self, path):
        """The state in a checkpoint of this run."""
        state = files.load(path, self.device)
        with files.interpreted(path):
            ours, theirs = self._made_with(), dict(state["recipe"])
        if changed := [name for name in ours if theirs.get(name) != ours[name]]:
            differences = ", ".join(f"{name} {theirs.get(name)} and not {ours[name]}" for name in changed)
            raise ValueError(f"{path} was made with {differences}")
        return state

    def _continue_from(self, path):
        state = self._load(path)
        if "resume" not in state:
            raise ValueError(f"{path} lacks the state that a run continues from: is it a copy of best.pt?")
        with files.interpreted(path):
            resume, progress = state["resume"], state["progress"]
            epochs = [row["epoch"] for row in resume["history"]]
            if epochs != list(range(1, progress["epoch"] + 1)) or len(epochs) > self.recipe.epochs:
                raise ValueError(f"{path}, of epoch {progress['epoch']}, has a log of the epochs {epochs}; {ADVICE}")
            files.check_tensors(path, resume["model"], self.model.state_dict())
            if self.average:
                files.check_tensors(path, resume["average"]["slow"], self.average.slow)
            if self.proxy:
                files.check_tensors(path, resume["proxy"]["model"], self.proxy.model.state_dict())
            self._set_resume_state(resume)
            self._check_moments(path)
            self.history, self.epoch = resume["history"], progress["epoch"]
            self.best_val_acc, self.training_seconds = progress["best_val_acc"], progress["training_seconds"]

    def _check_moments(self, path):
        """Raise ValueError unless what the optimizers took from path has the shape of its weight, or is one number."""
        for optimizer in self.optimizers + (self.proxy.trained.optimizers if self.proxy else []):
            for w, moments in optimizer.state.items():
                for name, value in moments.items():
                    if isinstance(value, torch.Tensor) and value.shape not in (w.shape, ()):
                        shapes = f"{tuple(value.shape)}, for a weight of shape {tuple(w.shape)}"
                        raise ValueError(f"{path}: {name} has the shape {shapes}; {ADVICE}")

    def _take_best(self, path):
        """Take the best weights from path; of the epoch after last.pt, too, where that was not complete."""
        state = self._load(path)
        with files.interpreted(path):
            epoch, val_acc, weights = state["progress"]["epoch"], state["progress"]["best_val_acc"], state["model"]
            is_kept = 1 <= epoch <= self.epoch and val_acc == self.best_val_acc
            is_next = epoch == self.epoch + 1 and (val_acc > self.best_val_acc or self.val_images is None)
            if not (is_kept or is_next):
                last = path.with_name("last.pt")
                raise ValueError(f"{path}, of epoch {epoch}, is not the best of the run in {last}; {ADVICE}")
            files.check_tensors(path, weights, self.model.state_dict())
        self.best, self.best_val_acc = weights, val_acc
