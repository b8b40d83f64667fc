"""What an environment of gymnasium-robotics looks like: its own model, for Caliper's renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from caliper.envs.scene.scenes import LIGHT_DIFFUSE, VISUAL_GROUP, harmonise

# What an episode moves although it has no joint: where the door hangs, the pose that the pen is to take,
# where the object lies at first, and the goals.
BODIES, SITES = ("frame", "target", "Object"), ("target",)
MARK = 0.5  # metres, the largest radius of a goal's mark
LIGHT, HEADLIGHT = (
    1.2,
    0.5,
)  # of all lamps together, few of which shine on the same place; beside the camera's
HIDDEN = 3  # group of geoms from which on MuJoCo's viewers don't show them
# Where the camera `showcase` stands and what it looks at, metres.
SHOWCASE = {
    "AdroitHandDoor": ((-0.45, -0.95, 0.65), (0.0, 0.0, 0.2)),
    "AdroitHandPen": ((-0.15, -0.75, 0.6), (0.0, -0.15, 0.22)),
    "AdroitHandRelocate": ((-0.8, -0.9, 0.75), (0.0, -0.1, 0.15)),
    "FrankaKitchen": ((-1.3, -1.35, 2.75), (-0.3, 0.35, 2.1)),
}


@dataclass(frozen=True)
class Fixtures:
    """The bodies and sites of a model that an episode moves although they have no joint, by name."""

    bodies: tuple[str, ...]
    sites: tuple[str, ...]

    @staticmethod
    def of(model: mujoco.MjModel) -> Fixtures:
        """Those of a model."""
        fixed = {model.body(i).name for i in range(model.nbody) if model.body_jntnum[i] == 0}
        sites = {model.site(i).name for i in range(model.nsite)}
        return Fixtures(
            tuple(name for name in BODIES if name in fixed), tuple(name for name in SITES if name in sites)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bodies in what is drawn, where a site has one too."""
        return (*self.bodies, *(f"{name}_mark" for name in self.sites))

    def poses(self, model: mujoco.MjModel) -> NDArray[np.float64]:
        """Where they are in an environment's model, (7 f,): place and quaternion of each."""
        bodies = [[*model.body(name).pos, *model.body(name).quat] for name in self.bodies]
        sites = [[*model.site(name).pos, 1.0, 0.0, 0.0, 0.0] for name in self.sites]
        return np.array(bodies + sites, np.float64).ravel()


def drawn_model(env: Any, env_id: str, xml: str | None) -> mujoco.MjModel:
    """The environment's model as the renderer wants it, with a mark at each goal and the camera `showcase`.

    Args:
        env: the environment; its joints are the model's.
        env_id: its name.
        xml: its model, where no file holds it any more.
    """
    if xml is None:
        spec = mujoco.MjSpec.from_file(getattr(env, "robot_env", env).fullpath)
    else:
        spec = mujoco.MjSpec.from_string(xml)
    for geom in spec.geoms:
        geom.group = VISUAL_GROUP if geom.group < HIDDEN else HIDDEN
    for name in Fixtures.of(env.model).sites:
        site, body = spec.site(name), spec.worldbody.add_body(name=f"{name}_mark")
        mark = body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, contype=0, conaffinity=0, group=VISUAL_GROUP)
        mark.size, mark.rgba = [min(site.size[0], MARK), 0, 0], [*site.rgba[:3], 1]
    harmonise(spec)
    for light in spec.lights:
        light.diffuse = [min(LIGHT_DIFFUSE, LIGHT / len(spec.lights))] * 3
    spec.visual.headlight.diffuse = [HEADLIGHT] * 3
    _add_showcase(spec, env_id, env.model)
    return spec.compile()


def _add_showcase(spec: mujoco.MjSpec, env_id: str, model: mujoco.MjModel) -> None:
    """A camera that sees all that matters; a maze whole, from above and a little aside."""
    near = [name for name in SHOWCASE if env_id.startswith(name)]
    if near:
        place, target = (np.array(v) for v in SHOWCASE[near[0]])
    else:
        walls = [i for i in range(model.ngeom) if model.geom(i).name.startswith("block")]
        reach = np.abs(model.geom_pos[walls, :2]).max() + 2 if walls else 8.0
        place, target = np.array([0, -0.8 * reach, 2.2 * reach]), np.array([0, -0.05 * reach, 0])
    ahead = (target - place) / np.linalg.norm(target - place)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    camera = spec.worldbody.add_camera(name="showcase", pos=place, fovy=45)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *np.cross(right, ahead)]
