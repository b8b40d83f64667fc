"""Device work that is recorded once and then replayed: one launch instead of thousands of kernels from Python.

Everything runs on torch's current stream, so that torch and Warp never wait for each other. Physics is recorded
by Warp, on a CPU too; its solver loops on the device, which torch's recorder does not know. What torch queues,
with or without Warp's kernels between, is recorded by torch, on CUDA only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
import warp as wp
from torch import Tensor


@cache
def _stream(handle: int, device: str) -> wp.Stream:
    # Warp knows a recording by the stream's object, so there must be one object for each of torch's streams.
    return wp.Stream(device, cuda_stream=handle)


def stream(device: wp.Device) -> wp.Stream | None:
    """torch's current stream on a device, as Warp's; None on a CPU."""
    if not device.is_cuda:
        return None
    return _stream(torch.cuda.current_stream(wp.device_to_torch(device)).cuda_stream, device.alias)


def scope(device: wp.Device) -> AbstractContextManager[Any]:
    """Where Warp allocates and launches on a device, on torch's current stream there."""
    current = stream(device)
    # Waiting for Warp's own stream would end a recording; nothing of ours ever runs there.
    return wp.ScopedDevice(device) if current is None else wp.ScopedStream(current, sync_enter=False)


class WarpGraph:
    """Warp launches, always the same on the same memory. The first call runs and loads them, the second records."""

    def __init__(self, function: Callable[[], None], device: wp.Device) -> None:
        """Args: what to launch; the device."""
        self._function, self._device = function, device
        self._loaded, self._graph = False, None

    def __call__(self) -> None:
        """Queues the launches."""
        if not self._loaded:
            with scope(self._device):
                self._function()
            self._loaded = True
            return
        if self._graph is None:
            self._graph = self._record()
        with scope(self._device):
            wp.capture_launch(self._graph, stream=stream(self._device))

    def _record(self) -> Any:
        if not self._device.is_cuda:
            with wp.ScopedCapture(self._device) as capture:
                self._function()
            return capture.graph
        # The default stream cannot be recorded.
        with torch.cuda.stream(torch.cuda.Stream(wp.device_to_torch(self._device))), scope(self._device):
            with wp.ScopedCapture(stream=stream(self._device), force_module_load=False) as capture:
                self._function()
        return capture.graph


class TorchGraph:
    """torch operations, and Warp's, on memory that stays in place; returns tensors that no later call changes.

    On a CPU it is a plain call.
    """

    def __init__(self, function: Callable[[], tuple[Tensor, ...]], device: torch.device) -> None:
        """Args: the work, without a wait for the device; the device."""
        self._function, self._device = function, device
        self._loaded, self._graph = False, None
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self) -> tuple[Tensor, ...]:
        """Queues the work and copies of its results."""
        if self._device.type != "cuda":
            return self._function()
        warp_device = wp.device_from_torch(self._device)
        if not self._loaded:
            self._loaded = True
            with scope(warp_device):
                return self._function()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"), scope(warp_device):
                with wp.ScopedCapture(stream=stream(warp_device), external=True) as self._recording:
                    self._outputs = self._function()
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)
