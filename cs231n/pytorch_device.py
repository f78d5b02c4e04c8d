"""Where a run takes place: one device, or one for each of the processes that torchrun started.

Under torchrun, N processes compute what one process would: each holds the same weights and takes its share of every
batch, and DistributedDataParallel averages their gradients.  That average is the gradient of the whole batch only if
batch norm, too, takes the mean and the variance of the whole batch; `synchronize_batchnorm` sees to it.  With the
statistics of each share alone, the result would depend on the number of processes.
"""

import gc
import os
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported before a group exists: its functions keep the group of their import as a default
from torch import nn

KINDS = "cuda", "mps", "cpu"
TIMEOUT = timedelta(minutes=5)  # for one exchange between processes; torchrun stops them all far earlier if one dies


def best_device():
    """The name of this machine's fastest kind of device."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_device(name):
    """torch.device(name); of several processes on several GPUs, each has its own under the name cuda.

    Raises ValueError unless it is cuda, mps or cpu, and PyTorch can put an array there.
    """
    name = f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name
    if name.partition(":")[0] not in KINDS:
        raise ValueError(f"device: wanted {', '.join(KINDS)}, or one with a number, such as cuda:1; got {name!r}")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: {name} cannot be used here ({reason(error)})") from error
    return torch.device(name)


def reason(error):
    """The first sentence of what an error of PyTorch says, which may go on for a page."""
    return str(error).strip().partition("\n")[0].partition(". ")[0].removesuffix(".")


def device_name(device):
    """What a GPU calls itself; of another device, its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def memory_format(device):
    """Channels last suits a GPU's tensor cores; on a CPU, this net's backward pass in torch 2.13 crashes with it."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def autocast(device, precision):
    """A context in which convolutions and products are in bfloat16; precision auto: on a CUDA device alone."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def wait_for(device):
    """Return when device has done all that was asked of it: a clock read before that shows the asking alone."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def determinism(wanted, device):
    """With wanted, a run gives the same bits on device again; without, cuDNN may choose its fastest algorithms."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not wanted
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


# Many processes


@contextmanager
def processes(device):
    """Within it, the processes that torchrun started, if it did, are joined; device: this one's."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    yield
    gc.collect()  # the run's cycles hold the group; a group that is held keeps threads that can abort Python's exit
    dist.destroy_process_group()  # not after an error: it could wait for a process that is no more


def tells_of_a_lost_process(error):
    """Whether a RuntimeError comes from the exchange with another process, or from the end of a loader's.

    Those of gloo and of a DataLoader have no type of their own.
    """
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "DataLoader worker ("))


def rank():
    """This process's number, from 0; process 0 alone writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_processes(x):
    """x, summed over all processes, without a gradient."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


class _Sum(torch.autograd.Function):
    """y = sum of the x of all processes.  Each y depends on each x, so that dx is the sum of all dy."""

    @staticmethod
    def forward(ctx, x):
        return sum_over_processes(x)

    @staticmethod
    def backward(ctx, dy):
        return sum_over_processes(dy)


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of the whole batch, over all processes; x (N, C, H, W).

    torch.nn.SyncBatchNorm does the same on GPUs alone; this runs, and is tested, on a CPU too.
    """

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        x_full, axes = x.float(), (0, 2, 3)
        count = x.numel() // x.shape[1] * world_size()
        mu = _Sum.apply(x_full.sum(axes)) / count  # (C,)
        centred = x_full - mu[:, None, None]
        var = _Sum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mu, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)  # unbiased, as torch keeps it
            self.num_batches_tracked += 1
        gamma = self.weight * torch.rsqrt(var + self.eps)
        return (centred * gamma[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronize_batchnorm(model):
    """Make each batch norm of model one over all processes; its weights and its statistics stay where they are."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedBatchNorm  # it has the same state, and another forward
