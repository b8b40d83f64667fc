"""How a person's hand differs from a script that is always at full speed: slower, unevenly so, and it pauses.

In robosuite's published recording of Lift by hand half of the steps stand still, nine of ten commands are
below 0.3 and none reaches 1; from one step to the next a command's correlation is 0.97.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.envs.seeding import normal, uniform
from caliper.envs.sim import SimEnv

PACE, PACES, SLOWEST = 0.45, 0.35, 0.2  # median of the episodes' largest commands; spread of its log; least
DRIFT, DRIFT_TIME = 0.3, 1.5  # of the log of the pace within an episode; seconds in which it changes
SWAY_TIME = 0.3  # seconds in which the noise on the commands changes
EASE_TIME = 0.1  # seconds in which a command follows the intention
HESITATES, PER_SECOND = 0.5, 0.08  # chance of a pause before each phase; and at any time, each second
SHORT, LONG = 0.2, 1.2  # seconds that a pause lasts
STREAM = 1 << 20  # first of the streams of random numbers, beyond those of the scripts' noise


class Person:
    """What the hand does of what the script intends, in all envs; drawn from the episode's seed alone.

    Attributes:
        pace: largest command now, (n,); 0 during a pause, in which a script's clock stands still.
    """

    def __init__(self, env: SimEnv) -> None:
        """Args: the envs."""
        self.env, n, device = env, env.num_envs, env.device
        self.pace = torch.zeros(n, dtype=torch.float64, device=device)
        self._phase = torch.zeros(n, dtype=torch.long, device=device)
        self._pause, self._drift = torch.zeros_like(self.pace), torch.zeros_like(self.pace)
        self._sway = torch.zeros(n, 6, dtype=torch.float64, device=device)
        self._hand = torch.zeros(n, env.action_dim - 1, dtype=torch.float64, device=device)

    def tick(self, phase: Tensor) -> None:
        """Begins a control step.

        Args:
            phase: of the script, int64 (n,), as it was left.
        """
        env, period = self.env, 1.0 / self.env.control_freq
        fresh = env.steps == 0
        stream = STREAM + env.steps
        chance, lasts = uniform(env.seeds, 2, stream).unbind(1)
        draws = normal(env.seeds, 7, stream + STREAM)
        self._drift = _wander(self._drift, draws[:, 0], period / DRIFT_TIME, fresh)
        self._sway = _wander(self._sway, draws[:, 1:], period / SWAY_TIME, fresh[:, None])
        self._hand = self._hand.masked_fill(fresh[:, None], 0.0)
        begins = (phase != self._phase) & ~fresh
        tempted = torch.where(begins, HESITATES, PER_SECOND * period)
        pause = torch.where(chance < tempted, SHORT + (LONG - SHORT) * lasts, 0.0)
        self._pause = torch.maximum((self._pause - period).clamp(min=0.0), pause).masked_fill(fresh, 0.0)
        self._phase = phase.masked_fill(fresh, 0)
        own = PACE * torch.exp(PACES * normal(env.seeds, 1, STREAM - 1)[:, 0])
        pace = (own * torch.exp(DRIFT * self._drift)).clamp(SLOWEST, 1.0)
        self.pace = torch.where(self._pause > 0, 0.0, pace)

    def noise(self) -> Tensor:
        """Of the commands, of variance 1 as a script's is, but slow, and none in a pause: (n, 6)."""
        return self._sway * (self.pace > 0)[:, None]

    def follow(self, wish: Tensor) -> Tensor:
        """The commands (n, k) of a hand that needs a moment to follow the wished ones."""
        share = min(1.0, 1.0 / (self.env.control_freq * EASE_TIME))
        self._hand = torch.lerp(self._hand, wish, share) * (self.pace > 0)[:, None]
        return self._hand


def _wander(value: Tensor, draw: Tensor, share: float, fresh: Tensor) -> Tensor:
    """The next value of noise of variance 1 that forgets a share of itself in each step."""
    keep = max(0.0, 1.0 - share)
    return torch.where(fresh, draw, keep * value + (1.0 - keep**2) ** 0.5 * draw)
