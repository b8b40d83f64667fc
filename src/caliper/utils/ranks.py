"""The processes of one run, its ranks in torch.distributed's word: which this one is, and what they share."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from caliper.errors import CaliperError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among those of its run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local: its number on its machine, from 0.
        local_count: how many there are on it.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.count}"


def place() -> Place:
    """What torchrun says, or srun where MASTER_ADDR names the machine of rank 0; else there is one process.

    srun alone may as well have started several runs.

    Raises:
        CaliperError: what they say is no place among ranks.
    """
    told = os.environ
    if "MASTER_ADDR" not in told:
        return Place()
    if "RANK" in told and "WORLD_SIZE" in told:
        count = _number("WORLD_SIZE", 1, at_least=1)
        local_count = _number("LOCAL_WORLD_SIZE", 1, at_least=1)
        return Place(_number("RANK", 0, below=count), count, _number("LOCAL_RANK", 0), local_count)
    if "SLURM_PROCID" in told and "SLURM_STEP_NUM_TASKS" in told:
        count = _number("SLURM_STEP_NUM_TASKS", 1, at_least=1)
        local_count = math.ceil(count / _number("SLURM_STEP_NUM_NODES", 1, at_least=1))
        rank = _number("SLURM_PROCID", 0, below=count)
        return Place(rank, count, _number("SLURM_LOCALID", 0), local_count)
    return Place()


def _number(variable: str, absent: int, at_least: int = 0, below: int = 1 << 31) -> int:
    """A whole number that the environment says.

    Raises:
        CaliperError: it is none, or none that the others allow.
    """
    said = os.environ.get(variable, str(absent))
    if not (said.isdecimal() and len(said) < 10 and at_least <= int(said) < below):
        raise CaliperError(
            f"the environment says {variable}={said}, which is no number from {at_least} to "
            f"{below - 1}; start with torchrun or srun, or unset MASTER_ADDR for a run in one process"
        )
    return int(said)


class Ranks:
    """What the ranks of a run do together; this one is of a run in one process, where that is nothing.

    All ranks must call these functions in the same order.

    Attributes:
        place: of this rank.
    """

    place = Place()

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.place.rank == 0

    @property
    def count(self) -> int:
        """How many ranks there are."""
        return self.place.count

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's part of what all know: each one's in turn."""
        return list(items[self.place.rank :: self.count])

    def gathered(self, work: Callable[[], Sequence[T]]) -> list[T]:
        """The results of the work on all shares, in the order of the whole; each rank gets them.

        Args:
            work: on this rank's share, a result for each of its items.

        Raises:
            CaliperError: the work of a rank raised it; all ranks raise the same.
        """
        return list(work())

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        return flag

    def soon(self, *flags: bool) -> tuple[bool, ...]:
        """Which of the flags were set on any rank, at the same call on all; there may be a call between.

        No rank waits for another here, unless that is more than a call behind. What has been told once is
        not told again until it is set anew.
        """
        return flags

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Sums over all ranks."""
        return numbers

    def mean(self, info: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over all ranks of 0-d tensors by name, of the same names on each."""
        return dict(info)

    def lowest(self, tensor: Tensor) -> None:
        """Puts the smallest of all ranks' numbers in their place."""

    def as_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors by those of the first rank."""

    def told_by_first(self, value: T) -> T:
        """What the first rank gave."""
        return value

    def wait(self) -> None:
        """Returns when all ranks are here."""

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """Within, the first rank is done before the others begin."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def leave(self) -> None:
        """Ends what the ranks do together, when all have come to it."""


ALONE = Ranks()


def resume_command(folder: Path, at: Place) -> str:
    """What a user types to go on with a run on as many ranks as one of them has told of."""
    command = f"caliper resume {shlex.quote(str(folder))}"
    if at.count == 1:
        return command
    nodes = f"--nnodes {at.count // at.local_count} " if at.count > at.local_count else ""
    return f"torchrun {nodes}--nproc-per-node {at.local_count} -m {command}"
