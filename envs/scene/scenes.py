"""robosuite's scenes as one harmonised MuJoCo model, for physics on every engine and for every image.

robosuite supplies the robots, arenas and objects (MJCF), never the step loop. The composed scene is then
harmonised: what only costs time or renders differently in different renderers is removed, so that the two
engines and all images come from one model whose hash identifies it in datasets and checkpoints.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from PIL import Image

from caliper.envs.scene.merge import merge_visual_meshes
from caliper.errors import CaliperError, one_of

TEXTURE_SIZE = 64  # pixels; the ray tracer samples points, so larger textures only alias at policy resolution
# Light that a surface facing its source receives; OpenGL clamps the sum at 1 and the ray tracer does not.
HEADLIGHT_AMBIENT, HEADLIGHT_DIFFUSE, LIGHT_DIFFUSE = 0.1, 0.3, 0.55
VISUAL_GROUP = 1  # robosuite's group of geoms that are seen
HARMONISED = 1  # version of the rules below; part of the scene's hash
ROBOTS = {"panda": "Panda", "sawyer": "Sawyer", "iiwa": "IIWA", "ur5e": "UR5e", "kinova3": "Kinova3"}

# robosuite's grippers whose links jam in the air, and then break apart, where a pair of meshes that touch
# gets several contacts, as MuJoCo 4 gives it unless told not to. robosuite was made for one.
ONE_CONTACT = ("Robotiq85Gripper",)
# The first link of robosuite's Sawyer is a sphere that stands on the cylinder of its mount, at a distance of
# zero to the rounding. On the CPU they touch, and what that rubs can hold the arm's first joint; in float32
# they do not. They need no contact: a joint connects them.
NO_CONTACT = {"sawyer": ("right_l0", "right_arm_base_link")}


@dataclass(frozen=True)
class Scene:
    """A compiled scene and the hash that identifies it (first 16 hex digits of SHA-256)."""

    model: mujoco.MjModel
    hash: str

    @property
    def state_dim(self) -> int:
        """See the function."""
        return state_dim(self.model)


def state_dim(model: mujoco.MjModel) -> int:
    """Length of a state: time, positions, velocities, and the poses of what is placed anew each time."""
    return int(1 + model.nq + model.nv + 7 * model.nmocap)


@cache
def load_robosuite() -> Any:
    """Imports `robosuite.models` without its import-time warnings.

    Raises:
        CaliperError: robosuite is not installed; says the one line that installs it.
    """
    root = logging.getLogger("robosuite_logs")
    root.addFilter(lambda record: record.levelno >= logging.ERROR)
    opengl = os.environ.pop("MUJOCO_GL", None)  # it would load the one that is named there
    try:
        import robosuite.models as models
    except ImportError as error:
        raise CaliperError(
            f"robosuite cannot be imported ({error}); install it with: pip install --no-deps robosuite==1.5.2"
        ) from error
    finally:
        # It asks for EGL there. Where there is none, no process started from this one could import mujoco.
        os.environ.pop("MUJOCO_GL", None)
        if opengl is not None:
            os.environ["MUJOCO_GL"] = opengl
    return models


def mounted(robot: str) -> tuple[Any, Any]:
    """Robosuite's model of a robot on its default mount, with its default gripper, and that gripper's model.

    Args:
        robot: one of `ROBOTS`.

    Raises:
        CaliperError: no such robot.
    """
    if robot not in ROBOTS:
        raise CaliperError(f"robot '{robot}' is unknown; {one_of(ROBOTS, robot)}")
    load_robosuite()
    from robosuite.models.bases import robot_base_factory
    from robosuite.models.grippers import gripper_factory
    from robosuite.models.robots import create_robot

    model = create_robot(ROBOTS[robot], idn=0)
    model.add_base(base=robot_base_factory(model.default_base, idn=0))
    gripper = gripper_factory(model.default_gripper["right"], idn="0_right")
    model.add_gripper(gripper, model.eef_name["right"])
    return model, gripper


def compose(
    arena: Any, objects: list[Any], base_pos: tuple[float, float, float], robot: str
) -> mujoco.MjSpec:
    """A robot of robosuite with its gripper and mount, an arena and objects, as an editable MuJoCo spec.

    Args:
        arena: a `robosuite.models.arenas.Arena`.
        objects: `robosuite.models.objects.MujocoObject`s.
        base_pos: the robot's base in the world, metres.
        robot: one of `ROBOTS`.
    """
    model, gripper = mounted(robot)
    from robosuite.models.tasks import ManipulationTask

    model.set_base_xpos(base_pos)
    arena.set_origin([0, 0, 0])
    task = ManipulationTask(mujoco_arena=arena, mujoco_robots=[model], mujoco_objects=objects)
    spec = mujoco.MjSpec.from_string(task.get_xml())
    spec.option.disableflags |= _contact_flags([gripper])
    if robot in NO_CONTACT:
        link, mount = (f"{model.naming_prefix}{name}" for name in NO_CONTACT[robot])
        spec.add_exclude(bodyname1=link, bodyname2=mount)
    return spec


def _contact_flags(grippers: Iterable[Any]) -> int:
    one = any(type(gripper).__name__ in ONE_CONTACT for gripper in grippers)
    return int(mujoco.mjtDisableBit.mjDSBL_MULTICCD) * one


def mend_contacts(env: Any) -> None:
    """Gives an environment of robosuite, whose model is built, the contacts that `compose` gives a scene."""
    model = env.sim.model._model
    ours = {theirs: name for name, theirs in ROBOTS.items()}
    for robot in env.robots:
        model.opt.disableflags |= _contact_flags(robot.gripper.values())
        if (name := ours.get(robot.name)) in NO_CONTACT:
            link = model.body(f"{robot.robot_model.naming_prefix}{NO_CONTACT[name][0]}").id
            geoms = model.geom_bodyid == link  # nothing else ever comes near them
            model.geom_contype[geoms] = model.geom_conaffinity[geoms] = 0


def harmonise(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Makes a composed scene cheap and the same in every renderer. The robot's physics is untouched."""
    for name in ("left_eef_target", "right_eef_target"):  # teleoperation markers
        if spec.body(name) is not None:
            spec.delete(spec.body(name))
    for geom in list(spec.geoms):
        if geom.contype == 0 and geom.conaffinity == 0 and geom.rgba[3] < 1:  # the ray tracer does not blend
            spec.delete(geom)
    for sensor in list(spec.sensors):  # force and torque at the wrist: nobody reads them
        if sensor.type != mujoco.mjtSensor.mjSENS_CONTACT:
            spec.delete(sensor)
    for texture in spec.textures:
        texture.colorspace = mujoco.mjtColorSpace.mjCOLORSPACE_LINEAR  # the ray tracer ignores sRGB
    for material in spec.materials:
        material.specular = material.shininess = material.reflectance = 0.0
    for light in spec.lights:
        light.diffuse, light.ambient, light.specular = [LIGHT_DIFFUSE] * 3, [0.0] * 3, [0.0] * 3
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse = [HEADLIGHT_AMBIENT] * 3, [HEADLIGHT_DIFFUSE] * 3
    headlight.specular = [0.0] * 3
    return spec


def _shrink(texture: Any) -> None:
    """Replaces a texture's file by its pixels, box-filtered to TEXTURE_SIZE."""
    image = Image.open(texture.file).convert("RGB")
    if texture.vflip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    size = (min(TEXTURE_SIZE, image.width), min(TEXTURE_SIZE, image.height))
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX))
    if texture.type == mujoco.mjtTexture.mjTEXTURE_CUBE:  # one image on all six faces
        size, pixels = (size[0], 6 * size[0]), np.concatenate([pixels[: size[0]]] * 6)
    texture.file = ""
    texture.width, texture.height, texture.nchannel = size[0], size[1], 3
    texture.data = np.ascontiguousarray(pixels).tobytes()


def build(compose_scene: Callable[[], mujoco.MjSpec]) -> Scene:
    """Composes, harmonises, compiles and hashes a task's scene."""
    spec = harmonise(compose_scene())
    # Asset paths differ between machines, their content is fixed by robosuite's version.
    xml = re.sub(r'file="([^"]+)"', lambda m: f'file="{Path(m.group(1)).name}"', spec.to_xml())
    identity = f"{HARMONISED}|robosuite {version('robosuite')}|{TEXTURE_SIZE}|{xml}"
    for texture in spec.textures:  # after the XML: a texture held in memory cannot be written as XML
        if texture.file:
            _shrink(texture)
    merge_visual_meshes(spec, VISUAL_GROUP)  # changes neither physics nor images, hence not the identity
    model = spec.compile()
    # Either engine raises each contact's friction to this at least; Warp warns of geoms without, as Sawyer's
    # fingers are. So this changes nothing but the warning.
    np.maximum(model.geom_friction, mujoco.mjMINMU, out=model.geom_friction)
    return Scene(model, hashlib.sha256(identity.encode()).hexdigest()[:16])
