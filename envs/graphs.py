"""Device work recorded once and replayed: one launch in place of thousands of kernels from Python.

Everything runs on torch's current stream, so that torch and Warp never wait for each other. Physics is
recorded by Warp, on a CPU too: its solver loops on the device, which torch's recorder does not know. What
torch queues, with or without Warp's kernels between, is recorded by torch, on CUDA only.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch
import warp as wp
from torch import Tensor


def warp_device(device: torch.device) -> wp.Device:
    """Torch's device as Warp's; 'cuda' without a number is the current one, as torch has it."""
    if device.type == "cuda":  # Warp's own conversion knows devices with a number only
        index = torch.cuda.current_device() if device.index is None else device.index
        device = torch.device("cuda", index)
    return wp.device_from_torch(device)


@cache
def _stream(handle: int, device: str) -> wp.Stream:
    # Warp knows a recording by the stream's object, so there must be one object for each of torch's streams.
    return wp.Stream(device, cuda_stream=handle)


def stream(device: wp.Device) -> wp.Stream | None:
    """Torch's current stream on a device, as Warp's; None on a CPU."""
    if not device.is_cuda:
        return None
    return _stream(torch.cuda.current_stream(wp.device_to_torch(device)).cuda_stream, device.alias)


def scope(device: wp.Device) -> AbstractContextManager[Any]:
    """Where Warp allocates and launches on a device, on torch's current stream there."""
    current = stream(device)
    # Waiting for Warp's own stream would end a recording; nothing of ours ever runs there.
    return wp.ScopedDevice(device) if current is None else wp.ScopedStream(current, sync_enter=False)


@contextmanager
def uncollected() -> Iterator[None]:
    """Where Python's garbage collector has to wait, in every thread.

    What it would free in a recording (an earlier graph, an array) would become part of it, or end it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class WarpGraph:
    """Warp launches that are always the same, on the same memory.

    The first call runs them, which loads the kernels; the second records them. What launches is given at each
    call: known to the graph, which it mostly owns, it would hold both until the next garbage collection.
    """

    def __init__(self, device: wp.Device) -> None:
        """Args: the device."""
        self._device = device
        self._loaded = False
        self._graph: Any = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Queues what `work` launches."""
        if not self._loaded:
            with scope(self._device):
                work()
            self._loaded = True
            return
        if self._graph is None:
            self._graph = self._record(work)
        # Outside any scope: that would change Warp's default device, which threads share.
        wp.capture_launch(self._graph, stream=stream(self._device))

    @property
    def recorded(self) -> bool:
        """Whether a call replays, in which Python has no part."""
        return self._graph is not None

    def _record(self, work: Callable[[], None]) -> Any:
        if not self._device.is_cuda:
            recording = wp.ScopedCapture(self._device)
            # MuJoCo Warp launches on Warp's default device, which is the GPU where there is one.
            with scope(self._device), uncollected(), recording:
                work()
            return recording.graph
        # The default stream cannot be recorded.
        side = torch.cuda.Stream(wp.device_to_torch(self._device))  # type: ignore[no-untyped-call]  # torch's
        with torch.cuda.stream(side), scope(self._device):
            recording = wp.ScopedCapture(stream=stream(self._device), force_module_load=False)
            with uncollected(), recording:
                work()
        return recording.graph


class TorchGraph:
    """torch operations, and Warp's, always the same on the same memory; on a CPU a plain call.

    The work must not wait for the device, and is given at each call (see `WarpGraph`). What it returns is
    copied: no later call changes it.
    """

    def __init__(self, device: torch.device) -> None:
        """Args: the device."""
        self._device = device
        self._loaded = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, work: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Queues the work and the copies."""
        return tuple(output.clone() for output in self._queue(work))

    def _queue(self, work: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if self._device.type != "cuda":
            return work()
        device = warp_device(self._device)
        if not self._loaded:
            with scope(device):
                outputs = work()
            self._loaded = True
            return outputs
        if self._graph is None:
            self._graph = self._record(device, work)
        self._graph.replay()
        return self._outputs

    def _record(self, device: wp.Device, work: Callable[[], tuple[Tensor, ...]]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with (
            uncollected(),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
            scope(device),
        ):
            recording = wp.ScopedCapture(stream=stream(device), external=True)
            with recording:
                self._outputs = work()
        self._kernels = recording.graph  # keeps the loaded modules
        return graph  # to be kept only now: what failed to be recorded would hide why at the next call
