"""Threads shared fairly, and tables of ratios under the report of pytest-benchmark."""

import platform

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from cs231n.pytorch_device import processor

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def same_threads():
    """NumPy's BLAS and torch run on as many threads as each other."""
    with threadpool_limits(THREADS, user_api="blas"):
        yield


def pytest_terminal_summary(terminalreporter, config):
    """For each group: the median time of ours, of torch and of the floor, both ratios, and the peak of our memory.

    Below, the groups that were also measured as a graph and as a formula: their times, and ours beside each.
    """
    groups, peaks = {}, {}
    for benchmark in config._benchmarksession.benchmarks:
        if "peak" in benchmark.extra_info:
            peaks[benchmark.group] = benchmark.extra_info["peak"] / 1e6
        groups.setdefault(benchmark.group, {})[benchmark.params["side"]] = 1e3 * benchmark.stats.median
    libraries = [info for info in threadpool_info() if info["user_api"] == "blas"]
    blas = ", ".join(sorted({f"{info['internal_api']} for {info.get('architecture')}" for info in libraries}))
    write = terminalreporter.write_line
    terminalreporter.section(f"medians in ms, {THREADS} threads, float32")
    write(processor())
    write(f"Python {platform.python_version()}, NumPy {np.__version__} ({blas}), torch {torch.__version__}\n")
    write(f"{'':44}{'ours':>9}{'torch':>9}{'ratio':>8}{'floor':>9}{'ratio':>8}{'peak MB':>9}")
    ratios = []
    for group, ms in groups.items():
        if not {"ours", "torch"} <= ms.keys():
            continue
        ratios.append(ms["ours"] / ms["torch"])
        line = f"{group:44}{ms['ours']:9.2f}{ms['torch']:9.2f}{ratios[-1]:8.2f}"
        line += f"{ms['floor']:9.2f}{ms['ours'] / ms['floor']:8.2f}" if "floor" in ms else " " * 17
        write((line + (f"{peaks[group]:9.0f}" if group in peaks else "")).rstrip())
    if ratios:
        write(f"{'geometric mean':44}{'':18}{np.exp(np.mean(np.log(ratios))):8.2f}")
    walked = {group: ms for group, ms in groups.items() if {"ours", "graph", "formula"} <= ms.keys()}
    if walked:
        write(f"\n{'':44}{'ours':>9}{'graph':>9}{'ratio':>8}{'formula':>9}{'ratio':>8}")
    for group, ms in walked.items():
        line = f"{group:44}{ms['ours']:9.2f}"
        write(line + "".join(f"{ms[side]:9.2f}{ms['ours'] / ms[side]:8.2f}" for side in ("graph", "formula")))
