"""Training steps and evaluations on tensors that stay where they are, so that CUDA graphs can repeat them.

A step of a small net is hundreds of operations, and starting each of them takes the CPU longer than it takes the GPU to
compute it.  A CUDA graph records them once and then starts all of them together, but always on the same memory.  So the
step copies its batch into buffers, reads the learning rates from tensors, and adds up the loss in a tensor.  Without a
graph it does the same, operation by operation.
"""

import torch
from torch.nn import functional as F

from cs231n.pytorch_device import autocast, sum_over_processes
from cs231n.pytorch_resnet import scores_of

WARM_UP = 3  # calls before a CUDA graph is recorded: cuDNN may choose its algorithms in them


class Buffered:
    """A function of tensors that finds them in buffers, so that a CUDA graph can repeat it.

    There are buffers for each kind of input.  function(*inputs): its results go into tensors that stay where they are;
    it reads nothing back from the device.  graphed: repeat it as a CUDA graph, which `prepare` must have recorded for
    this kind of input.  reset(): called before a graph is recorded.
    """

    def __init__(self, function, device, graphed=False, reset=None):
        self.function, self.device, self.graphed, self.reset = function, device, graphed, reset
        self._prepared = {}  # kind -> buffers, and the graph or None

    def __call__(self, *inputs, kind=()):
        """Call the function on inputs.  kind: what, beside their shapes, a graph depends on."""
        buffers, graph = self.prepare(inputs, 0, kind)
        for buffer, values in zip(buffers, inputs, strict=True):
            buffer.copy_(values)
        if graph:
            graph.replay()
        else:
            self._run(buffers)

    def prepare(self, inputs, times, kind=()):
        """Call the function a number of times on inputs, and record a further call if it is graphed.

        Nothing happens a second time.  The recording changes nothing.  Returns the buffers, and the graph or None.
        """
        key = *(x.shape for x in inputs), *kind
        if key not in self._prepared:
            buffers = [x.clone() for x in inputs]
            self._prepared[key] = buffers, self._warmed_up(buffers, times)
        return self._prepared[key]

    def _warmed_up(self, buffers, times):
        """Call the function a number of times; returns a CUDA graph of it, or None."""
        if not self.graphed:
            for _ in range(times):
                self._run(buffers)
            return None
        current, other = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        other.wait_stream(current)
        with torch.cuda.stream(other):  # cuDNN and the optimizers need calls before the recorded one
            for _ in range(times):
                self._run(buffers)
        current.wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        if self.reset:
            self.reset()
        with torch.cuda.graph(graph):
            self._run(buffers)
        return graph

    def _run(self, buffers):
        self.function(*buffers)


class Step:
    """Update the weights by the gradient on a batch: forward, backward, and a step of each optimizer.

    net: maps x to scores.  optimizers: with learning rates in tensors (`keep_rates_on`), where it is graphed.
    precision: as for `autocast`.  label_smoothing: as for the recipe.  graphed: as for `Buffered`.  choose(x, y): the
    images of a batch to learn from, and their labels (None: all).

    loss, correct: tensors (), the sum of the mean losses and of the correct answers since `reset`.
    """

    def __init__(self, net, optimizers, device, precision, label_smoothing, graphed=False, choose=None):
        self.net, self.optimizers, self.device = net, optimizers, device
        self.precision, self.label_smoothing, self.choose = precision, label_smoothing, choose
        self.loss, self.correct = torch.zeros((), device=device), torch.zeros((), device=device)
        self._buffered = Buffered(self._update, device, graphed, self._forget_gradients)

    def __call__(self, x, y):
        """Update the weights by the gradient on x (n, 3, H, W), float32, and y (n,), int64."""
        self._buffered(x, y, kind=self._trained())

    def prepare(self, x, y, times):
        """Take a number of steps on x and y, and record a further one if it is graphed; as `Buffered.prepare`.

        Batches of another shape, or other weights that are trained, need their own.
        """
        self._buffered.prepare((x, y), times, self._trained())

    def reset(self):
        """Set the sums to 0."""
        self.loss.zero_()
        self.correct.zero_()

    def _trained(self):
        weights = (w for optimizer in self.optimizers for group in optimizer.param_groups for w in group["params"])
        return [w.requires_grad for w in weights]

    def _forget_gradients(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()  # those of a graph get memory of its own

    def _update(self, x, y):
        if self.choose:
            x, y = self.choose(x, y)
        with autocast(self.device, self.precision):
            scores = self.net(x)
            loss = F.cross_entropy(scores, y, label_smoothing=self.label_smoothing)
        self._forget_gradients()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.loss += loss.detach()
        self.correct += (scores.detach().argmax(dim=1) == y).sum()


class Evaluation:
    """Measures model on images, in large batches.

    views: keyword arguments of `scores_of`.  precision: as for `autocast`.  graphed: repeat a full batch as a CUDA
    graph, which is recorded at the first one; images left over are evaluated without it.
    """

    def __init__(self, model, device, views=None, precision="auto", graphed=False):
        self.model, self.device, self.views, self.precision = model, device, views or {}, precision
        self._sums = torch.zeros(2, device=device)
        self._buffered = Buffered(self._measure, device, graphed)

    @torch.inference_mode()
    def __call__(self, images, batch_size=None):
        """The mean cross-entropy loss of the model over images, and the fraction whose highest score is correct.

        Returns two floats, the loss in nats and the accuracy from 0 to 1.  images: `Images`, divided among the
        processes.  batch_size: images at a time, in each process (None: 250 on a CPU, 2,500 elsewhere).  The model is
        left in evaluation mode.
        """
        self.model.eval()
        batch_size = batch_size or (250 if self.device.type == "cpu" else 2500)
        totals = torch.zeros_like(self._sums)
        for x, y in images.batches(batch_size):
            if len(x) == batch_size:
                self._buffered.prepare((x, y), WARM_UP if self._buffered.graphed else 0)
                self._buffered(x, y)
            else:
                self._measure(x, y)
            totals += self._sums
        loss, correct = sum_over_processes(totals).tolist()
        return loss / len(images), correct / len(images)

    def _measure(self, x, y):
        """Write the sum of the losses on x and y, and the number of correct answers."""
        with autocast(self.device, self.precision):
            scores = scores_of(self.model, x, **self.views).float()
        loss, correct = F.cross_entropy(scores, y, reduction="sum"), (scores.argmax(dim=1) == y).sum()
        self._sums.copy_(torch.stack([loss, correct]))
