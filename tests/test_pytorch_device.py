"""Devices, and batch norm over many processes; what takes several processes is in the tests of the command line."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn

from cs231n import pytorch_device
from cs231n.pytorch_device import (
    TORCHRUN,
    SynchronizedBatchNorm,
    autocast,
    best_device,
    determinism,
    device_name,
    is_out_of_memory,
    memory_format,
    processes,
    reason,
    synchronize_batchnorm,
    usable_device,
    wait_for,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == best


@pytest.mark.parametrize("name", ["", "nonsense", "meta", "xpu:0"])
def test_another_kind_of_device_than_ours_is_refused(name):
    with pytest.raises(ValueError, match=f"device: wanted cuda, mps, cpu, or one with a number, .*; got {name!r}"):
        usable_device(name)


@pytest.mark.parametrize("name", ["cuda:77", "mps:9", "cpu:x"])
def test_a_device_that_cannot_be_used_is_one_clear_line(name):
    with pytest.raises(ValueError, match=f"device: {name} cannot be used here") as caught:
        usable_device(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("says", "wanted"),
    [
        ("[pair.cc:537] Connection reset. This is typically\ncaused. By", "[pair.cc:537] Connection reset"),
        ("\nCUDA error: invalid device\nKernel errors might come late. So", "CUDA error: invalid device"),
        ("", ""),
    ],
)
def test_the_reason_of_an_error_is_its_first_sentence(says, wanted):
    assert reason(RuntimeError(says)) == wanted


def test_each_process_has_its_own_gpu(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "empty", lambda n, device: seen.append(device))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert usable_device("cuda") == torch.device("cuda", 3)
    assert usable_device("cuda:1") == torch.device("cuda", 1)
    assert usable_device("cpu") == CPU
    assert seen == ["cuda:3", "cuda:1", "cpu"]


def test_channels_last_is_for_cuda_alone():
    assert memory_format(CUDA) == memory_format(CPU) == torch.channels_last
    assert memory_format(torch.device("mps")) == torch.contiguous_format


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_is_bfloat16_on_a_cpu_only_where_asked(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("precision", "enabled"), [("auto", True), ("float32", False), ("bf16", True)])
def test_autocast_is_bfloat16_on_a_gpu_unless_float32_is_asked(monkeypatch, precision, enabled):
    seen = []
    monkeypatch.setattr(torch, "autocast", lambda *args, **settings: seen.append((*args, settings)))
    autocast(CUDA, precision)
    assert seen == [("cuda", torch.bfloat16, {"enabled": enabled, "cache_enabled": False})]


def test_a_clock_waits_for_the_gpu_and_for_no_cpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in (CPU, CUDA, torch.device("mps")):
        wait_for(device)
    assert waited == [CUDA, "mps"]


def test_a_cuda_device_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card of {device}")
    assert device_name(CUDA) == "card of cuda"
    name, _, threads = device_name(CPU).rpartition(", ")
    assert len(name) > 2
    assert threads == f"{torch.get_num_threads()} threads"


def forget_cublas(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that monkeypatch restores it, absent or not
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_holds_inside_and_ends_after(monkeypatch, wanted):
    forget_cublas(monkeypatch)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)

    def fail_within():
        with determinism(wanted, CUDA):
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert torch.backends.cudnn.benchmark != wanted
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_determinism_touches_nothing_of_cuda_on_a_cpu(monkeypatch):
    forget_cublas(monkeypatch)
    with determinism(False, CPU):
        assert not torch.backends.cudnn.benchmark
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


# Many processes


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(CPU):
        assert not dist.is_initialized()
        assert (pytorch_device.rank(), pytorch_device.world_size()) == (0, 1)
        assert pytorch_device.sum_over_processes(torch.tensor(3.0)) == 3


@pytest.mark.parametrize("count", ["1", ""])
def test_a_single_process_on_a_cluster_is_a_plain_one(monkeypatch, count):
    monkeypatch.setenv("WORLD_SIZE", count)
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with processes(CPU):
        assert (pytorch_device.rank(), pytorch_device.world_size()) == (0, 1)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT not set: start .* with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a"}, "but MASTER_PORT not set"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: wanted the number of processes, got '0'; start them with torchrun"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: wanted the number of processes, got 'two'"),
    ],
)
def test_an_environment_that_names_no_other_process_is_one_clear_line(monkeypatch, environment, says):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says), processes(CPU):
        pass


@pytest.mark.parametrize(("device", "backend"), [(CPU, "gloo"), (torch.device("cuda", 1), "nccl")])
def test_processes_speak_nccl_on_gpus_and_gloo_elsewhere(monkeypatch, device, backend):
    said = []
    for name in ("WORLD_SIZE", *TORCHRUN):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: said.append(backend))
    monkeypatch.setattr(pytorch_device.gc, "collect", lambda: said.append("collected"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: said.append("end"))
    monkeypatch.setattr(torch.cuda, "set_device", said.append)
    with processes(device):
        pass
    assert said == [*([device] if device.type == "cuda" else []), backend, "collected", "end"]


def test_memory_that_is_full_is_recognized_on_every_device():
    messages = "[enforce fail] DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory (MPS allocated"
    for error in (torch.OutOfMemoryError("CUDA"), MemoryError(), *map(RuntimeError, messages)):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("a fault"))
    for size in (2**60, (2**40, 2**40)):
        with pytest.raises(RuntimeError) as caught:
            torch.empty(size, dtype=torch.uint8)
        assert is_out_of_memory(caught.value)


def test_a_sum_over_processes_leaves_what_was_summed_alone(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda x: x.mul_(2))
    x = torch.ones(3)
    assert pytorch_device.sum_over_processes(x).tolist() == [2, 2, 2]
    assert x.tolist() == [1, 1, 1]


def test_batch_norm_over_one_process_is_torchs_own():
    x = 3 + 2 * torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(4, momentum=0.3)
    for norm in (ours, theirs):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2, 3, 4]))
            norm.bias.copy_(torch.tensor([4.0, 3, 2, 1]))
    synchronize_batchnorm(nn.Sequential(ours))
    assert type(ours) is SynchronizedBatchNorm
    results = []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = norm(leaf)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out).sin()).sum().backward()
        results.append((out, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values(), norm.eval()(x)))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    assert ours.num_batches_tracked == 1


def test_batch_norm_over_processes_computes_in_float32_and_returns_what_came():
    x = (100 + torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    norm = SynchronizedBatchNorm(2)
    out = norm(x)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float().std(dim=(0, 2, 3)), torch.ones(2), atol=0.05)
    assert torch.allclose(norm.running_mean, 0.1 * x.float().mean(dim=(0, 2, 3)), rtol=1e-4)
