"""Where things are now, by name: what a task judges and a script looks at."""

from __future__ import annotations

import mujoco
from torch import Tensor

from caliper.envs.engines.base import Engine

TOUCH = "touch "  # a contact sensor's name: this, and its two bodies with a comma between


class Situation:
    """n envs as they are, in metres and radians. What is asked for is read from the engine's memory then."""

    def __init__(self, engine: Engine) -> None:
        """Args: the engine, whose controller knows the gripper."""
        model = engine.model
        self._engine, self._site = engine, engine.controller.index.grip_site
        self._bodies = {model.body(i).name: i for i in range(model.nbody)}
        self._geoms = {model.geom(i).name: i for i in range(model.ngeom)}
        self._sites = {model.site(i).name: i for i in range(model.nsite)}
        self._joints = {model.joint(i).name: int(model.jnt_qposadr[i]) for i in range(model.njnt)}
        self._sensors = {model.sensor(i).name: int(model.sensor_adr[i]) for i in range(model.nsensor)}

    @property
    def grip_pos(self) -> Tensor:
        """Position of the grip site, (n, 3)."""
        return self._engine.site_xpos[:, self._site]

    @property
    def grip_mat(self) -> Tensor:
        """Rotation of the grip site, (n, 3, 3)."""
        return self._engine.site_xmat[:, self._site].view(-1, 3, 3)

    def pos(self, body: str) -> Tensor:
        """Position of a body's origin, (n, 3)."""
        return self._engine.xpos[:, self._bodies[body]]

    def mat(self, body: str) -> Tensor:
        """Rotation of a body, (n, 3, 3)."""
        return self._engine.xmat[:, self._bodies[body]].view(-1, 3, 3)

    def geom(self, name: str) -> Tensor:
        """Position of a geom's centre, (n, 3)."""
        return self._engine.pose_arrays()["geom_xpos"][:, self._geoms[name]]

    def site(self, name: str) -> Tensor:
        """Position of a site, (n, 3)."""
        return self._engine.site_xpos[:, self._sites[name]]

    def joint(self, name: str) -> Tensor:
        """Position of a hinge, radians, or of a slide, metres, (n,)."""
        return self._engine.qpos[:, self._joints[name]]

    def touching(self, body: str, other: str) -> Tensor:
        """Whether two bodies or geoms touch, one of the task's `contacts`, bool (n,)."""
        return self._engine.sensordata[:, self._sensors[f"{TOUCH}{body},{other}"]] > 0


def add_touch_sensor(spec: mujoco.MjSpec, one: str, other: str) -> None:
    """Lets `Situation.touching` know about two bodies or geoms. What hangs on a body belongs to it."""
    sensor = spec.add_sensor(
        name=f"{TOUCH}{one},{other}",
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=_kind(spec, one),
        objname=one,
        reftype=_kind(spec, other),
        refname=other,
    )
    sensor.intprm[:3] = (1 << int(mujoco.mjtConDataField.mjCONDATA_FOUND), 0, 1)


def _kind(spec: mujoco.MjSpec, name: str) -> mujoco.mjtObj:
    """Of what is called so: a body with its subtree, or a geom."""
    return mujoco.mjtObj.mjOBJ_GEOM if spec.body(name) is None else mujoco.mjtObj.mjOBJ_XBODY
