"""What the benchmarks share: timing in turns, memory, growth."""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np
import torch
from rich.progress import track
from torch.utils._python_dispatch import TorchDispatchMode


def milliseconds(function, device):
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def in_turns(functions, rounds, device, description, console):
    """The milliseconds of every function in every round, by name.

    Each round runs every function once, so that a noisy machine disturbs all of them alike.
    """
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in track(range(rounds), description=description, console=console, transient=True):
        for name, function in functions.items():
            times[name].append(milliseconds(function, device))
    return times


def summary(values):
    """Median and the middle half."""
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return dict(median=middle, low=low, high=high)


def ratios(times, name, reference):
    """Median and middle half of the ratio of two functions' times, round by round."""
    return summary([a / b for a, b in zip(times[name], times[reference])])


def peak_mib(function, device):
    """The most MiB that the call takes from torch's allocator at a time, beyond what was held before it."""
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
        function()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == '[memory]']
    # torch 2.1 has the time in microseconds only
    events.sort(key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us())
    held = itertools.accumulate(event.nbytes() for event in events)
    return max(held) / 2**20


class _Operations(TorchDispatchMode):
    """Counts the operations that write numbers: each starts a kernel or more on a GPU. Views and allocations do not."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = [value.alias_info for value in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        if 'aten::addbmm' in func._schema.name:  # torch's starts a product for each sample
            self.count += len(args[1])
        else:
            self.count += not is_view and not func._schema.name.startswith(('aten::empty', 'aten::new_empty'))
        return func(*args, **(kwargs or {}))


def operations(function):
    """How many operations a call starts. On a GPU that many have to be launched, which takes longer than small ones."""
    with _Operations() as mode:
        function()
    return mode.count


def hot_spots(function, rows=6):
    """The operators with the largest share of one call's time on the CPU."""
    function()
    with torch.profiler.profile() as trace:
        function()
    events = sorted(trace.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        dict(op=event.key.removeprefix('aten::'), share=event.self_cpu_time_total / total, calls=event.count)
        for event in events[:rows]
    ]


def exponent(sizes, times):
    """The p of times ~ sizes^p, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
