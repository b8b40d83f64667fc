"""One run on several ranks, by torch.distributed: how they join, what they tell each other, gradients.

On CPUs over gloo; on GPUs gradients and metrics go over NCCL, and what the host decides over gloo, so that
nobody waits for a device to agree on anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from caliper.errors import CaliperError
from caliper.utils.ranks import ALONE, Place, Ranks, T, place

# A rank that dies closes its connections, which the others notice at once. This long they wait for one that
# lives: the first may collect a dataset.
PATIENCE = timedelta(hours=24)
BUCKET = 1 << 20  # bytes of gradients that are sent together


class LostRankError(CaliperError):
    """Another rank of the run has died, or ended by an error of its own."""


@contextmanager
def run_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun or srun has started this process as one of; `ALONE` where it is the only one.

    What ends several of them is said by one: see `CaliperError.told`.
    """
    at = place()
    if at.count == 1:
        yield ALONE
        return
    ranks = Together(at)
    try:
        yield ranks
        ranks.leave()
    except (CaliperError, KeyboardInterrupt) as error:
        error.told = not ranks.tells(error)  # type: ignore[union-attr]
        raise


class Together(Ranks):
    """See `Ranks`.

    Args:
        at: this rank's place.

    Raises:
        CaliperError: the others do not answer.
    """

    def __init__(self, at: Place) -> None:
        self.place = at
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            self._store, rank, count = next(rendezvous("env://", at.rank, at.count))
            dist.init_process_group(backend, store=self._store, rank=rank, world_size=count, timeout=PATIENCE)
            # For the host's words; with another group than gradients their order does not matter.
            self._host: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise CaliperError(f"{at} cannot join the others ({_reason(error)})") from error
        self._coming: tuple[Any, Tensor] | None = None
        self._gone = False

    def tells(self, error: BaseException) -> bool:
        """Whether it is for this rank to say it: the first to say something says it for all."""
        with suppress(RuntimeError):  # the store has died with its rank
            if isinstance(error, LostRankError):
                return int(self._store.add("said", 0)) == 0 and int(self._store.add("lost", 1)) == 1
            self._store.add("said", 1)
            return int(self._store.add(f"said {zlib.crc32(str(error).encode())}", 1)) == 1
        return True

    def gathered(self, work: Callable[[], Sequence[T]]) -> list[T]:
        """See `Ranks`."""
        mine: Sequence[T] = ()
        trouble: CaliperError | None = None
        try:
            mine = work()
        except CaliperError as error:
            trouble = error
        found = self._told((mine, trouble))
        for _, raised in found:
            if raised is not None:
                raise raised
        parts = [part for part, _ in found]
        return [parts[i % self.count][i // self.count] for i in range(sum(map(len, parts)))]

    def any(self, flag: bool) -> bool:
        """See `Ranks`."""
        return self.total(float(flag))[0] > 0

    def soon(self, *flags: bool) -> tuple[bool, ...]:
        """See `Ranks`: the answer is that of the call before, which has come while the rank worked."""
        found = self._arrived() or [False] * len(flags)
        told = torch.tensor([flag and not was for flag, was in zip(flags, found, strict=True)]).int()
        with _watched():
            work = dist.all_reduce(told, dist.ReduceOp.MAX, self._host, async_op=True)
        self._coming = (work, told)
        return tuple(found)

    def _arrived(self) -> list[bool]:
        if self._coming is None:
            return []
        (work, told), self._coming = self._coming, None
        with _watched():
            work.wait()
        return [bool(flag) for flag in told.tolist()]

    def total(self, *numbers: float) -> tuple[float, ...]:
        """See `Ranks`."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        with _watched():
            dist.all_reduce(sums, group=self._host)
        return tuple(sums.tolist())

    def mean(self, info: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Ranks`."""
        values = torch.stack([value.detach().float() for value in info.values()])
        with _watched():
            dist.all_reduce(values)
        return dict(zip(info, (values / self.count).unbind(), strict=True))

    def lowest(self, tensor: Tensor) -> None:
        """See `Ranks`."""
        with _watched():
            dist.all_reduce(tensor, dist.ReduceOp.MIN)

    def as_first(self, tensors: Iterable[Tensor]) -> None:
        """See `Ranks`."""
        with _watched():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def told_by_first(self, value: T) -> T:
        """See `Ranks`."""
        first: T = self._told(value)[0]
        return first

    def wait(self) -> None:
        """See `Ranks`."""
        self.total()

    def leave(self) -> None:
        """See `Ranks`."""
        if not self._gone:
            self._arrived()
            self.wait()
            dist.destroy_process_group()
            self._gone = True

    def _told(self, mine: Any) -> list[Any]:
        """What each rank tells, in their order; pickled, among processes of the same run."""
        found: list[Any] = [None] * self.count
        with _watched():
            dist.all_gather_object(found, mine, self._host)
        return found


class GradientAverage:
    """Averages gradients over all ranks, while the backward pass goes on.

    Parameters are put into buckets in the order in which a backward pass comes to them, the last first. When
    all gradients of a bucket are there it is sent; the first step of an optimiser waits for all of them.
    Where losses are means over a batch, an update is then that of one rank with all ranks' batches.

    Attributes:
        sent: bytes of gradients that the host has asked to be sent; a captured update asks once.

    Args:
        optimizers: whose parameters these are; afterwards each steps along the averages.
        count: ranks.
        bucket: bytes.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], count: int, bucket: int = BUCKET) -> None:
        self.sent = 0
        self._count = count
        self._rows: list[list[_Bucket]] = []  # one for each optimiser with parameters that no other has
        seen: set[nn.Parameter] = set()
        for optimizer in optimizers:
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            row = _Bucket.filled([p for p in reversed(weights) if p not in seen], bucket)
            seen |= set(weights)
            for one in row:
                for weight in one.weights:
                    weight.register_post_accumulate_grad_hook(self._noted(one, row))  # type: ignore[no-untyped-call]  # torch's
            self._rows.append(row)
            optimizer.register_step_pre_hook(lambda *_: self.finish())

    def _noted(self, bucket: _Bucket, row: list[_Bucket]) -> Callable[[Tensor], None]:
        def note(weight: Tensor) -> None:
            if bucket.work is not None:
                raise CaliperError(
                    "on several ranks an optimiser's loss is differentiated once before its step; add up the "
                    "losses first"
                )
            bucket.waiting -= 1
            # In one order on all ranks, whatever order autograd comes to them in.
            for one in row:
                if one.waiting:
                    break
                self._send(one)

        return note

    def _send(self, bucket: _Bucket) -> None:
        if bucket.work is None:
            self.sent += bucket.send()

    def finish(self) -> None:
        """Sends what is left, where parameters got no gradient; waits for all, and takes the averages."""
        begun = [bucket for row in self._rows for bucket in row if bucket.begun]
        for bucket in begun:
            self._send(bucket)
        for bucket in begun:
            bucket.receive(self._count)


class _Bucket:
    """Parameters whose gradients are sent together."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights = weights
        self.waiting = len(weights)  # gradients that are not there yet
        self.work: dist.Work | None = None
        self._flat = torch.empty(0)
        self._gradients: list[Tensor] = []

    @staticmethod
    def filled(weights: Sequence[nn.Parameter], size: int) -> list[_Bucket]:
        """Buckets of parameters in their order, of at least `size` bytes but for the last."""
        buckets: list[list[nn.Parameter]] = [[]]
        room = size
        for weight in weights:
            if room <= 0:
                buckets.append([])
                room = size
            buckets[-1].append(weight)
            room -= weight.numel() * weight.element_size()
        return [_Bucket(bucket) for bucket in buckets if bucket]

    @property
    def begun(self) -> bool:
        """Whether one of the gradients has come."""
        return self.waiting < len(self.weights)

    def send(self) -> int:
        """Begins to add up the gradients of all ranks; returns the bytes."""
        self._gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        self._flat = torch.cat([gradient.reshape(-1) for gradient in self._gradients])
        with _watched():
            self.work = dist.all_reduce(self._flat, async_op=True)
        return self._flat.numel() * self._flat.element_size()

    def receive(self, count: int) -> None:
        """Waits for the sums, and puts their means in the gradients' place."""
        assert self.work is not None  # for the type checker
        with _watched():
            self.work.wait()
        means = torch.split(self._flat / count, [gradient.numel() for gradient in self._gradients])
        for gradient, mean in zip(self._gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        self.waiting, self.work, self._gradients = len(self.weights), None, []


@contextmanager
def _watched() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(f"another rank of the run is gone ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """The first line of what a library says, without the place in its source."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].split("] ", 1)[-1].rstrip(". ")
