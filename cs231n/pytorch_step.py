"""A training step on tensors that stay where they are, so that a CUDA graph can repeat it.

A step of a small net is hundreds of operations, and starting each of them takes the CPU longer than it takes the GPU to
compute it.  A CUDA graph records them once and then starts all of them together, but always on the same memory.  So the
step copies its batch into buffers, reads the learning rates from tensors, and adds up the loss in a tensor.  Without a
graph it does the same, operation by operation.
"""

import torch
from torch.nn import functional as F

from cs231n.pytorch_device import autocast


class Step:
    """Update the weights by the gradient on a batch: forward, backward, and a step of each optimizer.

    net: maps x to scores.  optimizers: with learning rates in tensors (`keep_rates_on`), where it is graphed.
    precision: as for `autocast`.  label_smoothing: as for the recipe.  graphed: repeat the step as a CUDA graph, which
    `prepare` must have recorded for this kind of batch.

    loss, correct: tensors (), the sum of the mean losses and of the correct answers since `reset`.
    """

    def __init__(self, net, optimizers, device, precision, label_smoothing, graphed=False):
        self.net, self.optimizers, self.device = net, optimizers, device
        self.precision, self.label_smoothing, self.graphed = precision, label_smoothing, graphed
        self.loss, self.correct = torch.zeros((), device=device), torch.zeros((), device=device)
        self._prepared = {}  # kind -> buffers for x and y, and the graph or None

    def __call__(self, x, y):
        """Update the weights by the gradient on x (n, 3, H, W), float32, and y (n,), int64."""
        buffers, graph = self._prepared.get(self._kind(x)) or self.prepare(x, y, 0)
        for buffer, values in zip(buffers, (x, y), strict=True):
            buffer.copy_(values)
        if graph:
            graph.replay()
        else:
            self._update(*buffers)

    def prepare(self, x, y, times):
        """Take a number of steps on x and y, and record a further one if it is graphed.  Nothing happens a second time.

        The recording changes nothing.  Batches of another shape, or other weights that are trained, need their own.
        """
        kind = self._kind(x)
        if kind not in self._prepared:
            buffers = x.clone(), y.clone()
            if self.graphed:
                graph = self._captured(buffers, times)
            else:
                graph = None
                for _ in range(times):
                    self._update(*buffers)
            self._prepared[kind] = buffers, graph
        return self._prepared[kind]

    def reset(self):
        """Set the sums to 0."""
        self.loss.zero_()
        self.correct.zero_()

    def _kind(self, x):
        weights = (w for optimizer in self.optimizers for group in optimizer.param_groups for w in group["params"])
        return x.shape, *(w.requires_grad for w in weights)

    def _captured(self, buffers, times):
        """A CUDA graph of a step on buffers, after a number of steps, as cuDNN and the optimizers need before it."""
        current, other = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        other.wait_stream(current)
        with torch.cuda.stream(other):
            for _ in range(times):
                self._update(*buffers)
        current.wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        for optimizer in self.optimizers:
            optimizer.zero_grad()  # the gradients of the graph get memory of its own
        with torch.cuda.graph(graph):
            self._update(*buffers)
        return graph

    def _update(self, x, y):
        with autocast(self.device, self.precision):
            scores = self.net(x)
            loss = F.cross_entropy(scores, y, label_smoothing=self.label_smoothing)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.loss += loss.detach()
        self.correct += (scores.detach().argmax(dim=1) == y).sum()
