"""What a task is: a scene, where its object starts, when it is solved, and how a script would solve it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Numbers of the scripted expert (`caliper.envs.experts`), metres and radians.

    Attributes:
        hover: height above the grasp point at which the gripper aligns.
        carry_z: height of the gripper while it carries.
        target: where to put the object, world x and y; None if lifting is all there is to do.
        release_z: height of the object's centre at which to let go.
        target_tol: how near the target, horizontally, before lowering.
        symmetry: angle after which the object looks the same again; None if the gripper need not turn to it.
    """

    hover: float
    carry_z: float
    target: tuple[float, float] | None = None
    release_z: float = 0.0
    target_tol: float = 0.012
    symmetry: float | None = None


class Task(ABC):
    """One task. Instances hold no state of any world.

    Attributes:
        name: as on the command line.
        object_body: body to manipulate.
        observed: further bodies whose poses a state observation holds, after the object's.
        plan: the scripted expert's numbers.
    """

    name: str
    object_body: str
    observed: tuple[str, ...] = ()
    plan: Plan

    @abstractmethod
    def compose(self) -> mujoco.MjSpec:
        """The scene before harmonisation."""

    @abstractmethod
    def place(self, uniform: Tensor) -> Tensor:
        """Start poses of the object from uniform numbers (n, 4): position and quaternion (wxyz), (n, 7)."""

    @abstractmethod
    def success(self, object_pos: Tensor, grip_pos: Tensor) -> Tensor:
        """Whether the task is solved, bool (n,), from positions (n, 3) of object and grip site."""


def upright(x: Tensor, y: Tensor, z: float, yaw: Tensor) -> Tensor:
    """Poses (n, 7) of objects standing upright at (x, y, z), turned by yaw about the vertical."""
    zero = torch.zeros_like(x)
    return torch.stack([x, y, zero + z, torch.cos(yaw / 2), zero, zero, torch.sin(yaw / 2)], dim=1)


def spread(uniform: Tensor, low: float, high: float) -> Tensor:
    """Maps uniform numbers in [0, 1) to [low, high)."""
    return low + (high - low) * uniform


def add_camera(
    spec: mujoco.MjSpec, name: str, pos: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    """Adds a camera at `pos` that looks at `target`, its horizon level."""
    eye, at = np.array(pos), np.array(target)
    back = (eye - at) / np.linalg.norm(eye - at)  # MuJoCo's cameras look along -z
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    spec.worldbody.add_camera(name=name, pos=pos, quat=quat)
