"""What may go wrong in the physics of many envs, counted on the device and judged on the host."""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.errors import CaliperError

BOUND = 1e10  # beyond it MuJoCo itself takes a position or a velocity for an error
FEWEST_EPISODES = 100  # of fewer, a share says little


def sound(*values: Tensor) -> Tensor:
    """Which rows of all the given (n, ...) hold nothing but numbers of a sensible size, bool (n,)."""
    # NaN is smaller than nothing.
    return torch.cat([value.abs() < BOUND for value in values], dim=1).all(1)


class Health:
    """Counters of envs that lost contacts, blew up, or ran into limits of the solver.

    Args:
        limits: names of the solver's limits, see `Engine.overflow`.
        most: the share of the episodes that may blow up before it is an error, from 0 to 1.
        device: of the envs.
    """

    def __init__(self, limits: tuple[str, ...], most: float, device: torch.device) -> None:
        self._limits, self._most = limits, most
        names = len(limits)
        # On the device, written in place: envs that lost contacts, blew up, ended, stepped, reached limits.
        self._counts = torch.zeros(4 + names, dtype=torch.int64, device=device)
        self._seed = torch.full((1,), -1, dtype=torch.int64, device=device)  # of the last that blew up
        self._blown = self._ended = 0  # episodes so far
        self._since = [0] * (4 + names)  # counts since `rates` was asked

    def note(self, lost: Tensor, reached: Tensor, blown: Tensor, ended: Tensor, seeds: Tensor) -> None:
        """Counts one control step of n envs, without waiting for the device.

        Args:
            lost: where contacts were lost, bool (n,).
            reached: which limits were reached, bool (n, limits).
            blown: where the numbers blew up, bool (n,).
            ended: where an episode ended, for whatever reason, bool (n,).
            seeds: of the episodes, int64 (n,).
        """
        own = torch.stack([lost, blown, ended, torch.ones_like(lost)], dim=1)
        self._counts += torch.cat([own, reached], dim=1).sum(0)
        last = torch.where(blown, seeds, -1).max()
        self._seed.copy_(torch.where(last >= 0, last, self._seed))

    def check(self, task: str) -> None:
        """Reads the counters, which waits for the device.

        Raises:
            CaliperError: contacts were lost, or too large a share of the episodes blew up; names a seed.
        """
        *counts, seed = torch.cat([self._counts, self._seed]).tolist()
        self._counts.zero_()
        self._since = [a + b for a, b in zip(self._since, counts, strict=True)]
        self._blown, self._ended = self._blown + counts[1], self._ended + counts[2]
        if counts[0]:
            raise CaliperError(
                "an env lost contacts to a full buffer; raise CONTACTS in caliper.envs.engines.room"
            )
        if counts[1] and self._blown > self._most * max(self._ended, FEWEST_EPISODES):
            raise CaliperError(
                f"the physics of {task} blew up in {self._blown} of {self._ended} episodes, last in that "
                f"of seed {seed}; sim.max_diverged={self._most} allows fewer: "
                "raise it, or look into that episode"
            )

    def state(self) -> Tensor:
        """What has been counted so far, int64, for `load`; call it after `check`."""
        return torch.tensor([self._blown, self._ended, *self._since])

    def load(self, state: Tensor) -> None:
        """Goes on counting from `state`; another engine has other limits, whose rates begin anew."""
        self._blown, self._ended, *since = state.tolist()
        self._since = since if len(since) == len(self._since) else [0] * len(self._since)
        self._counts.zero_()

    def rates(self) -> dict[str, float]:
        """Of the steps checked since the last call: blown-up episodes per ended one, limits per step."""
        _, blown, ended, steps, *reached = self._since
        self._since = [0] * len(self._since)
        if not steps:
            return {}
        shares = {f"sim/{name}": count / steps for name, count in zip(self._limits, reached, strict=True)}
        return {"sim/diverged": blown / max(ended, 1), **shares}
