"""Adroit's human demonstrations and trained policies, as plain arrays in .npz files; reading runs no code.

    demonstrations   lengths (e,), observations (sum t, p), actions (sum t, a), end to end
    a policy         in_shift, in_scale (p,), w0 b0 w1 b1 w2 b2, out_shift, out_scale, log_std (a,)

Both are those of Rajeswaran et al. 2018 (arXiv:1709.10087) in the repository hand_dapg, without its pickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caliper.data.formats.minari import Recording
from caliper.errors import CaliperError, no_file

HINGE, OPEN = 28, 1.35  # of the door's observation, the hinge's angle; radians from which it counts as open
LARGEST = 256 << 20  # bytes of a file
RECORDED = ("lengths", "observations", "actions")
POLICY = ("in_shift", "in_scale", "w0", "b0", "w1", "b1", "w2", "b2", "out_shift", "out_scale", "log_std")
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """A perceptron with two hidden layers of tanh, and Gaussian noise of one size for all states.

    Attributes:
        arrays: by the names above; w0 (h, p), w1 (h, h), w2 (a, h).
    """

    arrays: dict[str, Array]

    def act(self, obs: Array, noise: Array) -> Array:
        """Actions (n, a) in [-1, 1] at observations (n, p), with standard normal `noise` (n, a)."""
        x = self.arrays
        h = (obs - x["in_shift"]) / (x["in_scale"] + 1e-8)
        h = np.tanh(h @ x["w0"].T + x["b0"])
        h = np.tanh(h @ x["w1"].T + x["b1"])
        mean = (h @ x["w2"].T + x["b2"]) * x["out_scale"] + x["out_shift"]
        return np.clip(mean + np.exp(x["log_std"]) * noise, -1, 1)


def read_adroit(path: str | Path, env_id: str, proprio: int, actions: int) -> list[Recording] | TrainedPolicy:
    """Demonstrations, or a policy that can give some.

    Demonstrations are the door's: the binary reward is made anew from the hinge's angle, a step that reaches
    `OPEN` being 1 and terminal. Each loses its last action, of which the file doesn't say where it led.

    Args:
        path: the file.
        env_id: the environment they are wanted for.
        proprio: length of its observation.
        actions: length of its action.

    Raises:
        CaliperError: there is no such file, it is damaged, or of another environment.
    """
    path = Path(path)
    arrays = _arrays(path)
    if set(RECORDED) <= set(arrays):
        lengths, obs, taken = (arrays[name] for name in RECORDED)
        whole = lengths.ndim == 1 and len(lengths) and (lengths >= 2).all() and (lengths % 1 == 0).all()
        if not (whole and obs.ndim == taken.ndim == 2 and lengths.sum() == len(obs) == len(taken)):
            raise CaliperError(f"{path} is damaged: its lengths don't add up to its observations and actions")
        _refuse_widths(path, env_id, (obs.shape[1], taken.shape[1]), (proprio, actions))
        if "HandDoor" not in env_id:
            raise CaliperError(
                f"{path} holds demonstrations, and only the door's can be told to succeed or fail; for "
                f"{env_id} name a policy's file"
            )
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(int)
        return [_door(obs[a:b], taken[a:b]) for a, b in pairwise(ends)]
    if absent := [name for name in POLICY if name not in arrays]:
        raise CaliperError(
            f"{path} holds neither demonstrations ({', '.join(RECORDED)}) nor a policy (it lacks "
            f"{', '.join(absent)})"
        )
    w = [arrays[f"w{i}"] for i in range(3)]
    hidden, width = (w[0].shape[0], w[0].shape[-1]) if w[0].ndim == 2 else (0, 0)
    out = len(arrays["b2"]) if arrays["b2"].ndim == 1 else 0
    shapes = {"w0": (hidden, width), "w1": (hidden, hidden), "w2": (out, hidden), "b0": (hidden,)}
    shapes |= {"b1": (hidden,), "b2": (out,), "in_shift": (width,), "in_scale": (width,)}
    shapes |= dict.fromkeys(("out_shift", "out_scale", "log_std"), (out,))
    if wrong := [name for name, shape in shapes.items() if arrays[name].shape != shape]:
        raise CaliperError(f"{path} is damaged: {', '.join(wrong)} don't fit the other layers")
    _refuse_widths(path, env_id, (width, out), (proprio, actions))
    return TrainedPolicy({name: arrays[name] for name in POLICY})


def _arrays(path: Path) -> dict[str, Array]:
    if fault := no_file(path):
        raise CaliperError(f"data.demonstrations={path} {fault}")
    if path.stat().st_size > LARGEST:
        raise CaliperError(f"{path} is larger than {LARGEST >> 20} MiB; Adroit's files are a few")
    try:
        with np.load(path, allow_pickle=False) as file:
            if sum(part.file_size for part in file.zip.infolist()) > LARGEST:
                raise ValueError(f"it unfolds to more than {LARGEST >> 20} MiB")
            found = {
                name: np.asarray(file[name], np.float64)
                for name in file.files
                if name in {*RECORDED, *POLICY}
            }
    except Exception as error:  # numpy, zipfile and zlib raise whatever the bytes lead them to
        first = (str(error) or repr(error)).splitlines()[0]
        raise CaliperError(f"{path} is no .npz file of plain arrays ({first})") from error
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise CaliperError(f"{path} is damaged: {name} holds a value that is not finite")
    return found


def _refuse_widths(path: Path, env_id: str, found: tuple[int, int], wanted: tuple[int, int]) -> None:
    if found != wanted:
        raise CaliperError(
            f"{path} has observations and actions of {found[0]} and {found[1]} numbers, {env_id} of "
            f"{wanted[0]} and {wanted[1]}; name the file of that task"
        )


def _door(obs: Array, actions: Array) -> Recording:
    solved = obs[1:, HINGE] >= OPEN
    made = np.clip(actions[:-1], -1, 1).astype(np.float32)  # after the last observation nothing is recorded
    return Recording(obs.astype(np.float32), made, solved.astype(np.float32), solved)
