"""Replay memory for pixels: whole episodes, each frame stored once as uint8, drawn on the training device."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from caliper.data.ahead import Ahead
from caliper.data.chunks import chunked
from caliper.data.returns import RewardConfig
from caliper.data.ring import Layout, Ring, row_bytes
from caliper.errors import CaliperError
from caliper.types import Batch, Obs, ObsSpec


def frame_layout(spec: ObsSpec) -> Layout:
    """The columns of single frames."""
    images = {name: (plane.shape, plane.dtype) for name, plane in spec.planes.items()}  # (v, c, h, w)
    return {**images, "proprio": ((spec.proprio,), torch.float32)}


def _transition_layout(action_dim: int, chunk: int, stack: int) -> Layout:
    # Where the transition's first frame is, and where its observations are stacked, how many frames of the
    # episode are before it.
    places: Layout = {name: ((), torch.int64) for name in ("frame", "age")[: 1 + (stack > 1)]}
    return {
        **places,
        "span": ((), torch.int64),  # frames from there to the next observation's
        "action": ((chunk * action_dim,), torch.float32),
        "reward": ((), torch.float32),
        "terminal": ((), torch.float32),
        "mc_return": ((), torch.float32),
    }


class ReplayBuffer:
    """Transitions of whole episodes, drawn uniformly.

    The next observation is the frame after, or `chunk` frames on; an episode's last frame is stored without a
    transition of its own. Stacked observations are put together when they are drawn: each frame is stored
    once, and an episode's first stands for those before its start. When the ring is full
    the oldest episodes leave, whole. Returns are computed when an episode comes in, so that none is ever a
    default.

    Args:
        capacity: frames to hold (an episode of t transitions takes t + 1).
        spec: what an observation holds.
        action_dim: length of an action.
        reward: how raw rewards become training rewards and returns.
        device: where everything is stored and drawn.
        chunk: control steps of a transition, see `caliper.data.chunks`.
        frames: where the frames are instead, such as in the host's memory or on the disk; there they are
            gathered for a batch, and the next batch ahead of time (see `caliper.data.ahead`).

    Raises:
        CaliperError: the memory can't be had; says how much it is.
    """

    def __init__(
        self,
        capacity: int,
        spec: ObsSpec,
        action_dim: int,
        reward: RewardConfig,
        device: torch.device | str = "cpu",
        chunk: int = 1,
        frames: Ring | None = None,
    ) -> None:
        self.capacity = capacity
        self.chunk = chunk
        self.spec = spec
        self.action_dim = action_dim
        self.reward = reward
        self.device = torch.device(device)
        self.nbytes = self.estimate(capacity, spec, action_dim, chunk)
        if capacity < 2:
            raise CaliperError(
                f"a replay buffer of {capacity} frames holds no transition; give it at least 2"
            )
        try:
            self._frames = frames or Ring(capacity, frame_layout(spec), self.device)
            layout = _transition_layout(action_dim, chunk, spec.stack)
            self._transitions = Ring(capacity, layout, self.device)
        except RuntimeError as error:
            raise CaliperError(
                f"a replay buffer of {capacity} frames needs {self.nbytes / 2**30:.1f} GiB on {self.device}, "
                f"which can't be had ({str(error).splitlines()[0]}); lower the capacity or the image size"
            ) from error
        self._ahead = None if frames is None else Ahead(self._draw, self.device)
        self._back = torch.arange(spec.stack - 1, -1, -1, device=self.device)  # (k,) frames, oldest first
        self._episodes: deque[tuple[int, int]] = deque()  # frames and transitions of each, oldest first

    @staticmethod
    def estimate(capacity: int, spec: ObsSpec, action_dim: int, chunk: int = 1) -> int:
        """Bytes that a buffer of `capacity` frames takes, without allocating it."""
        transition = _transition_layout(action_dim, chunk, spec.stack)
        return ReplayBuffer.frame_bytes(capacity, spec) + capacity * row_bytes(transition)

    @staticmethod
    def frame_bytes(capacity: int, spec: ObsSpec) -> int:
        """The part of `estimate` that the frames take."""
        return capacity * row_bytes(frame_layout(spec))

    def __len__(self) -> int:
        return self._transitions.count

    @property
    def num_frames(self) -> int:
        """Frames in use, at most `capacity`."""
        return self._frames.count

    @property
    def num_episodes(self) -> int:
        """Whole episodes stored."""
        return len(self._episodes)

    def proprio(self) -> Tensor:
        """The numbers (m, p) of all stored frames, oldest first."""
        frames = self._frames
        order = torch.arange(frames.count, device=frames.device)
        return frames.gather(frames.slots(order), ["proprio"])["proprio"]

    def return_bounds(self) -> tuple[float, float]:
        """Smallest and largest return that is possible: from rewards on success alone, or such as are stored.

        Waits for the device.
        """
        if self.reward.sparse or not len(self):
            return self.reward.bounds()
        low, high = (float(x) for x in self._transitions.used()["reward"].aminmax())
        for_ever = 1 / (1 - self.reward.gamma**self.chunk)
        return min(low, low * for_ever), max(high, high * for_ever)

    def add_episode(
        self, obs: Obs | None, actions: Tensor, rewards: Tensor, terminated: bool, returns: bool = True
    ) -> None:
        """Inserts a whole episode and drops the oldest ones if it needs their room.

        Args:
            obs: t + 1 single frames, the last being what the last action led to, on the buffer's device; None
                where they are the next of such as are stored (`caliper.data.stored_frames`).
            actions: (t, a), on the buffer's device.
            rewards: (t,), raw; on the host, or they are waited for.
            terminated: whether the last state is terminal (success) rather than cut by the horizon.
            returns: whether the rewards tell the task's returns; else those are minus infinity, a lower bound
                that says nothing.

        Raises:
            CaliperError: the episode is longer than the buffer, or shorter than a chunk.
            ValueError: the lengths don't agree.
        """
        t = len(actions)
        shown = t + 1 if obs is None else len(obs)
        if t < 1 or shown != t + 1 or len(rewards) != t:
            raise ValueError(
                f"{t} actions need {t + 1} frames and {t} rewards, not {shown} and {len(rewards)}"
            )
        if t + 1 > self.capacity:
            raise CaliperError(
                f"an episode of {t + 1} frames does not fit a buffer of {self.capacity}; raise its capacity"
            )
        # Returns are a recursion over the episode: made on the host, sent in one copy, and not waited for.
        scaled = self.reward.apply(rewards.cpu())
        terminal = torch.zeros_like(scaled)
        terminal[-1] = float(terminated)
        known = self.reward.returns(scaled, terminal)
        scaled, known = torch.stack([scaled, known]).to(self.device, non_blocking=True)
        rows = chunked(actions, scaled, terminated, self.chunk, self.reward.gamma)
        m = len(rows["span"])
        while self._frames.count + t + 1 > self.capacity:
            frames, transitions = self._episodes.popleft()
            self._frames.drop(frames)
            self._transitions.drop(transitions)
        first = self._frames.count  # as an arrival number; frames before it stay where they are
        age = torch.arange(m, device=self.device)
        places = {"frame": (first + age + self._frames.tail) % self.capacity, "age": age}
        if obs is None:
            self._frames.take(t + 1)
        else:
            self._frames.push(obs.tensors)
        mc_return = known[:m] if returns else torch.full_like(known[:m], -torch.inf)
        self._push_transitions(rows | places | {"mc_return": mc_return})
        self._episodes.append((t + 1, m))
        if self._ahead is not None:
            self._ahead.forget()

    def _push_transitions(self, rows: dict[str, Tensor]) -> None:
        self._transitions.push({name: rows[name] for name in self._transitions.columns})

    def sample(self, b: int, generator: torch.Generator, captured: bool = False) -> Batch:
        """Draws b transitions uniformly, with replacement, without waiting for the device.

        Args:
            b: batch size.
            generator: source of randomness, on the buffer's device.
            captured: whether a CUDA graph may hold the draw. Then other transitions are drawn from the same
                generator: their number is not a constant but read on the device, at every replay anew.

        Raises:
            CaliperError: the buffer is empty.
        """
        if len(self) == 0:
            raise CaliperError(
                "the replay buffer is empty; fill it with a dataset or with at least one episode"
            )
        if self._ahead is not None and (batch := self._ahead.take(b, generator)):
            return batch
        return self._draw(b, generator, captured)

    def expect(self, b: int, generator: torch.Generator) -> None:
        """Begins to gather the next batch, if frames are elsewhere: b transitions, drawn with `generator`.

        Nothing depends on it: where the next draw is another, it is made then.
        """
        if self._ahead is not None:
            self._ahead.begin(b, generator)

    def _draw(self, b: int, generator: torch.Generator, captured: bool = False) -> Batch:
        # A remainder of 62 random bits favours low numbers by less than one part in 2**30.
        high = 1 << 62 if captured else len(self)
        drawn = torch.randint(high, (b,), generator=generator, device=self.device)
        if captured:
            drawn %= self._transitions.extent[1]
        row = self._transitions.slots(drawn)  # (b,)
        columns = self._transitions.gather(row)
        frame, span, age = columns["frame"], columns["span"], columns.get("age")
        return Batch(
            self._observe(frame, age),
            columns["action"],
            columns["reward"],
            self._observe((frame + span) % self.capacity, None if age is None else age + span),
            columns["terminal"],
            columns["mc_return"],
        )

    def _observe(self, slot: Tensor, age: Tensor | None) -> Obs:
        """The frames at `slot` (b,), under those before them, of which each episode has `age` (b,)."""
        frames = self._frames
        if age is None:
            return Obs.of(frames.gather(slot.to(frames.device))).to(self.device)
        before = torch.minimum(age[:, None], self._back)  # (b, k)
        slots = ((slot[:, None] - before) % self.capacity).flatten()
        found = Obs.of(frames.gather(slots.to(frames.device))).to(self.device)
        return Obs.of({name: self._stacked(column) for name, column in found.tensors.items()})

    def _stacked(self, frames: Tensor) -> Tensor:
        """Rows (b k, v, c, h, w) or (b k, p) as (b, v, k c, h, w) or (b, k p)."""
        frames = frames.view(len(frames) // self.spec.stack, self.spec.stack, *frames.shape[1:])
        return frames.flatten(1) if frames.dim() == 3 else frames.transpose(1, 2).flatten(2, 3)

    def state_dict(self) -> dict[str, Tensor]:
        """The stored episodes, oldest first, as tensors on the CPU; only the part in use."""
        transitions = self._transitions.used()
        for name in ("frame", "age"):  # which follow from the lengths
            transitions.pop(name, None)
        episodes = torch.tensor(list(self._episodes), dtype=torch.int64).view(-1, 2)
        return {"episodes": episodes} | self._frames.used() | transitions

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replaces the contents by those of `state_dict`; the same generator then draws the same transitions.

        Raises:
            CaliperError: the state is of other shapes than this buffer, or larger.
        """
        frames, transitions = state["episodes"].unbind(1)
        counts = {"frames": int(frames.sum()), "transitions": int(transitions.sum())}
        layouts = {
            "frames": frame_layout(self.spec),
            "transitions": _transition_layout(self.action_dim, self.chunk, 1),
        }
        del layouts["transitions"]["frame"]
        for kind, layout in layouts.items():
            for name, (shape, _) in layout.items():
                if state[name].shape != (counts[kind], *shape):
                    raise CaliperError(
                        f"the saved replay buffer's {name} has shape {tuple(state[name].shape)}, "
                        f"expected {(counts[kind], *shape)}; resume with task and chunk as then"
                    )
        if counts["frames"] > self.capacity:
            raise CaliperError(
                f"the saved replay buffer has {counts['frames']} frames, this one room for {self.capacity}; "
                "raise its capacity"
            )
        for ring in (self._frames, self._transitions):
            ring.drop(ring.count)
        start = self._frames.tail
        # The last frames of an episode start no transition; so many are left out before each one.
        skipped = torch.cumsum(frames - transitions, 0) - (frames - transitions)
        order = torch.arange(counts["transitions"])
        frame = (order + torch.repeat_interleave(skipped, transitions)).to(self.device) + start
        begun = torch.cumsum(transitions, 0) - transitions
        age = (order - torch.repeat_interleave(begun, transitions)).to(self.device)
        self._frames.push({name: state[name] for name in layouts["frames"]})
        self._push_transitions(
            {"frame": frame % self.capacity, "age": age}
            | {name: state[name] for name in layouts["transitions"]}
        )
        self._episodes = deque(map(tuple, state["episodes"].tolist()))
