"""torch.compile itself, on a CPU: what it trains is what training without it does.

The runs have the same net and the same batches, so that only the first of them waits for the C++ compiler.
"""

import json
import os
from dataclasses import replace

import pytest
import torch
from test_pytorch_cifar10 import use_small_data
from test_pytorch_data import bytes_and_labels
from test_pytorch_step import by_step
from torch.nn import functional as F

from cs231n.files import read_csv
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_data import Images, normalized
from cs231n.pytorch_recipes import Classic, Speedrun
from cs231n.pytorch_training import Training

TINY = Speedrun(epochs=2, batch_size=16, widths=(4,), train_images=48, precision="bf16")

pytestmark = [
    pytest.mark.usefixtures("fast_disk", "one_torch_thread"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),  # torch's own
]


@pytest.fixture
def cxx_compiler():
    """What torch.compile needs on a CPU.  Without one a test is skipped, and says so; where CI is set, it fails."""
    from torch._inductor import cpp_builder, exc  # here: a second of start-up for each process that collects the tests

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("torch.compile needs a C++ compiler: g++ or clang++")


def loss_and_gradients(net, model, x, y, bfloat16):
    """The loss on x and y, and the gradients of model's weights; net: model, or a compiled version of it."""
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = F.cross_entropy(net(x), y)
    return loss.item(), dict(zip(weights, torch.autograd.grad(loss, weights.values()), strict=True))


def test_under_bfloat16_a_compiled_nets_gradients_are_as_near_to_float32s_as_without_compiling(cxx_compiler, tmp_path):
    images = Images(*bytes_and_labels(48), "cpu")
    training = Training(TINY, images, images, tmp_path, compiled=True)
    model, batch = training.model, (normalized(images.x[:16], images.statistics), images.y[:16])
    loss, exact = loss_and_gradients(model, model, *batch, bfloat16=False)
    eager_loss, eager = loss_and_gradients(model, model, *batch, bfloat16=True)
    compiled_loss, compiled = loss_and_gradients(training.step.net, model, *batch, bfloat16=True)
    assert compiled_loss == pytest.approx(eager_loss, rel=1e-2) == pytest.approx(loss, rel=1e-2)
    for name, wanted in exact.items():
        size, error = wanted.norm(), (eager[name] - wanted).norm()
        assert (compiled[name] - wanted).norm() < 2 * error + 0.01 * size < 0.2 * size, name


@pytest.mark.parametrize("recipe", [TINY, replace(TINY, batch_size=32, hardest=0.5)], ids=["all", "the hardest half"])
def test_each_step_of_a_compiled_net_is_the_step_without_compiling_up_to_bfloat16s_rounding(
    cxx_compiler, tmp_path, recipe
):
    images = Images(*bytes_and_labels(48), "cpu")
    runs = [by_step(Training(recipe, images, None, tmp_path, compiled)) for compiled in (False, True)]
    losses = [[loss for loss, _ in run] for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_the_tiny_preset_trains_compiled_under_bfloat16_as_it_does_without(cxx_compiler, tmp_path, monkeypatch):
    use_small_data(monkeypatch.setattr)
    argv = ["--recipe=speedrun", "--preset=tiny", "--widths=4", "--batch-size=16", "--train-images=48"]
    losses = []
    for folder, options in ((tmp_path / "eager", []), (tmp_path / "compiled", ["--compile"])):
        assert main([*argv, *options, "--precision=bf16", "--device=cpu", "--output-dir", str(folder)]) == 0
        losses.append([float(row["train_loss"]) for row in read_csv(folder / "log.csv")])
    assert json.loads((folder / "configuration.json").read_text())["options"]["compile"]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_compiler_that_is_missing_is_one_clear_line(tmp_path):
    from torch._inductor import config  # here, as above

    images = Images(*bytes_and_labels(16), "cpu")
    recipe = Classic(epochs=1, batch_size=16, widths=(2,), blocks=1)
    training = Training(recipe, images, images, tmp_path, compiled=True)
    absent = config.patch({"cpp.cxx": ("absent-c++",), "force_disable_caches": True})
    with absent, pytest.raises(ValueError, match=r"^compile: torch.compile fails here \(.*absent-c\+\+.*\)$"):
        training.run(verbose=False)
