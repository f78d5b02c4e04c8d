"""Train a residual net on CIFAR-10 with PyTorch, on a GPU if there is one: `python -m cs231n.pytorch_cifar10`.

    python -m cs231n.pytorch_cifar10 --recipe speedrun --help            shows the options of a recipe
    python -m cs231n.pytorch_cifar10 --preset tiny                       trains a small net, in seconds on a CPU
    python -m cs231n.pytorch_cifar10 --resume                            continues a run that was stopped
    python -m cs231n.pytorch_cifar10 --overwrite                         starts a run over
    torchrun --nproc-per-node=2 -m cs231n.pytorch_cifar10                trains on two GPUs
    python -m cs231n.pytorch_cifar10 predict x.png                       classifies image files, with the pack's own net
    python -m cs231n.pytorch_cifar10 predict runs/classic/best.pt x.png  the same, with the net of a run
    python -m cs231n.pytorch_cifar10 bench --presets 94 95 96 --seeds 10 measures accuracies and times of presets
    python -m cs231n.pytorch_cifar10 ablate --seeds 5                    measures what each idea of speedrun adds

5,000 training images are held out, and the epoch with the best accuracy on them is chosen; the test set is read once,
at the end.  Three times are reported: training alone, without validation and warm-up; the warm-up, a few steps that are
undone, during which torch.compile compiles; and the whole run, from reading the data to the test.  docs/gpu.md lists
what was measured on a GPU.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from cs231n import program

if __name__ == "__main__":
    program.end_at_ctrl_c()  # the imports below take seconds

from cs231n import pytorch_ablation, pytorch_bench, pytorch_files, pytorch_predict
from cs231n.arguments import check_count
from cs231n.files import write_json
from cs231n.pytorch_data import read_splits
from cs231n.pytorch_device import (
    best_device,
    determinism,
    in_first_process,
    is_out_of_memory,
    processes,
    rank,
    reason,
    tells_of_a_lost_process,
    usable_device,
    world_size,
)
from cs231n.pytorch_recipes import RECIPES, add_recipe_options, choose_recipe, recipe_from
from cs231n.pytorch_training import Training

logger = logging.getLogger(__name__)

PROGRAM = "python -m cs231n.pytorch_cifar10"


def main(argv=None):
    """Run the command line argv (None: that of the process).  Returns the exit status.

    0: success.  1: an error, logged as one line, such as a setting outside its limits or a file that cannot be read.
    130: Ctrl-C.  143: SIGTERM.  Raises SystemExit, as argparse does, for --help (0) and for an unknown option (2).  Any
    other error is a fault of the program and is passed on.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in COMMANDS:
        argv = ["train", *argv]
    args = _parse(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        with program.interruptible():
            return COMMANDS[args.command].run(args)
    except (ValueError, OSError, FloatingPointError) as error:
        logger.error("%s", error)
        return 1
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            logger.error("The device's memory is full: try a smaller --batch-size.")
            return 1
        if not tells_of_a_lost_process(error):
            raise
        logger.error("Another process failed: %s", reason(error))
        return 1
    except KeyboardInterrupt as interrupt:
        cause, status = program.stopped_by(interrupt)
        advice = "; --resume continues from the last complete epoch" if args.command == "train" else ""
        if rank() == 0:  # the signal has reached each process
            logger.error("Stopped by %s%s.", cause, advice)
        return status


def _parse(argv):
    """The parsed options of argv, whose first word is a command."""
    parser = argparse.ArgumentParser(prog=PROGRAM)
    commands = parser.add_subparsers(dest="command")
    for name, command in COMMANDS.items():
        prog = PROGRAM if name == "train" else f"{PROGRAM} {name}"
        usage = None if name == "predict" else f"{prog} [options]"  # a recipe's options would fill a page
        # No abbreviations: --recipe and --preset are parsed before the other options are known.
        options = commands.add_parser(name, prog=prog, usage=usage, description=command.description, allow_abbrev=False)
        if name == argv[0]:
            command.add_options(options, argv[1:])
    return parser.parse_args(argv)


def _add_training_options(parser, argv):
    names = tuple(RECIPES)
    recipe = choose_recipe(argv, names)
    parser.epilog = f"The recipes are {' and '.join(names)}: --recipe NAME --help lists the options of one.  "
    parser.epilog += "There are three more commands: see predict --help, bench --help and ablate --help."
    group = _add_run_options(parser, f"runs/{recipe.name}")
    earlier_run = group.add_mutually_exclusive_group()
    earlier_run.add_argument("--resume", action="store_true", help="continue from the last checkpoint in output-dir")
    _add_overwrite(earlier_run)
    group.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes of the torchvision loader (default: 0)"
    )
    group.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's event files")
    add_recipe_options(parser, recipe, names)


def _add_ablation_options(parser, argv):
    names = ("speedrun",)
    recipe = choose_recipe(argv, names)
    group = _add_run_options(parser, "runs/ablation")
    _add_overwrite(group)
    group.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="runs of each variant, with seeds from --seed on (default: 5)"
    )
    add_recipe_options(parser, recipe, names)


def _add_bench_options(parser, argv):
    group = _add_run_options(parser, "runs/bench")
    names, text = pytorch_bench.NAMES, "presets of speedrun, or classic (default: 94 95 96)"
    group.add_argument("--presets", nargs="+", choices=names, default=["94", "95", "96"], help=text)
    group.add_argument(
        "--seeds", type=int, default=10, metavar="N", help="runs of each, with seeds from 0 (default: 10)"
    )
    text = "training images (default: all for 94, 95 and 96, which holds none out; else as the preset says)"
    group.add_argument("--train-images", type=int, metavar="N", help=text)


def _add_overwrite(group):
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in output-dir")


def _path(name):
    """A path; no shell expands the ~ of --output-dir=~/runs."""
    return Path(name).expanduser()


def _add_run_options(parser, output_dir):
    group = parser.add_argument_group("the run")
    device, folder = best_device(), Path(output_dir)
    group.add_argument("--device", default=device, help=f"cuda, cuda:1, mps or cpu (default: {device})")
    group.add_argument("--data-dir", help="folder that holds CIFAR-10, or will (default: CS231N_DATA_DIR, or data/)")
    text = "train on the drawn stand-in where CIFAR-10 is absent, as the preset tiny does"
    group.add_argument("--stand-in", action="store_true", help=text)
    group.add_argument("--output-dir", type=_path, default=folder, help=f"folder to write to (default: {folder})")
    group.add_argument("--compile", action="store_true", help="train through torch.compile")
    text = "on CUDA, in one process, repeat the training step as a CUDA graph (default: on)"
    group.add_argument("--graph", action=argparse.BooleanOptionalAction, default=True, help=text)
    group.add_argument("--deterministic", action="store_true", help="make repeated runs agree bit for bit")
    return group


@contextmanager
def _recipe_and_device(args):
    """A context with the recipe and the device of args, the group of processes, and determinism if args ask for it."""
    recipe, device = recipe_from(args), usable_device(args.device)
    with processes(device), determinism(args.deterministic, device):
        yield recipe, device


def _train(args):
    """Train, test, and write the settings and the result.  Returns the exit status."""
    with _recipe_and_device(args) as (recipe, device), _claimed_folder(args):
        _train_and_test(recipe, args, device)
    return 0


@contextmanager
def _claimed_folder(args):
    """A context in which no other run writes to the output folder; it has no results, or args allow for them."""

    def claim():
        stack.enter_context(pytorch_files.locked(args.output_dir))
        old = pytorch_files.results(args.output_dir)
        if old and not (args.resume or args.overwrite):
            raise ValueError(
                f"{args.output_dir} has {', '.join(old)} of an earlier run: "
                f"use --resume to continue it, --overwrite to start over, or another --output-dir"
            )
        if args.resume and "result.json" in old and "last.pt" not in old:
            raise ValueError(
                f"{args.output_dir} has the result of a run, but no last.pt to resume it from: "
                f"use --overwrite to start over, or another --output-dir"
            )

    with ExitStack() as stack:
        in_first_process(claim)
        yield


def _train_and_test(recipe, args, device):
    start, folder = time.perf_counter(), args.output_dir
    check_count("workers", args.workers, 0)
    train, val, test = read_splits(args.data_dir, recipe.train_images, device, _allows_stand_in(args))
    training = Training(recipe, train, val, folder, args.compile, args.workers, args.graph)
    if args.resume:
        training.resume()
    if rank() == 0:
        if args.overwrite:
            pytorch_files.remove_results(folder)
        _write_configuration(recipe, args, device)
    report = logger.info if rank() == 0 else logger.debug
    if args.resume and training.epoch == 0:
        report("no epoch to resume from in %s: starting with the first", folder)
    report("%s on %s, %d images, %d of %d epochs done", train.name, device, len(train), training.epoch, recipe.epochs)
    events = pytorch_files.tensorboard(folder, training.epoch) if args.tensorboard and rank() == 0 else nullcontext()
    with events as write:
        training.run(report=write)
    val_acc = training.best_val_acc if val is not None else None
    found = "no image held out" if val is None else f"best validation accuracy {100 * val_acc:.2f} %"
    report("%s; checkpoints in %s", found, folder)
    test_loss, test_acc = training.evaluate(test)
    report("test accuracy on %s: %.2f %%", test.name, 100 * test_acc)
    seconds = {name: getattr(training, name) for name in ("training_seconds", "warm_up_seconds")}
    seconds["run_seconds"] = time.perf_counter() - start
    report("training %.1f s, without validation and the warm-up of %.1f s; the whole run %.1f s", *seconds.values())
    if rank() == 0:
        result = {"data": test.name, "val_acc": val_acc, "test_loss": test_loss, "test_acc": test_acc}
        write_json(folder / "result.json", result | seconds)
        pytorch_files.write_half(folder)
        _draw_curves(folder, training.history, train.name)


def _allows_stand_in(args):
    """Whether a run may use the stand-in: a result on it, at full size, would take long and mean nothing."""
    return args.stand_in or (args.presets == ["tiny"] if args.command == "bench" else args.preset == "tiny")


def _write_configuration(recipe, args, device):
    settings = {setting.name for setting in fields(recipe)} | {"recipe", "command"}
    options = {name: value for name, value in vars(args).items() if name not in settings}
    options |= {"device": str(device), "output_dir": str(args.output_dir), "processes": world_size()}
    configuration = {"recipe": recipe.settings(), "options": options, "versions": pytorch_files.versions(device)}
    write_json(args.output_dir / "configuration.json", configuration)


def _draw_curves(folder, rows, data_name):
    try:
        pytorch_files.draw_curves(folder / "curves.png", rows, data_name)
    except ImportError:
        logger.info("No curves were drawn: matplotlib is not installed.")


def _ablate(args):
    with _recipe_and_device(args) as (recipe, device):
        if world_size() > 1:
            raise ValueError(f"ablate: wanted one process, got {world_size()}")
        pytorch_ablation.ablate(
            recipe,
            args.seeds,
            args.data_dir,
            args.output_dir,
            device,
            args.compile,
            args.overwrite,
            args.graph,
            _allows_stand_in(args),
        )
    logger.info("Wrote the table to %s", args.output_dir / "ablation.csv")
    return 0


def _bench(args):
    recipes, device = pytorch_bench.recipes(args.presets, args.train_images), usable_device(args.device)
    with processes(device), determinism(args.deterministic, device):
        if world_size() > 1:
            raise ValueError(f"bench: wanted one process, got {world_size()}")
        splits = lambda train_images: read_splits(args.data_dir, train_images, device, _allows_stand_in(args))
        settings = {"compiled": args.compile, "graphed": args.graph}
        rows = pytorch_bench.bench(recipes, args.seeds, splits, args.output_dir, **settings)
    logger.info("%s", pytorch_bench.markdown(rows))
    return 0


class Command(NamedTuple):
    """A command of the program.

    description: for --help.  add_options(parser, argv): adds its options to a parser; argv are the words after it.
    run(args): runs it with the parsed options, and returns the exit status.
    """

    description: str
    add_options: Callable
    run: Callable


COMMANDS = {
    "train": Command("Train a residual net on CIFAR-10.", _add_training_options, _train),
    "ablate": Command("Train speedrun with all ideas, and without each in turn.", _add_ablation_options, _ablate),
    "bench": Command("Measure the accuracies and the times of presets.", _add_bench_options, _bench),
    "predict": Command("Classify image files with a trained net.", pytorch_predict.add_options, pytorch_predict.run),
}


if __name__ == "__main__":
    sys.exit(main())
