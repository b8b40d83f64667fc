"""A table of tensors that is written at one end and forgotten at the other."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor

Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]  # column: (shape of a row, its type)


def row_bytes(layout: Layout) -> int:
    """Bytes that a row of all columns takes."""
    return sum(prod(shape) * dtype.itemsize for shape, dtype in layout.values())


class Ring:
    """Columns of equal length whose rows are appended at the head and dropped at the tail, oldest first.

    Attributes:
        capacity: rows there is room for.
        tail: where the oldest row is.
        count: rows in use.
        extent: int64 (2,), tail and count on the device, where a captured CUDA graph reads them anew.
        columns: the rows, by column name.
        device: where all that is.
    """

    def __init__(self, capacity: int, layout: Layout, device: torch.device) -> None:
        self.capacity = capacity
        self.device = device
        self.tail = 0
        self.count = 0
        self.extent = torch.zeros(2, dtype=torch.int64, device=device)
        self.columns = {
            name: torch.empty((capacity, *shape), dtype=dtype, device=device)
            for name, (shape, dtype) in layout.items()
        }
        self._forget(0, capacity)

    def slots(self, order: Tensor) -> Tensor:
        """Where the rows are that arrived as number `order`, counted from the oldest."""
        return (order + self.extent[0]) % self.capacity

    def gather(self, slot: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The rows at `slot` (m,) of the columns `names`, or of all."""
        # index_select copies whole rows; indexing with [] is 4 to 7 times slower on uint8 images on a CPU.
        return {name: self.columns[name].index_select(0, slot) for name in names or self.columns}

    def push(self, rows: dict[str, Tensor]) -> None:
        """Appends rows; the caller has made room."""
        head, length = (self.tail + self.count) % self.capacity, len(next(iter(rows.values())))
        before_wrap = min(length, self.capacity - head)
        for name, values in rows.items():
            column = self.columns[name]
            column[head : head + before_wrap] = values[:before_wrap]
            column[: length - before_wrap] = values[before_wrap:]
        self.count += length
        self.extent[1] += length

    def take(self, length: int) -> None:
        """Counts rows in that are there already."""
        raise NotImplementedError("only stored frames are there before they are counted in")

    def drop(self, length: int) -> None:
        """Forgets the oldest rows."""
        before_wrap = min(length, self.capacity - self.tail)
        self._forget(self.tail, before_wrap)
        self._forget(0, length - before_wrap)
        self.tail = (self.tail + length) % self.capacity
        self.count -= length
        self.extent[0].fill_(self.tail)
        self.extent[1] -= length

    def used(self) -> dict[str, Tensor]:
        """Copies of the rows on the CPU, oldest first."""
        end = self.tail + self.count
        first, wrapped = slice(self.tail, min(end, self.capacity)), slice(0, max(0, end - self.capacity))
        copies = {}
        for name, column in self.columns.items():
            rows = torch.empty((self.count, *column.shape[1:]), dtype=column.dtype)
            rows[: first.stop - first.start] = column[first]  # copied once, straight from the device
            rows[first.stop - first.start :] = column[wrapped]
            copies[name] = rows
        return copies

    def _forget(self, start: int, length: int) -> None:
        # A row that should not be read must not look like one that can: NaN spoils a loss, 0 hides.
        for column in self.columns.values():
            if column.is_floating_point():
                column[start : start + length] = torch.nan
