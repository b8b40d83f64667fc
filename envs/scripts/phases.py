"""The clockwork of a scripted expert: in which phase of its script each env is, and for how long."""

from __future__ import annotations

import torch
from torch import Tensor


class Phases:
    """One phase and one clock per env.

    Attributes:
        phase: int64 (n,), as decided so far in this control step.
        before: the phase at the start of the control step, which decides: one transition each at most.
        seconds: since the phase began, (n,), by a clock that goes at the pace of who acts.
        hold: position of the gripper when the phase began, metres, (n, 3).
        home: position of the gripper when the episode began, metres, (n, 3).
    """

    def __init__(self, num_envs: int, freq: int, device: torch.device) -> None:
        """Args: number of envs, control steps per second, device."""
        self._freq = freq
        self._clock = torch.zeros(num_envs, device=device)  # control steps
        self.phase = self.before = torch.zeros_like(self._clock, dtype=torch.long)
        self.seconds = torch.zeros_like(self._clock)
        self.hold = torch.zeros(num_envs, 3, dtype=torch.float64, device=device)
        self.home, self._grip = torch.zeros_like(self.hold), torch.zeros_like(self.hold)

    def tick(self, fresh: Tensor, grip: Tensor, pace: Tensor) -> None:
        """Begins a control step.

        Args:
            fresh: where an episode begins, bool (n,).
            grip: the gripper's position, metres, (n, 3).
            pace: of the clock, (n,) in [0, 1].
        """
        self.phase, self._clock = self.phase.masked_fill(fresh, 0), self._clock.masked_fill(fresh, 0)
        self._clock = (self._clock + pace).float()
        self.before, self.seconds, self._grip = self.phase.clone(), self._clock / self._freq, grip
        self.home = torch.where(fresh[:, None], grip, self.home)

    def go(self, where: Tensor, to: int) -> None:
        """Begins a phase in the envs where `where`, bool (n,), is set."""
        self._clock.masked_fill_(where, 0)
        self.phase.masked_fill_(where, to)
        self.hold = torch.where(where[:, None], self._grip, self.hold)

    def choose(self, ways: list[Tensor]) -> Tensor:
        """The waypoint of each env's phase, (n, 3), from those of all phases in order."""
        index = self.phase[:, None, None].expand(-1, 1, 3)
        return torch.stack(ways, 1).gather(1, index)[:, 0]
