"""The next batch, gathered by a thread while an update is made of this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from caliper.types import Batch


@dataclass(frozen=True, slots=True)
class _Expected:
    """A draw that is under way.

    Attributes:
        b: its size.
        state: of the generator before it.
        generator: the one that it is made with; afterwards in the state that the caller's would be in.
        batch: what it will give.
    """

    b: int
    state: Tensor
    generator: torch.Generator
    batch: Future[Batch]


class Ahead:
    """Makes a draw ahead of time with a copy of the generator, and gives it if that is what is asked for.

    A generator's state tells what is drawn with it. So the batches are those that would be drawn without
    this, and a checkpoint between two of them knows nothing of it.

    Args:
        draw: makes a batch of b transitions with a generator.
        device: of the generators.
    """

    def __init__(self, draw: Callable[[int, torch.Generator], Batch], device: torch.device) -> None:
        self._draw = draw
        self._device = device
        self._thread = ThreadPoolExecutor(1, "next batch")
        self._expected: _Expected | None = None

    def begin(self, b: int, generator: torch.Generator) -> None:
        """Begins to draw b transitions as if with `generator` as it is now."""
        state = generator.get_state()
        twin = torch.Generator(self._device)
        twin.set_state(state)
        self._expected = _Expected(b, state, twin, self._thread.submit(self._draw, b, twin))

    def take(self, b: int, generator: torch.Generator) -> Batch | None:
        """The batch, if it is of b transitions and of the generator's state; else None."""
        expected, self._expected = self._expected, None
        if expected is None or expected.b != b or not torch.equal(expected.state, generator.get_state()):
            return None
        batch = expected.batch.result()
        generator.set_state(expected.generator.get_state())
        return batch

    def forget(self) -> None:
        """Waits for a draw under way, for what it reads is about to change, and drops it."""
        expected, self._expected = self._expected, None
        if expected is not None:
            expected.batch.exception()
