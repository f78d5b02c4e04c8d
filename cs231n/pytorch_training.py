"""A training run by a recipe: its epochs, its checkpoints and its log."""

import copy
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from cs231n import pytorch_files as files
from cs231n.pytorch_data import DeviceBatches, TorchvisionBatches, normalized
from cs231n.pytorch_device import (
    autocast,
    memory_format,
    rank,
    reason,
    sum_over_processes,
    synchronize_batchnorm,
    wait_for,
    world_size,
)
from cs231n.pytorch_resnet import build, scores_of

WARM_UP = 3  # steps before the clock starts
WHITENED = 5000  # training images, the first ones, that a recipe may compute initial weights from


class Training:
    """A run: the model, its optimizers and schedules, and its progress; a checkpoint holds all of these.

    recipe: a `Recipe`.  train, val: `Images` on the device to train on.  output_dir: for checkpoints and the log; where
    the processes are on several machines, these must share it.  compiled: train through torch.compile.  workers:
    processes of the torchvision loader.
    Raises ValueError for workers without that loader, or a batch that the processes cannot share evenly.

    After each epoch `last.pt` and, if the validation accuracy is the best so far, `best.pt` are replaced, and `log.csv`
    gains a line.  The training loss and accuracy are means over the batches of the epoch, as the net was when it saw
    them, and the loss is that of smoothed labels where the recipe smooths them.  The validation loss and accuracy are
    measured after the epoch, with labels as they are.

    training_seconds: the time spent in epochs, without validation.  warm_up_seconds: the time of a few steps before
    them, which are undone; torch.compile compiles, and cuDNN may choose its algorithms, during these steps.
    """

    def __init__(self, recipe, train, val, output_dir, compiled=False, workers=0):
        self.recipe, self.train_images, self.val_images = recipe, train, val
        self.output_dir, self.device = Path(output_dir), train.x.device
        self.versions = files.versions(self.device)
        self.batches = self._training_batches(workers)
        self.model = self._first_model().to(self.device, memory_format=memory_format(self.device))
        self.average = recipe.average(self.model)
        self.optimizers = recipe.optimizers(self.model, self.device)
        self.steps = recipe.epochs * self.batches.steps
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate((step + 0.5) / self.steps))
            for optimizer in self.optimizers
        ]
        self.epoch, self.best_val_acc, self.training_seconds, self.warm_up_seconds = 0, -1.0, 0.0, 0.0
        self.net = self.model  # what training calls: the model, perhaps wrapped for several processes or compiled
        if world_size() > 1:
            synchronize_batchnorm(self.model)
            ids = [self.device] if self.device.type == "cuda" else None
            self.net = nn.parallel.DistributedDataParallel(self.model, device_ids=ids)
        self.compiled = compiled
        if compiled:
            self.net = torch.compile(self.net)

    def _training_batches(self, workers):
        recipe, images = self.recipe, self.train_images
        if recipe.loader == "torchvision":
            return TorchvisionBatches(images, recipe.batch_size, recipe.pad, recipe.seed, workers)
        if workers:
            raise ValueError(f"workers: wanted 0, since only the torchvision loader has any, got {workers}")
        return DeviceBatches(images, recipe.batch_size, recipe.pad, recipe.alternating_flip, recipe.seed)

    def _first_model(self):
        with torch.random.fork_rng(devices=[]):  # PyTorch draws initial weights from its global generator only
            torch.manual_seed(self.recipe.seed)
            model = build(self.recipe.architecture(len(self.train_images.class_names)))
        self.recipe.prepare(model, normalized(self.train_images.x[:WHITENED], self.train_images.statistics))
        return model

    def run(self, verbose=True):
        """Train until the recipe's epochs are complete, then load the weights of the best epoch into model.

        The best epoch is the first one with the highest validation accuracy.  verbose: show a progress bar.
        Raises FloatingPointError when the loss is no longer finite, OSError where a file cannot be written, ValueError
        where torch.compile fails.
        """
        is_first = rank() == 0
        writer = None
        if is_first:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            writer = files.tensorboard_writer(self.output_dir, self.epoch)
        if self.epoch < self.recipe.epochs:
            self._warm_up()
        done, hidden = self.epoch * self.batches.steps, not (is_first and verbose)
        with tqdm(total=self.steps, initial=done, unit="step", disable=hidden) as bar:
            while self.epoch < self.recipe.epochs:
                row = self._train_epoch(bar)
                row |= dict(zip(("val_loss", "val_acc"), self.evaluate(self.val_images), strict=True))
                if is_first:
                    self._save(row, writer)
                self.best_val_acc = max(self.best_val_acc, row["val_acc"])
                bar.set_postfix(loss=f"{row['train_loss']:.3f}", val=f"{row['val_acc']:.4f}", refresh=False)
        if writer:
            writer.close()
        if world_size() > 1:
            torch.distributed.barrier()  # until the first process has written best.pt
        self.model.load_state_dict(files.load(self.output_dir / "best.pt", self.device)["model"])
        self.average = None  # best.pt holds the averaged weights, and the model has them now

    def _save(self, row, writer):
        """Write the files of an epoch, last.pt at the end: a run that is killed in between repeats the epoch."""
        is_best = row["val_acc"] > self.best_val_acc
        state = self.state(max(self.best_val_acc, row["val_acc"]))
        if is_best:
            files.save(self.output_dir / "best.pt", {name: value for name, value in state.items() if name != "resume"})
        files.log_epoch(self.output_dir / "log.csv", row)
        files.save(self.output_dir / "last.pt", state)
        if writer:
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], self.epoch)

    def _train_epoch(self, bar):
        """Pass once over the training images.  Returns the first columns of the log's row, from epoch to train_acc.

        lr is that of the epoch's first step, of the first optimizer.  Raises FloatingPointError where the mean loss is
        not finite.
        """
        self.net.train()
        rate = self.schedules[0].get_last_lr()[0]
        loss, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        wait_for(self.device)
        start = time.perf_counter()
        for x, y in self.batches.epoch(self.epoch):
            step_loss, scores = self._step(x, y)
            loss += step_loss
            correct += (scores.argmax(dim=1) == y).sum()
            bar.update()
        wait_for(self.device)
        seconds = time.perf_counter() - start
        self.epoch += 1
        self.training_seconds += seconds
        images = self.batches.steps * self.batches.batch_size
        loss = sum_over_processes(loss).item() / (self.batches.steps * world_size())
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
            "train_acc": sum_over_processes(correct).item() / images,
        }

    def _step(self, x, y):
        """Update the weights by the gradient on a batch.  Returns its mean loss () and its scores, both detached."""
        with autocast(self.device, self.recipe.precision):
            scores = self.net(x)
            loss = F.cross_entropy(scores, y, label_smoothing=self.recipe.label_smoothing)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        if self.average:
            self.average.update(self.schedules[0].last_epoch / self.steps)
        return loss.detach(), scores.detach()

    def _warm_up(self):
        """Take a few steps on the first images, and undo everything that they changed."""
        start = time.perf_counter()
        before = copy.deepcopy(self._resume_state())
        share = self.batches.batch_size // world_size()
        x = normalized(self.train_images.x[:share], self.train_images.statistics)
        self.net.train()
        try:
            for _ in range(WARM_UP):
                self._step(x, self.train_images.y[:share])
        except RuntimeError as error:
            if not self.compiled or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(f"compile: torch.compile fails here ({reason(error)})") from error
        self._set_resume_state(before)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        wait_for(self.device)
        self.warm_up_seconds = time.perf_counter() - start

    def evaluate(self, images):
        """The loss and the accuracy of the averaged weights, if the recipe averages them, or else of the model.

        As the function `evaluate`, with the recipe's test_flip and precision.
        """
        with self.average.in_model() if self.average else nullcontext():
            return evaluate(self.model, images, self.recipe.test_flip, self.recipe.precision)

    def state(self, best_val_acc):
        """The content of a checkpoint, a dict: what `predict` needs and, under the key resume, what `resume` needs.

        Its model entry has the averaged weights, if the recipe averages them.  best_val_acc: a float from 0 to 1.
        """
        averages = self.average.slow if self.average else {}
        mean, std = (s.tolist() for s in self.train_images.statistics)
        progress = {"epoch": self.epoch, "best_val_acc": best_val_acc, "training_seconds": self.training_seconds}
        return {
            "data": self.train_images.name,
            "class_names": list(self.train_images.class_names),
            "statistics": {"mean": mean, "std": std},
            "architecture": self.recipe.architecture(len(self.train_images.class_names)),
            "test_flip": self.recipe.test_flip,
            "model": self.model.state_dict() | averages,
            "recipe": self._made_with(),
            "versions": self.versions,
            "progress": progress,
            "resume": self._resume_state(),
        }

    def _made_with(self):
        """The data set and the settings, which a run that resumes a checkpoint must have in common with it."""
        return {"data": self.train_images.name, **self.recipe.settings()}

    def _resume_state(self):
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "average": self.average.state_dict() if self.average else None,
        }

    def _set_resume_state(self, state):
        self.model.load_state_dict(state["model"])
        for name in ("optimizers", "schedules"):
            for current, saved in zip(getattr(self, name), state[name], strict=True):
                current.load_state_dict(saved)
        if self.average:
            self.average.load_state_dict(state["average"])

    def resume(self):
        """Restore the state in last.pt, so that `run` continues the run that wrote it.

        On a CPU the result then agrees bit for bit with that of an uninterrupted run; on a GPU this was not measured.
        Raises OSError where last.pt cannot be read, ValueError where it is damaged, or lacks the state to continue a
        run (best.pt does), or was made with another recipe or other data.
        """
        path = self.output_dir / "last.pt"
        state = files.load(path, self.device)
        ours, theirs = self._made_with(), state["recipe"]
        if changed := [name for name in ours if theirs.get(name) != ours[name]]:
            differences = ", ".join(f"{name} {theirs.get(name)} and not {ours[name]}" for name in changed)
            raise ValueError(f"{path} was made with {differences}")
        if "resume" not in state:
            raise ValueError(f"{path} lacks the state that a run continues from: is it a copy of best.pt?")
        self._set_resume_state(state["resume"])
        for name, value in state["progress"].items():
            setattr(self, name, value)


@torch.inference_mode()
def evaluate(model, images, test_flip=False, precision="auto", batch_size=250):
    """The mean cross-entropy loss of model over images, and its accuracy: the fraction whose highest score is correct.

    Returns two floats, the loss in nats and the accuracy from 0 to 1.  images: `Images`, divided among the processes.
    test_flip: as for `scores_of`.  precision: as for `autocast`.  batch_size: images at a time, in each process.  model
    is left in evaluation mode.
    """
    model.eval()
    totals = torch.zeros(2, device=images.x.device)
    for x, y in images.batches(batch_size):
        with autocast(x.device, precision):
            scores = scores_of(model, x, test_flip).float()
        totals += torch.stack([F.cross_entropy(scores, y, reduction="sum"), (scores.argmax(dim=1) == y).sum()])
    loss, correct = sum_over_processes(totals).tolist()
    return loss / len(images), correct / len(images)
