"""A recording's own model, repaired so that today's MuJoCo compiles it on this machine.

Called by `caliper.importing.model.child` alone, as what MuJoCo makes of a stranger's model may be its end.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.parsers import expat

import mujoco
from PIL import Image

from caliper.envs.scene.scenes import VISUAL_GROUP
from caliper.errors import CaliperError
from caliper.importing.model.assets import locate, robosuite_assets

NUMBERS = re.compile(r"\s*\[([^\]]*)\]\s*")  # a Python list where numbers belong: pos="[0, 0, 0.005]"
NO_NUMBER = re.compile(r"(?i)(?:^|\s)[+-]?(?:nan|inf|infinity)(?:\s|$)")
REPEATED = ("iterations", "ls_iterations", "noslip_iterations", "ccd_iterations", "sdf_iterations")
MOST_ITERATIONS = 1000
GONE = ("njmax", "nconmax", "nstack", "memory")  # sizes that MuJoCo finds out by itself since 2.3
REACHING_OUT = ("include", "plugin", "extension", "attach", "model")
GROWING = ("replicate", "flexcomp", "composite")  # a few words that stand for any number of bodies
LOOKED_FOR = ("mesh", "texture")  # elements whose file is; any other would be opened as it is named
VISUAL_LINK = re.compile(r"robots/(\w+)/(?:obj_)?meshes/(?:\w+/)?(link\d)_vis")


def physics_spec(xml: str, assets: Path | None = None) -> mujoco.MjSpec:
    """What moves and collides in a recording's model, without its looks.

    Args:
        xml: the model as recorded.
        assets: folder of the meshes that are not robosuite's.

    Raises:
        CaliperError: it collides with a mesh that is not here, or is no model; says why.
    """
    spec = _parsed(xml)
    for geom in [g for g in spec.geoms if _only_seen(spec, g)]:
        spec.delete(geom)
    for part in (*spec.geoms, *spec.sites):
        part.material = ""
    for group in (spec.materials, spec.textures, spec.lights, spec.cameras):
        for part in list(group):
            spec.delete(part)
    used = {g.meshname for g in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)
        elif mesh.file:
            mesh.file = str(_found(mesh.file, assets))
    return spec


def visual_spec(xml: str, assets: Path | None = None) -> tuple[mujoco.MjSpec, list[str]]:
    """A recording's model with all that can be seen of it here, and what could not be found.

    The visual mesh of a robot's link that is no longer there gives way to the installed robot's.

    Args:
        xml: the model as recorded.
        assets: folder of the meshes and textures that are not robosuite's.

    Raises:
        CaliperError: as `physics_spec`.
    """
    spec, lost = _parsed(xml), []
    for texture in [t for t in spec.textures if t.file]:
        if (found := locate(texture.file, assets)) is None:
            lost.append(Path(texture.file).name)
            for material in spec.materials:
                material.textures = ["" if name == texture.name else name for name in material.textures]
            spec.delete(texture)
            continue
        texture.file = str(found)
        with Image.open(found) as image:
            square = image.width == image.height
        if texture.type == mujoco.mjtTexture.mjTEXTURE_CUBE and not square:  # another image of that name
            texture.type = mujoco.mjtTexture.mjTEXTURE_2D
    for mesh in [m for m in spec.meshes if m.file]:
        if (found := locate(mesh.file, assets)) is not None:
            mesh.file = str(found)
            continue
        wearing = [g for g in spec.geoms if g.meshname == mesh.name]
        if any(g.contype or g.conaffinity for g in wearing):
            raise _missing(mesh.file)
        link = VISUAL_LINK.search(mesh.file.replace("\\", "/"))
        if link is None or not all(_dress(spec, geom, *link.groups()) for geom in wearing):
            lost.append(Path(mesh.file).name)
        for geom in wearing:
            spec.delete(geom)
        spec.delete(mesh)
    return spec, lost


def _parsed(xml: str) -> mujoco.MjSpec:
    """The model as an editable spec, its malformed numbers and forgotten attributes fixed."""
    _refuse_entities(xml)
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise CaliperError(f"its model is no XML ({error})") from error
    for element in root.iter():
        if element.tag in GROWING:
            raise CaliperError(f"its model has a <{element.tag}>, which no model that robosuite saves has")
        named = {name for name in element.attrib if name.startswith("file")}  # fileright and others too
        if element.tag in REACHING_OUT or named - ({"file"} if element.tag in LOOKED_FOR else set()):
            raise CaliperError(f"its model has a <{element.tag}>, which reaches out of the file")
        for name, value in element.attrib.items():
            if NO_NUMBER.search(value):  # MuJoCo searches for ever where such a geom is
                raise CaliperError(f'its model has {name}="{value[:80]}", which is no number')
            if listed := NUMBERS.fullmatch(value):
                element.set(name, listed[1].replace(",", " "))
    for size in root.iter("size"):
        for name in GONE:
            size.attrib.pop(name, None)
    for compiler in root.iter("compiler"):  # every file is looked for, none is below these
        for name in ("meshdir", "texturedir", "assetdir"):
            compiler.attrib.pop(name, None)
    try:
        spec = mujoco.MjSpec.from_string(ET.tostring(root, encoding="unicode"))
    except (ValueError, mujoco.FatalError) as error:
        raise CaliperError(f"MuJoCo does not take its model: {_sentence(error)}") from error
    if (most := max(getattr(spec.option, name) for name in REPEATED)) > MOST_ITERATIONS:
        raise CaliperError(f"its model asks for {most} iterations of a solver; robosuite's for 100")
    return spec


def _refuse_entities(xml: str) -> None:
    """Refuses a model that declares entities, which can grow without end, before anything expands them."""

    def refuse(*_: object) -> None:
        raise CaliperError("its model has a document type, which no robosuite model has")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    with suppress(expat.ExpatError):  # whoever reads it next says so
        parser.Parse(xml, True)


def _only_seen(spec: mujoco.MjSpec, geom: Any) -> bool:
    """Whether physics is the same without a geom: it touches nothing and gives its body no mass."""
    if geom.contype or geom.conaffinity:
        return False
    low, high = spec.compiler.inertiagrouprange
    weightless = not low <= geom.group <= high or geom.mass == 0
    return weightless or geom.parent.explicitinertial or geom.parent.name == "world"


def _found(file: str, assets: Path | None) -> Path:
    if (found := locate(file, assets)) is None:
        raise _missing(file)
    return found


def _missing(file: str) -> CaliperError:
    return CaliperError(
        f"its model collides or has its mass with {file[-200:]}, which is not installed; name the folder "
        "that holds it with --assets"
    )


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _dress(spec: mujoco.MjSpec, geom: Any, robot: str, link: str) -> bool:
    """Gives a geom's body the visual geoms of the installed robot's link; False if there are none."""
    folder = robosuite_assets() / "robots" / robot
    if not (folder / "robot.xml").is_file():
        return False
    installed = ET.parse(folder / "robot.xml").getroot()
    meshes = {m.get("name"): m for m in installed.iter("mesh")}
    colours = {m.get("name"): m.get("rgba") for m in installed.iter("material")}
    bodies = [b for b in installed.iter("body") if b.get("name") == link]
    seen = [
        g for b in bodies for g in b.findall("geom") if g.get("contype") == "0" and g.get("mesh") in meshes
    ]
    for part in seen:
        mesh, name = meshes[part.get("mesh")], f"{geom.parent.name}_{part.get('mesh')}"
        spec.add_mesh(
            name=name, file=str(folder / str(mesh.get("file"))), scale=_numbers(mesh.get("scale"), "1 1 1")
        )
        geom.parent.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            pos=_numbers(part.get("pos"), "0 0 0"),
            quat=_numbers(part.get("quat"), "1 0 0 0"),
            rgba=_numbers(part.get("rgba") or colours.get(part.get("material")), "0.9 0.9 0.9 1"),
            contype=0,
            conaffinity=0,
            group=VISUAL_GROUP,
            mass=0,
        )
    return bool(seen)


def _numbers(text: str | None, default: str) -> list[float]:
    return [float(word) for word in (text or default).split()]
