"""The envs as Gymnasium's `Env` and `VectorEnv`, NumPy in and out, for libraries that speak Gymnasium."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.envs.observation.names import (
    NAMES,
    Named,
    check_names,
    example,
    named,
    proprio_keys,
    robot_parts,
)
from caliper.envs.observation.stack import stacked
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError
from caliper.types import Obs

try:
    gymnasium, vector = import_module("gymnasium"), import_module("gymnasium.vector")
except ImportError as error:
    raise CaliperError(
        f"caliper.envs.gym needs gymnasium ({error}); install: pip install 'gymnasium>=1.1'"
    ) from error


_Env: Any = gymnasium.Env
_VectorEnv: Any = vector.VectorEnv


class GymEnv(_Env):  # type: ignore[misc]  # gymnasium is optional, hence untyped here
    """One env: `gymnasium.make("caliper/Lift-v0")`.

    Observations are dicts, see `caliper.envs.observation.names.named`, without the axis n. Actions are float
    (a,) in [-1, 1]; what is outside is clipped. The reward is 1 on the step that solves the task, which ends
    the episode, and 0 else; `info["success"]` says so too.
    """

    metadata: Mapping[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        task: str,
        *,
        render_mode: str | None = None,
        render_camera: str = "showcase",
        render_size: int = 256,
        names: str = "caliper",
        **settings: Any,
    ) -> None:
        """Builds the env.

        Args:
            task: name of the task.
            render_mode: None or "rgb_array".
            render_camera: any camera of the scene.
            render_size: side of a rendered image, pixels.
            names: names and layout of the observations: "caliper", "robomimic" or "lerobot".
            settings: see `make_sim`.

        Raises:
            CaliperError: an unknown name, camera or setting.
        """
        self._env = make_sim(task, 1, names=names, **settings)
        self._sim = simulator(self._env)
        _describe(self, self._env, names, render_mode, (render_camera, render_size))
        self.observation_space, self.action_space = _spaces(self._env, self._named)
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Named, dict[str, Any]]:
        """Starts an episode: the one of a seed, or the next of the env's own series."""
        super().reset(seed=seed)
        # Where an episode has ended, the simulator already stands in the next: that one is not skipped.
        following = None if self._running else self._sim.seeds.clone()
        obs = self._env.reset(seeds=following if seed is None else torch.tensor([seed]))
        self._running = True
        return _row(self._named(obs), 0), {}

    def step(self, action: np.ndarray) -> tuple[Named, float, bool, bool, dict[str, Any]]:
        """Applies an action (a,).

        Raises:
            CaliperError: no episode is running, or the action is no finite vector (a,).
        """
        if not self._running:
            raise CaliperError("step: no episode is running; call reset() first")
        step = self._env.step(_actions(self._sim, np.asarray(action)[None]))
        self._sim.check()
        terminated, truncated = bool(step.terminated), bool(step.truncated)
        self._running = not (terminated or truncated)
        info = {"success": bool(step.success)}
        return _row(self._named(step.final_obs), 0), float(step.reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """An image uint8 (h, w, 3) of where the last action led; None without a render mode.

        Raises:
            CaliperError: nothing was reset yet.
        """
        if self.render_mode is None:
            return None
        if not hasattr(self._sim, "final_state") and not self._running:
            raise CaliperError("render: no episode is running; call reset() first")
        if not self._running:  # the simulator already stands at the start of the next episode
            self._sim.set_state(self._sim.final_state)
        image: np.ndarray = _frames(self._sim, *self._view)[0]
        return image

    def _named(self, obs: Obs) -> Named:
        return named(self._names, self._env.spec, self._sim.robot_parts, obs)


class GymVectorEnv(_VectorEnv):  # type: ignore[misc]  # gymnasium is optional, hence untyped here
    """n envs with same-step autoreset: `gymnasium.make_vec("caliper/Lift-v0", num_envs=16)`.

    As `GymEnv`, with the axis n. Where an episode ends, `infos["final_obs"]` holds what its last action led
    to; `infos["success"]` is the task's own test. `render` shows the envs after the reset.
    """

    metadata: Mapping[str, Any] = {
        **GymEnv.metadata,
        "autoreset_mode": vector.AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        env: VectorEnv,
        *,
        render_mode: str | None = None,
        render_camera: str = "showcase",
        render_size: int = 256,
        names: str = "caliper",
    ) -> None:
        """Wraps `env`, which stays usable by itself; see `GymEnv` for the rest.

        Raises:
            CaliperError: an unknown name or camera.
        """
        self.env, self.num_envs = env, env.num_envs
        _describe(self, env, names, render_mode, (render_camera, render_size))
        self.single_observation_space, self.single_action_space = _spaces(env, self._named)
        batch = vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, env.num_envs)
        self.action_space = batch(self.single_action_space, env.num_envs)
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Named, dict[str, Any]]:
        """Starts episodes.

        Args:
            seed: env i gets seed + i; None continues each env's own series.
            options: `reset_mask`, bool (n,), resets only some envs.

        Returns:
            Observations of all envs, and no further information.
        """
        super().reset(seed=seed)
        mask = None if options is None else options.get("reset_mask")
        self._running = self._running or mask is None
        mask = None if mask is None else torch.as_tensor(np.asarray(mask), device=self.env.device)
        seeds = None if seed is None else seed + torch.arange(self.num_envs, device=self.env.device)
        return self._named(self.env.reset(mask, seeds)), {}

    def step(self, actions: np.ndarray) -> tuple[Named, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Applies actions (n, a).

        Returns:
            Observations, rewards (n,), terminated (n,), truncated (n,) and infos.

        Raises:
            CaliperError: nothing was reset yet, or the actions are no finite array (n, a).
        """
        if not self._running:
            raise CaliperError("step: no episode is running; call reset() first")
        step = self.env.step(_actions(self.env, np.asarray(actions)))
        self.env.check()
        terminated, truncated, success = (
            flag.cpu().numpy() for flag in (step.terminated, step.truncated, step.success)
        )
        everywhere, done = np.ones(self.num_envs, bool), terminated | truncated
        infos: dict[str, Any] = {"success": success, "_success": everywhere}
        if done.any():
            last = self._named(step.final_obs)
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final[i] = _row(last, int(i))
            ended = {"success": success & done, "_success": done.copy()}
            infos |= {"final_obs": final, "_final_obs": done, "final_info": ended, "_final_info": done.copy()}
        return self._named(step.obs), step.reward.double().cpu().numpy(), terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """An image uint8 (h, w, 3) of each env; None without a render mode.

        Raises:
            CaliperError: nothing was reset yet.
        """
        if self.render_mode is not None and not self._running:
            raise CaliperError("render: no episode is running; call reset() first")
        return None if self.render_mode is None else tuple(_frames(self.env, *self._view))

    def _named(self, obs: Obs) -> Named:
        return named(self._names, self.env.spec, robot_parts(self.env), obs)


def make_vector(
    task: str,
    num_envs: int = 1,
    *,
    render_mode: str | None = None,
    render_camera: str = "showcase",
    render_size: int = 256,
    names: str = "caliper",
    **settings: Any,
) -> GymVectorEnv:
    """N envs behind one `SimEnv`, what `gymnasium.make_vec` calls; see `GymEnv` and `make_sim`."""
    return GymVectorEnv(
        make_sim(task, num_envs, names=names, **settings),
        render_mode=render_mode,
        render_camera=render_camera,
        render_size=render_size,
        names=names,
    )


KNOWN = (
    *("size", "depth", "segmentation", "robot", "controller", "control_freq", "horizon", "start"),
    *("draw_size", "sim", "device", "threads", "max_diverged"),
)


def make_sim(
    task: str,
    num_envs: int,
    *,
    names: str = "caliper",
    obs: str = "pixels",
    cameras: Sequence[str] | Mapping[str, int | Sequence[int]] = ("agentview", "robot0_eye_in_hand"),
    proprio: Sequence[str] | None = None,
    frame_stack: int = 1,
    seed: int | None = None,
    **settings: Any,
) -> VectorEnv:
    """The simulator under a Gymnasium environment.

    Args:
        task: name of the task.
        num_envs: number of envs.
        names: of the observations, which decide what `proprio` is if nothing else does.
        obs: "pixels", or "state": no images, but the poses of the bodies.
        cameras: the policy's; a mapping gives each the side of its images, or height and width, pixels.
        proprio: what the robot's own state is, see `caliper.envs.observation.lowdim`.
        frame_stack: frames that an observation holds.
        seed: where the envs' series of episodes starts, until `reset` is told a seed; None draws one.
        settings: what `SimEnv` takes besides, see `KNOWN`.

    Raises:
        CaliperError: an unknown name or setting.
    """
    if names not in NAMES:
        raise CaliperError(f"names={names!r} are unknown; choose one of: {', '.join(NAMES)}")
    if obs not in ("pixels", "state"):
        raise CaliperError(f"obs={obs!r} is unknown; choose one of: pixels, state")
    if type(frame_stack) is not int or frame_stack < 1:
        raise CaliperError(f"frame_stack={frame_stack!r} must be a number of frames, at least 1")
    for name in settings:
        if name not in KNOWN:
            raise CaliperError(
                f"the environment has no setting {name!r}; it knows obs, cameras, proprio, frame_stack, "
                f"seed, names, {', '.join(KNOWN)}, render_mode, render_camera, render_size"
            )
    if isinstance(cameras, Mapping):
        settings["size"] = tuple(_height_width(name, size) for name, size in cameras.items())
    sim = SimEnv(
        task,
        num_envs,
        cameras=tuple(cameras) if obs == "pixels" else (),
        privileged=obs == "state",
        proprio=proprio_keys(names, proprio),
        seed=secrets.randbelow(1 << 20) if seed is None else seed,
        **settings,
    )
    return stacked(sim, frame_stack)


def simulator(env: VectorEnv) -> SimEnv:
    """What `make_sim` has put its stack of frames around."""
    inner = getattr(env, "env", env)
    assert isinstance(inner, SimEnv)
    return inner


def _height_width(camera: str, size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise CaliperError(
            f"cameras: {camera} has the size {size}; give a side in pixels, or (height, width)"
        )
    return sides[0], sides[1]


def _describe(env: Any, sim: VectorEnv, names: str, render_mode: str | None, view: tuple[str, int]) -> None:
    """What both kinds of environment say of themselves; refuses an unknown way to see the envs."""
    if render_mode not in (None, "rgb_array"):
        raise CaliperError(f"render_mode={render_mode!r} does not exist here; use 'rgb_array' or None")
    check_names(names, sim.spec, robot_parts(sim))
    env.render_mode, env._names, env._view = render_mode, names, view
    inner = getattr(sim, "env", sim)
    if isinstance(inner, SimEnv):
        env.metadata = {**env.metadata, "render_fps": inner.control_freq}


def _spaces(env: VectorEnv, name: Callable[[Obs], Named]) -> tuple[Any, Any]:
    """Spaces of one env's observation, as `name` calls its parts, and of its action."""
    spaces = gymnasium.spaces

    def space(value: Any) -> Any:
        if isinstance(value, dict):
            return spaces.Dict({name: space(part) for name, part in value.items()})
        low, high = {"uint8": (0, 255), "float16": (0, np.inf)}.get(value.dtype.name, (-np.inf, np.inf))
        return spaces.Box(low, high, value.shape[1:], value.dtype.type)

    return space(name(example(env.spec))), spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32)


def _actions(sim: VectorEnv, actions: np.ndarray) -> Tensor:
    """Actions (n, a) as a tensor; refuses what is no such array, for one NaN would spoil the physics."""
    want = (sim.num_envs, sim.action_dim)
    if actions.shape != want or not np.issubdtype(actions.dtype, np.number):
        raise CaliperError(
            f"step: the action has shape {actions.shape[-len(want) :]} and type {actions.dtype}; "
            f"numbers of shape {want} are needed"
        )
    if not np.isfinite(actions).all():
        rows = np.flatnonzero(~np.isfinite(actions).all(1)).tolist()
        raise CaliperError(
            f"step: the action holds NaN or infinity (env {', '.join(map(str, rows[:3]))}); "
            "entries must be finite, in [-1, 1]"
        )
    return torch.as_tensor(actions, device=sim.device)


def _row(values: Named, i: int) -> Named:
    return {name: _row(v, i) if isinstance(v, dict) else v[i] for name, v in values.items()}


def _frames(sim: VectorEnv, camera: str, size: int) -> np.ndarray:
    """Images (n, h, w, 3), a copy."""
    return sim.render((camera,), size)[:, 0].permute(0, 2, 3, 1).contiguous().cpu().numpy().copy()
