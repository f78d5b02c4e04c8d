"""The training step on buffers: the same as one written out, and with nothing that a CUDA graph cannot repeat."""

import contextlib
from dataclasses import replace

import pytest
import torch
from test_pytorch_data import bytes_and_labels
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cs231n.pytorch_data import Images
from cs231n.pytorch_recipes import Classic, Speedrun
from cs231n.pytorch_step import Buffered, Evaluation, Step
from cs231n.pytorch_training import Training

RECIPES = {
    "classic": Classic(epochs=2, batch_size=16, widths=(4, 8), blocks=1, lr=1e-2, label_smoothing=0.1),
    "speedrun": Speedrun(epochs=2, batch_size=16, widths=(4, 8), lr=0.1, averaging="none", whitening_bias=0.5),
}
RECIPES["hardest half"] = replace(RECIPES["speedrun"], hardest=0.5)
EACH = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
CPU = torch.device("cpu")
READ_BACK = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"}  # operations

pytestmark = pytest.mark.usefixtures("fast_disk", "one_torch_thread")


def training_of(recipe, folder, device="cpu", **settings):
    images = Images(*bytes_and_labels(64), device)
    return Training(recipe, images, None, folder, **settings)


def written_out(training):
    """The losses and the weights after each step, of training's recipe by the usual five lines, without its `Step`."""
    recipe, model, proxy = training.recipe, training.model, training.proxy and training.proxy.model
    nets = [model, proxy] if proxy else [model]
    optimizers = {net: recipe.optimizers(net, training.device) for net in nets}
    groups = [group for net in nets for optimizer in optimizers[net] for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    step, steps = 0, recipe.epochs * training.batches.steps
    for epoch in range(recipe.epochs):
        recipe.freeze(model, epoch)
        for x, y in training.batches.epoch(epoch, recipe.side(epoch)):
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * recipe.rate((step + 0.5) / steps)
            if proxy:
                losses = F.cross_entropy(proxy(x), y, label_smoothing=recipe.label_smoothing, reduction="none")
                hardest = losses.argsort(descending=True)[:8]  # of 16
                x, y = x[hardest], y[hardest]
            for net in nets if step % 4 == 0 else [model]:
                loss = F.cross_entropy(net(x), y, label_smoothing=recipe.label_smoothing)
                net.zero_grad()
                loss.backward()
                for optimizer in optimizers[net]:
                    optimizer.step()
                if net is model:
                    found = loss.item()
            step += 1
            yield found, model.state_dict()


def by_step(training):
    """The same from training's own steps, warmed up."""
    training._warm_up()
    for epoch in range(training.recipe.epochs):
        training._start_epoch(epoch)
        for x, y in training.batches.epoch(epoch, training.recipe.side(epoch)):
            training.step.reset()
            training._step(x, y)
            yield training.step.loss.item(), training.model.state_dict()


def assert_same_steps(ours, theirs, tolerance):
    count = 0
    for (loss, weights), (other_loss, other_weights) in zip(ours, theirs, strict=True):
        assert loss == pytest.approx(other_loss, rel=tolerance)
        for name, w in weights.items():
            if w.is_floating_point():
                assert (w - other_weights[name]).norm() <= tolerance * (1 + w.norm()), name
        count += 1
    assert count == 8


@EACH
def test_each_step_on_the_buffers_is_the_step_written_out(recipe, tmp_path):
    recipe = replace(recipe, sides=(24, 32))
    assert_same_steps(*(f(training_of(recipe, tmp_path)) for f in (by_step, written_out)), tolerance=1e-4)


def test_the_sums_are_those_of_the_steps_since_the_reset():
    weights = torch.zeros(3, 2, requires_grad=True)
    step = Step(lambda x: x.mean(dim=(2, 3)) @ weights, [torch.optim.SGD([weights], lr=0.0)], CPU, "float32", 0.0)
    x, y = torch.ones(4, 3, 2, 2), torch.tensor([0, 0, 0, 1])
    for _ in range(2):
        step.reset()
        for _ in range(3):
            step(x, y)
    assert step.loss.item() == pytest.approx(3 * 0.693147)
    assert step.correct.item() == 9


def test_a_kind_of_batch_is_prepared_once(tmp_path):
    training, taken = training_of(RECIPES["speedrun"], tmp_path), []
    training.optimizers[0].register_step_pre_hook(lambda *_: taken.append(1))
    x, y = next(training.batches.epoch(0))
    for _ in range(2):
        training.step.prepare(x, y, 2)
        training.step.prepare(x[:, :, :24, :24], y, 3)
    assert len(taken) == 5
    training.model.first.bias.requires_grad_(False)
    training.step.prepare(x, y, 2)
    assert len(taken) == 7


class Operations(TorchDispatchMode):
    """Keeps the names of the operations that run in its context."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@EACH
def test_a_step_reads_nothing_back_from_the_device(recipe, tmp_path):
    training = training_of(recipe, tmp_path)
    x, y = next(training.batches.epoch(0))
    training.step.prepare(x, y, 1)
    with Operations() as seen:
        training.step(x, y)
    assert {"convolution", "convolution_backward"} <= seen.names
    assert not seen.names & READ_BACK
    with Operations() as seen:
        training.step.loss.item()
    assert seen.names == {"_local_scalar_dense"}


class RecordedGraph:
    """Stands in for a CUDA graph where there is no GPU: what is recorded runs at each replay."""

    replays = 0

    def replay(self):
        type(self).replays += 1
        self.run()


@pytest.fixture
def recorded_graphs(monkeypatch):
    """CUDA graphs by `RecordedGraph`; recording calls nothing."""
    run = Buffered._run

    @contextlib.contextmanager
    def record(graph):
        with monkeypatch.context() as patch:
            patch.setattr(Buffered, "_run", lambda self, buffers: setattr(graph, "run", lambda: run(self, buffers)))
            yield

    class Stream:
        def __init__(self, device=None):
            pass

        wait_stream = __init__

    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)


@EACH
def test_replayed_steps_are_eager_ones(recipe, tmp_path, recorded_graphs):
    recipe, before = replace(recipe, sides=(24, 32)), RecordedGraph.replays
    graphed = training_of(recipe, tmp_path)
    for net in (graphed, graphed.proxy) if graphed.proxy else (graphed,):
        net.step._buffered.graphed = True
    assert_same_steps(by_step(graphed), by_step(training_of(recipe, tmp_path)), tolerance=0)
    assert RecordedGraph.replays - before == (10 if graphed.proxy else 8)  # the proxy learns in steps 0 and 4


VIEWS = {"test_flip": True, "test_shifts": True, "unsure": 0.5}


def evaluations(training, batch_size, **settings):
    """The evaluation of training's model, and then with other weights."""
    evaluation = Evaluation(training.model, training.device, VIEWS, "float32", **settings)
    yield evaluation(training.train_images, batch_size)
    with torch.no_grad():
        for w in training.model.parameters():
            w.mul_(1.1)
    yield evaluation(training.train_images, batch_size)


def test_replayed_evaluations_are_eager_ones_also_of_images_that_are_left_over(tmp_path, recorded_graphs):
    eager, graphed = (training_of(RECIPES["speedrun"], tmp_path) for _ in range(2))
    before = RecordedGraph.replays
    found = list(evaluations(graphed, 24, graphed=True))
    assert found == list(evaluations(eager, 24))
    assert found[0] != found[1]
    assert RecordedGraph.replays - before == 4  # 64 images: twice two full batches


def test_an_evaluation_reads_nothing_back_before_its_end(tmp_path):
    training = training_of(RECIPES["speedrun"], tmp_path)
    evaluation = Evaluation(training.model.eval(), CPU, VIEWS)
    x, y = next(training.batches.epoch(0))
    with Operations() as seen, torch.no_grad():
        evaluation._measure(x, y)
    assert {"convolution", "topk"} <= seen.names
    assert not seen.names & READ_BACK


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_graphed_evaluations_are_eager_ones(tmp_path):
    runs = [evaluations(training_of(RECIPES["speedrun"], tmp_path, "cuda"), 24, graphed=g) for g in (False, True)]
    for eager, graphed in zip(*runs, strict=True):
        assert graphed == pytest.approx(eager, rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@EACH
def test_on_a_gpu_graphed_steps_are_eager_ones(recipe, compiled, tmp_path):
    recipe = replace(recipe, sides=(24, 32), precision="float32")
    runs = [{"graphed": False}, {"graphed": True, "compiled": compiled}]
    assert_same_steps(*(by_step(training_of(recipe, tmp_path, "cuda", **run)) for run in runs), tolerance=1e-3)
