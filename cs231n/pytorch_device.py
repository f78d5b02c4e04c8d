"""Where a run takes place: on one device, or on one for each of the processes that torchrun started.

Under torchrun, N processes compute what one process would: each has the same weights and takes its share of every
batch, and DistributedDataParallel averages their gradients.  This average is the gradient of the whole batch only if
batch norm, too, uses the mean and the variance of the whole batch, which `synchronize_batchnorm` arranges.  With the
statistics of each share, the result would depend on the number of processes.
"""

import gc
import os
import platform
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported before a group exists: its functions keep the group of their import as a default
from torch import nn

KINDS = "cuda", "mps", "cpu"
TORCHRUN = "RANK", "MASTER_ADDR", "MASTER_PORT"  # what the processes find each other by
TIMEOUT = timedelta(minutes=5)  # of one exchange; if a process dies, torchrun does not wait for it to stop the others


def best_device():
    """The default device's name: cuda if PyTorch finds a CUDA GPU, else mps if it finds Apple's, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def usable_device(name):
    """The torch.device of a name; under torchrun, cuda is the GPU with this process's number, LOCAL_RANK.

    Raises ValueError unless the name is cuda, mps or cpu, perhaps with a number (cuda:1), and PyTorch can allocate a
    tensor there.
    """
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if name.partition(":")[0] not in KINDS:
        raise ValueError(f"device: wanted {', '.join(KINDS)}, or one with a number, such as cuda:1; got {name!r}")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: {name} cannot be used here ({reason(error)})") from error
    return torch.device(name)


def reason(error):
    """The first sentence of an error's message, without its full stop; PyTorch's messages can fill a page."""
    return str(error).strip().partition("\n")[0].partition(". ")[0].removesuffix(".")


def device_name(device):
    """The name of a CUDA device, such as NVIDIA H200, or of a CPU, with its threads; of other devices, the type."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def processor():
    """The processor's name, such as AMD EPYC."""
    with suppress(OSError):  # on Linux, the platform module does not know it
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_format(device):
    """The memory format of images and filters: torch.channels_last, but on mps torch.contiguous_format."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def autocast(device, precision):
    """A context in which convolutions and matrix products compute in bfloat16, if precision asks for it.

    precision: bf16, always; float32, never; auto, on CUDA only.  Weights are converted at each use: a CUDA graph could
    not repeat a conversion that was made before it.
    """
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def wait_for(device):
    """Return when device has finished all work queued on it, so that a clock read afterwards includes that work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def determinism(wanted, device):
    """A context that makes a repeated run agree bit for bit, if wanted; on a GPU this has not been measured.

    wanted: True, PyTorch uses deterministic algorithms only, and raises RuntimeError for an operation that has none;
    False, cuDNN may time its algorithms on a CUDA device and choose among them.  On exit the old settings are restored;
    the environment variable CUBLAS_WORKSPACE_CONFIG, which deterministic cuBLAS needs, stays set.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not wanted
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS needs it
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


# Several processes


@contextmanager
def processes(device):
    """A context in which the processes that torchrun started, if it did, form a group; device: that of this process.

    They communicate through NCCL on CUDA and Gloo elsewhere; one exchange may take at most TIMEOUT.  A single process,
    with WORLD_SIZE absent or 1, needs no group.  Raises ValueError where the other variables of torchrun are absent.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"WORLD_SIZE: wanted the number of processes, got {count!r}; start them with torchrun")
    if int(count) == 1:
        yield
        return
    if missing := [name for name in TORCHRUN if not os.environ.get(name)]:
        raise ValueError(
            f"WORLD_SIZE is {count}, but {', '.join(missing)} not set: start the processes with torchrun, or, for "
            f"a single one, unset WORLD_SIZE"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    yield
    gc.collect()  # the run's cycles hold the group; a group that is held keeps threads that can abort Python's exit
    dist.destroy_process_group()  # not after an error: it could wait for a process that has ended


def tells_of_a_lost_process(error):
    """Whether a RuntimeError means that another process of the run, or a worker of its DataLoader, has failed.

    Errors of Gloo and of a DataLoader have no type of their own, and are recognized by their messages.
    """
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "DataLoader worker ("))


def is_out_of_memory(error):
    """Whether an error means that the memory of a GPU or of the machine is full.

    Those of a CPU and of Apple's GPUs have no type of their own, and are recognized by their messages.
    """
    words = "DefaultCPUAllocator", "MPS backend out of memory", "Storage size calculation overflowed"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def in_first_process(act):
    """Call act() in process 0 alone.  Where it raises an OSError or a ValueError, the others raise SystemExit(1)."""
    error = None
    if rank() == 0:
        try:
            act()
        except (OSError, ValueError) as raised:
            error = raised
    failed = [error is not None]
    if world_size() > 1:
        dist.broadcast_object_list(failed)
    if error is not None:
        raise error
    if failed[0]:
        raise SystemExit(1)


def rank():
    """The number of this process, from 0; only process 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    """The number of processes, 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_processes(x):
    """The sum of x over all processes, in the shape and dtype of x, without a gradient; x itself is not changed."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


class _Sum(torch.autograd.Function):
    """y = the sum of x over all processes, in each of them.  Each y depends on each x, so dx is the sum of all dy."""

    @staticmethod
    def forward(ctx, x):
        return sum_over_processes(x)

    @staticmethod
    def backward(ctx, dy):
        return sum_over_processes(dy)


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Batch norm with the mean and the variance of the whole batch, over all processes.

    torch.nn.SyncBatchNorm does the same, but needs a GPU; this class runs, and is tested, on a CPU too.
    Source: Ioffe and Szegedy, Batch normalization, ICML 2015, algorithm 1.
    """

    def forward(self, x):
        """out = gamma (x - mu) / sqrt(var + eps) + beta, for each channel of x (N, C, H, W), of any float dtype.

        In training, mu and var are those of the n values of a channel in all processes, computed in float32, and the
        running statistics are updated in place: running <- (1 - momentum) running + momentum batch, where the batch's
        variance is the unbiased one, var n / (n - 1).  In evaluation mode, mu and var are the running statistics.
        Returns out (N, C, H, W), in training in the dtype of x.  Every process must have as many values.
        """
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
    """Turn each nn.BatchNorm2d of model, in place, into a `SynchronizedBatchNorm` with the same state."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedBatchNorm  # the same state, with another forward
