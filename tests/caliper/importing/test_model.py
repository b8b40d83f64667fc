"""Models of other machines and versions compile here, or are refused with the reason."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

from caliper.errors import CaliperError
from caliper.importing.model.assets import locate, robosuite_assets, tail
from caliper.importing.model.child import try_out
from caliper.importing.model.compiled import COLOUR, physics_model, visual_model
from caliper.importing.model.repair import physics_spec, visual_spec

BOX = """<mujoco><option timestep="0.002"/><asset>{asset}</asset><worldbody><body name="b">
<joint name="j" type="slide"/><geom type="box" size=".1 .1 .1"/>{geom}</body></worldbody></mujoco>"""
OTHERS = "/home/someone/robosuite/models/assets"


def test_a_path_counts_from_its_last_assets_folder():
    assert tail(f"{OTHERS}/arenas/../textures/wood-tiles.png") == ("textures", "wood-tiles.png")
    assert tail("C:\\x\\models\\assets\\robots\\panda\\meshes\\link0.stl")[0] == "robots"
    assert tail("/LIBERO/assets/scenes/../textures/a.png") == ("LIBERO", "assets", "textures", "a.png")


@pytest.mark.parametrize(
    ("recorded", "installed"),
    [
        ("arenas/../textures/ceramic.png", "textures/ceramic.png"),
        ("robots/panda/meshes/link3.stl", "robots/panda/meshes/link3.stl"),
        ("robots/panda/meshes/pedestal.stl", "bases/meshes/rethink_mount/pedestal.stl"),
        ("mounts/meshes/rethink_mount/pedestal.stl", "bases/meshes/rethink_mount/pedestal.stl"),
        ("elsewhere/panda_gripper/finger.stl", "grippers/meshes/panda_gripper/finger.stl"),
    ],
)
def test_assets_are_found_where_they_moved_to(recorded, installed):
    assert locate(f"{OTHERS}/{recorded}") == robosuite_assets() / installed


def test_a_path_is_never_opened_as_it_stands(tmp_path):
    mesh = tmp_path / "only_here.stl"
    mesh.write_bytes(b"")
    assert locate(str(mesh)) is None
    assert locate(f"{OTHERS}/{'../' * 100_000}robots/panda/meshes/link3.stl") is None


def test_a_folder_of_assets_gives_the_file_that_shares_most_of_the_path(tmp_path):
    for name in ("objects/milk/visual/milk.stl", "scenes/milk/visual/milk.stl", "a/milk.obj", "b/milk.obj"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = locate("/src/LIBERO/assets/objects/milk/visual/milk.stl", tmp_path)
    assert found == tmp_path / "objects/milk/visual/milk.stl"
    assert locate("/src/LIBERO/c/milk.obj", tmp_path) is None  # two do equally well


@pytest.mark.parametrize("name", ["robosuite100_lift", "robosuite100_pick_place", "teleop13_handover"])
def test_old_models_compile_and_fit_their_states(recordings, name):
    demo = recordings[name].demos[0]
    model = physics_model(demo.model)
    assert demo.states.shape[1] == 1 + model.nq + model.nv
    assert model.ntex == model.nmat == 0


def test_leaving_out_what_is_only_seen_changes_no_physics(recordings):
    xml = recordings["robosuite152_can"].demos[0].model
    bare, full = physics_model(xml), visual_spec(xml)[0].compile()
    assert bare.ngeom < full.ngeom
    for name in ("body_mass", "body_inertia", "body_ipos", "dof_armature", "dof_damping", "qpos0"):
        assert np.array_equal(getattr(bare, name), getattr(full, name)), name


def test_old_visual_links_become_the_installed_robots(recordings):
    """robosuite 1.0 has one mesh where 1.5 has several under other names."""
    spec, lost = visual_spec(recordings["robosuite100_lift"].demos[0].model)
    seen = [g for g in spec.body("robot0_link3").geoms if not g.contype]
    root = ET.parse(robosuite_assets() / "robots/panda/robot.xml").getroot()
    (link,) = (b for b in root.iter("body") if b.get("name") == "link3")
    assert len(seen) == sum(g.get("contype") == "0" for g in link.findall("geom"))
    assert lost == []
    spec.compile()


def _square(path):
    with Image.open(path) as image:
        return image.width == image.height


def test_a_texture_that_is_no_longer_square_is_no_cube(tmp_path):
    flat = next(p for p in sorted((robosuite_assets() / "textures").glob("*.png")) if not _square(p))
    texture = f'<texture name="t" type="cube" file="{OTHERS}/textures/{flat.name}"/>'
    spec, _ = visual_spec(BOX.format(asset=texture + '<material name="m" texture="t"/>', geom=""))
    assert spec.textures[0].type == mujoco.mjtTexture.mjTEXTURE_2D
    spec.compile()


def test_numbers_in_brackets_are_numbers():
    spec = BOX.format(asset="", geom='<site name="s" pos="[0, 0, 0.005]"/>')
    assert physics_model(spec).site_pos[0].tolist() == [0, 0, 0.005]


def test_forgotten_sizes_are_dropped():
    xml = BOX.format(asset="", geom="").replace("<asset>", '<size njmax="5000" nconmax="5000"/><asset>')
    assert physics_model(xml).nq == 1


def test_models_that_differ_in_a_colour_are_compiled_once():
    xml = BOX.format(asset="", geom='<site name="s" rgba="0 0 0 {}"/>')
    assert physics_model(xml.format("0.5")) is physics_model(xml.format("0.50000000007"))


def test_a_missing_mesh_that_collides_is_refused():
    xml = BOX.format(
        asset=f'<mesh name="m" file="{OTHERS}/objects/unknown/thing.stl"/>',
        geom='<geom type="mesh" mesh="m"/>',
    )
    for get in (physics_model, visual_model):
        with pytest.raises(CaliperError, match=r"thing\.stl, which is not installed; .*--assets"):
            get(xml)


def test_a_missing_mesh_that_is_only_seen_is_left_out():
    xml = BOX.format(
        asset=f'<mesh name="m" file="{OTHERS}/objects/unknown/thing.stl"/>',
        geom='<geom type="mesh" mesh="m" contype="0" conaffinity="0" mass="0"/>',
    )
    assert physics_model(xml).ngeom == 1
    model, lost = visual_model(xml)
    assert (model.ngeom, lost) == (1, ["thing.stl"])


def test_meshes_from_a_folder_are_used(tmp_path):
    source = robosuite_assets() / "robots/panda/meshes/link0.stl"
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "thing.stl").write_bytes(source.read_bytes())
    xml = BOX.format(
        asset='<mesh name="m" file="/LIBERO/assets/unknown/thing.stl"/>', geom='<geom type="mesh" mesh="m"/>'
    )
    assert physics_model(xml, tmp_path).nmesh == 1


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><mujoco/>', "document type"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]><mujoco>&a;</mujoco>', "document type"),
        ("<mujoco>" + "<!--" * 100_000, "no XML"),
        ("<mujoco", "no XML"),
        ("<mujoco><worldbody><replicate count='9'/></worldbody></mujoco>", "a <replicate>, which no model"),
        ('<mujoco><include file="/etc/passwd"/></mujoco>', "<include>"),
        ('<mujoco><extension><plugin plugin="x"/></extension></mujoco>', "<extension>"),
        ("<mujoco><worldbody><body><joint/></body></worldbody></mujoco>", "MuJoCo does not"),
        ("<mujoco><nonsense/></mujoco>", "MuJoCo does not take"),
        ("<mujoco>" + "<body>" * 5000 + "</body>" * 5000 + "</mujoco>", "nested deeper"),
    ],
)
def test_what_is_no_model_is_refused(xml, words):
    with pytest.raises(CaliperError, match=words):
        physics_model(xml)


def test_assets_are_asked_from_folders_that_exist():
    assert locate("", Path("/nonexistent")) is None


def test_a_model_that_comes_from_the_other_process_is_the_one_compiled_here(recordings):
    """Every number that physics depends on, bit by bit."""
    xml = recordings["robosuite141_lift"].demos[0].model
    theirs, ours = physics_model(xml), physics_spec(COLOUR.sub("", xml)).compile()
    for name in ("body_mass", "body_inertia", "geom_size", "geom_pos", "mesh_vert", "dof_armature", "qpos0"):
        assert np.array_equal(getattr(theirs, name), getattr(ours, name)), name
    assert (theirs.nq, theirs.nu, theirs.opt.timestep) == (ours.nq, ours.nu, ours.opt.timestep)


@pytest.mark.parametrize(
    ("asset", "geom", "words"),
    [
        ('<texture name="t" type="cube" fileright="/etc/passwd"/>', "", "<texture>, which reaches out"),
        ('<hfield name="h" nrow="100000" ncol="100000" size="1 1 1 1"/>', "", "MuJoCo does not compile"),
        ("", '<plugin plugin="mujoco.sdf.torus"/>', "<plugin>, which reaches out"),
        ("", '<x:include xmlns:x="http://x" file="/etc/passwd"/>', "include>, which reaches out"),
        ("", '<geom size="1" pos="nan 0 0"/>', 'pos="nan 0 0", which is no number'),
        ("", '<geom size="1" pos="0 -Inf 0"/>', 'pos="0 -Inf 0", which is no number'),
    ],
)
def test_what_would_fill_memory_or_time_or_open_files_is_refused(asset, geom, words):
    with pytest.raises(CaliperError, match=words):
        physics_model(BOX.format(asset=asset, geom=geom))


def test_a_pile_that_cannot_be_moved_is_refused():
    balls = '<geom size=".1"/>' * 1500
    xml = BOX.format(asset="", geom="").replace(
        "</worldbody>", f"{balls}<body><freejoint/>{balls}</body></worldbody>"
    )
    with pytest.raises(CaliperError, match="MuJoCo cannot move its model: mj_stackAlloc: out of memory"):
        physics_model(xml)


def test_a_model_that_takes_too_long_to_move_is_refused(monkeypatch):
    model = physics_model(BOX.format(asset="", geom=""))
    try_out(model)
    monkeypatch.setattr("caliper.importing.model.child.ONE_STEP", 0.0)
    with pytest.raises(CaliperError, match="a control step of its model takes more than 0 s to compute"):
        try_out(model)


def test_a_model_that_takes_much_memory_to_move_is_refused():
    xml = BOX.format(asset="", geom="").replace(
        "</worldbody>", '</worldbody><sensor><user dim="100000000"/></sensor>'
    )
    with pytest.raises(CaliperError, match=r"its model takes \d+ MiB to move"):
        physics_model(xml)


def test_a_solver_without_end_is_refused():
    xml = BOX.format(asset="", geom="").replace("<option ", '<option iterations="2000000000" ')
    with pytest.raises(CaliperError, match="asks for 2000000000 iterations"):
        physics_model(xml)


def test_a_robot_of_another_format_opens_no_file():
    mesh = '<visual><geometry><mesh filename="/etc/passwd"/></geometry></visual>'
    with pytest.raises(CaliperError, match="<mesh>, which reaches out"):
        physics_model(f'<robot name="r"><link name="a">{mesh}</link></robot>')


def test_a_model_that_ends_its_process_is_refused_and_the_next_one_compiled(monkeypatch):
    """A hundred million keyframes take longer than a model may."""
    monkeypatch.setattr("caliper.importing.model.compiled.SECONDS", 2.0)
    xml = BOX.format(asset="", geom="").replace("<asset>", '<size nkey="100000000"/><asset>')
    with pytest.raises(CaliperError, match="runs out of time or memory with it"):
        physics_model(xml)
    monkeypatch.undo()
    assert physics_model(BOX.format(asset="", geom='<site name="after"/>')).nsite == 1


def test_the_process_of_models_is_under_limits():
    code = (
        "import resource; from caliper.importing.model import child as m; m.confine(); m.grant(20);"
        "names = ('RLIMIT_CORE', 'RLIMIT_FSIZE', 'RLIMIT_CPU');"
        "limits = [resource.getrlimit(getattr(resource, name))[0] for name in names];"
        "print(*limits, resource.getrlimit(resource.RLIMIT_AS)[0] < 16 << 30)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    core, fsize, cpu, bounded = said.split()
    assert (core, fsize, bounded) == ("0", "0", "True")
    assert 20 < int(cpu) < 60
