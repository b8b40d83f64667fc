"""Batches of recorded and fresh transitions in a fixed proportion."""

from __future__ import annotations

import torch

from caliper.data.buffer import ReplayBuffer
from caliper.errors import CaliperError
from caliper.types import Batch


class MixedSampler:
    """Draws int(b * ratio) transitions offline and the rest online, as Cal-QL's official code does.

    As long as one of the buffers is empty, the other gives the whole batch.

    Args:
        offline: recorded data.
        online: what the policy has collected.
        ratio: offline share in [0, 1]; below 0: by size, |offline| / (|offline| + |online|).

    Raises:
        CaliperError: `ratio` is above 1.
    """

    def __init__(self, offline: ReplayBuffer, online: ReplayBuffer, ratio: float) -> None:
        if ratio > 1:
            raise CaliperError(
                f"the offline share of a batch is {ratio}; it must be at most 1 (negative: by size)"
            )
        self.offline = offline
        self.online = online
        self.ratio = ratio

    @property
    def buffers(self) -> tuple[ReplayBuffer, ReplayBuffer]:
        """The offline and the online one."""
        return self.offline, self.online

    def split(self, b: int) -> tuple[int, int]:
        """How many of b transitions come from offline and from online data now."""
        sizes = len(self.offline), len(self.online)
        if 0 in sizes:
            return (0, b) if sizes[1] else (b, 0)
        ratio = self.ratio if self.ratio >= 0 else sizes[0] / sum(sizes)
        return int(b * ratio), b - int(b * ratio)

    def sample(self, b: int, generator: torch.Generator, captured: bool = False) -> Batch:
        """Draws a batch; its offline part comes first.

        Args:
            b: batch size.
            generator: source of randomness, on the buffers' device.
            captured: see `ReplayBuffer.sample`; holds as long as `split` gives the same two numbers.

        Raises:
            CaliperError: both buffers are empty.
        """
        counts = zip(self.buffers, self.split(b), strict=True)
        parts = [buffer.sample(count, generator, captured) for buffer, count in counts if count]
        if offline := self.split(b)[0]:
            self.offline.expect(offline, generator)  # which is the next that is drawn
        return parts[0] if len(parts) == 1 else Batch.cat(parts)
