"""An exported policy: the same actions in every format, with torch alone, and nobody's code is run."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import caliper
from caliper.agents import build_agent
from caliper.cli import main
from caliper.config import build
from caliper.config.build import make_agent
from caliper.config.compose import to_yaml
from caliper.errors import CaliperError
from caliper.policies import export as export_module
from caliper.policies.export import apart
from caliper.policies.greedy import Greedy, keep_acting
from caliper.policies.opening import PROGRAM, WEIGHTS, open_policy
from caliper.policies.policy import CARD, Policy, noise
from caliper.training.checkpoint import save_checkpoint
from caliper.types import Obs, ObsSpec
from caliper.utils.foreign import read_json, write_json
from caliper.utils.manifest import write_manifest
from tests.small_runs import AGENTS


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The small run's policy as a folder, and what the command said."""
    out = tmp_path_factory.mktemp("policies") / "lift"
    with redirect_stdout(io.StringIO()) as said:
        main(["export", str(finished.folder), str(out)])
    return out, said.getvalue()


@pytest.fixture
def copy(exported, tmp_path):
    """A folder that a test may damage."""
    return shutil.copytree(exported[0], tmp_path / "policy")


def sealed(folder):
    (folder / "manifest.json").unlink()
    write_manifest(folder, None)


def observation(policy, n=1):
    pixels, proprio = noise(policy.spec, n)
    return pixels[0].numpy(), proprio[0].numpy()


def test_every_format_takes_the_run_s_actions(finished, exported):
    out, said = exported
    ours = caliper.load_run(finished.folder).policy()
    formats = read_json(out / CARD)["formats"]
    assert formats[WEIGHTS]["difference"] == 0 and PROGRAM in formats
    for name, form in formats.items():
        assert f"{name}: an action differs by {form['difference']:.2g} at most" in said
        assert form["difference"] < 1e-5
    theirs = caliper.load_policy(out, format="pt2", trusted=True)
    pixels, proprio = noise(ours.spec, 5)
    action = ours.act(pixels, proprio)
    assert action.shape == (5, 4) and action.abs().max() <= 1 and action.std(0).min() > 0
    assert torch.allclose(theirs.act(pixels, proprio), action, atol=1e-6)
    assert torch.equal(caliper.load_policy(out).act(pixels, proprio), action)


def test_onnx_takes_the_same_actions(finished, exported):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    theirs, ours = caliper.load_policy(exported[0], format="onnx"), caliper.load_policy(exported[0])
    assert apart(ours.network, theirs.network, ours.spec) < 1e-5


def test_it_acts_with_torch_alone(exported):
    """Neither simulator nor configuration is there, nor anything else that a robot's computer lacks."""
    blocked = "mujoco mujoco_warp warp robosuite hydra omegaconf yaml h5py matplotlib scipy numba torchvision"
    blocked += " wandb imageio imageio_ffmpeg tqdm gymnasium cv2 PIL packaging"
    code = f"""
import sys
sys.modules.update(dict.fromkeys({blocked.split()!r}))
import numpy, torch, caliper
policy = caliper.load_policy(sys.argv[1])
size, proprio = policy.spec.size, policy.spec.proprio
images = numpy.arange(len(policy.spec.cameras) * 3 * size * size) % 256
images = images.reshape(-1, 3, size, size).astype("uint8")
print(policy.act(images, numpy.zeros(proprio, "float32")).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code, exported[0]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    policy = caliper.load_policy(exported[0])
    size = policy.spec.size
    images = (np.arange(len(policy.spec.cameras) * 3 * size * size) % 256).astype(np.uint8)
    action = policy.act(images.reshape(-1, 3, size, size), np.zeros(policy.spec.proprio, np.float32))
    assert np.allclose(json.loads(done.stdout), action, atol=1e-6)


def test_the_card_tells_what_a_robot_needs(finished, exported):
    out, _ = exported
    card, text = read_json(out / CARD), (out / "README.md").read_text()
    assert (card["task"], card["controller"], card["control_freq"]) == ("lift", "osc_position", 10)
    assert [camera["name"] for camera in card["observation"]["cameras"]] == finished.config.task.cameras
    front = card["observation"]["cameras"][0]
    assert front["body"] == "world" and front["fovy"] == 45 and len(front["position"]) == 3
    assert (front["height"], front["width"]) == (16, 16) and card["action"]["entries"][3]["name"] == "gripper"
    assert "above 0 closes" in text and "10 actions per second" in text and "of 3 episodes" in text
    assert card["evaluations"][-1]["env_steps"] == 28
    assert card["data"]["content"] == caliper.load_run(finished.folder).config().data.content
    assert str(finished.folder.parent) not in text + (out / CARD).read_text()  # nobody's folders
    assert (out / "curve.png").read_bytes() == (finished.folder / "plots" / "learning_curve.png").read_bytes()
    assert (out / WEIGHTS).stat().st_mode == (out / CARD).stat().st_mode  # others may read it as well
    assert (out / "video.mp4").read_bytes() == (finished.folder / "videos" / "rollouts.mp4").read_bytes()


def test_the_weights_are_those_that_act(finished, exported):
    names = load_file(exported[0] / WEIGHTS).keys()
    assert names and all(name.startswith("actor.") for name in names)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {"best_of": 64} if name == "qc" else {}) for name in AGENTS]
    + [("calql", {"best_of": 16}), ("calql", {"gripper_switch": True}), ("iql", {"actor_tau": 0.5})],
)
def test_what_acting_names_is_enough_and_needed(name, options):
    """Without the other networks the greedy action stays, and each that is kept has a say in it."""
    words = {w.removeprefix("agent.").partition("=")[::2] for w in AGENTS[name] if w.startswith("agent.")}
    keys = {key: json.loads(value) for key, value in words} | options
    spec = ObsSpec(("front",), 16, 5)

    def make():
        return build_agent({"name": name, **keys}, {"name": "conv_tiny"}, spec, 3, "cpu", 0).eval()

    agent, (pixels, proprio) = make(), noise(spec, 4)
    want = Greedy(agent)(pixels, proprio)
    keep_acting(agent)
    assert torch.equal(Greedy(agent)(pixels, proprio), want)
    for kept in agent.acting():
        changed = make()
        with torch.no_grad():
            for weight in getattr(changed, kept).parameters():
                weight.normal_(generator=torch.Generator().manual_seed(1))
        assert not torch.equal(Greedy(changed)(pixels, proprio), want)


def test_a_chunk_is_executed_before_the_next_look(exported):
    card = read_json(exported[0] / CARD)
    card["action"] |= {"length": 2, "chunk": 3}
    seen = []

    def network(pixels, proprio):
        seen.append(proprio)
        return torch.arange(6.0).repeat(len(proprio), 1) / 10 + len(seen)

    policy = Policy(card, network)
    images, proprio = observation(policy)
    taken = [policy.act(images, proprio).tolist() for _ in range(4)]
    assert np.allclose(taken, [[1.0, 1.1], [1.2, 1.3], [1.4, 1.5], [2.0, 2.1]]) and len(seen) == 2
    with pytest.raises(CaliperError, match="for 1 robots and proprio for 2; call reset"):
        policy.act(images[None].repeat(2, 0), proprio[None].repeat(2, 0))
    policy.reset()
    assert np.allclose(policy.act(images, proprio), [3.0, 3.1])


def test_observations_of_another_kind_are_named(exported):
    policy = caliper.load_policy(exported[0])
    images, proprio = observation(policy)
    first, second = policy.spec.cameras
    wrong = {
        r"is height, width, channels \(HWC\).*moveaxis": (np.moveaxis(images, 1, -1), proprio),
        r"20x20 pixels; this policy takes \(2, 3, 16, 16\)": (np.zeros((2, 3, 20, 20), np.uint8), proprio),
        "the type is float32; this policy takes uint8": (images / np.float32(255), proprio),
        "the type is float64; this policy takes uint8, 0 to 255": (images.astype(float), proprio),
        "has 3 axes": (images[0], proprio),
        r"\(16, 16, 3\) is .*HWC.*; and 4 axes, not 3": (np.moveaxis(images[0], 0, -1), proprio),
        "4 channels; ": (np.zeros((2, 4, 16, 16), np.uint8), proprio),
        r"shape \(3, 3, 16, 16\); .*cameras agentview": (np.zeros((3, 3, 16, 16), np.uint8), proprio),
        "needs images of agentview": (None, proprio),
        "images are of agentview; this policy takes agentview, ": ({first: images[0]}, proprio),
        "the image of agentview: .*HWC": ({first: np.moveaxis(images[0], 0, -1), second: images[1]}, proprio),
        "images: a list was given": (images.tolist(), proprio),
        r"proprio of a robot has shape \(5,\); this policy takes \(11,\)": (images, proprio[:5]),
        "proprio is int64": (images, proprio.astype(np.int64)),
        "NaN or infinity in entry 3": (images, np.where(np.arange(11) == 3, np.nan, proprio)),
    }
    for words, given in wrong.items():
        with pytest.raises(CaliperError, match=words):
            policy.act(*given)
    by_name = policy.act({second: images[1], first: images[0]}, proprio)
    assert np.array_equal(by_name, policy.act(images, proprio))


SEES = [
    "task.cameras={agentview:[16,24],robot0_eye_in_hand:16}",
    *("task.depth=true", "task.segmentation=true", "task.frame_stack=2", "encoder.cameras=separate"),
    *("robot=ur5e", "task.controller=joint_velocity", "task.proprio=[standard,robot0_joint_pos]"),
]


@pytest.fixture
def untrained(configure, tmp_path):
    """Makes the folder of a run with first weights."""

    def make(*words, agent="calql"):
        config, run = configure(*words, agent=agent), tmp_path / "run"
        run.mkdir()
        (run / "config.yaml").write_text(to_yaml(config))
        save_checkpoint(run, make_agent(config, "cpu").state_dict(), {})
        return run, config

    return make


def test_depth_segmentation_sizes_and_frames_leave_with_it(untrained, tmp_path, capsys):
    """Another robot, seen in every kind of image; it acts as the agent does in envs that stack frames."""
    run, config = untrained(*SEES)
    out = caliper.load_run(run).export(tmp_path / "out")
    said = capsys.readouterr().out
    assert f"{PROGRAM}: an action differs by" in said and "left out" not in said
    policies = [caliper.load_policy(run), caliper.load_policy(out)]
    policies += [caliper.load_policy(out, "pt2", trusted=True)]
    if "policy.onnx" in said and "none" not in said:
        policies += [caliper.load_policy(out, "onnx")]
    agent = make_agent(config, "cpu").eval()
    env = build.make_envs(config, 1)
    obs, now = env.reset(seeds=torch.tensor([4])), env.env
    for _ in range(3):
        with torch.no_grad():
            want = agent.act(obs, deterministic=True)[0].numpy()
        frame = now.frame()
        images = {name: image[0].numpy() for name, image in frame.images.items()}
        by_view = {
            *("agentview", "agentview_depth", "agentview_segmentation", "robot0_eye_in_hand"),
            *("robot0_eye_in_hand_depth", "robot0_eye_in_hand_segmentation"),
        }
        assert by_view == policies[0].views.keys()
        views = {
            view: images[plane][policies[0].spec.planes[plane].cameras.index("robot" in view)]
            for view, (plane, _) in policies[0].views.items()
        }
        for policy, given in zip(policies, [images, views, images, views], strict=False):
            assert np.allclose(policy.act(given, frame.proprio[0].numpy()), want, atol=1e-5)
        obs = env.step(torch.from_numpy(want)[None]).obs
    card, text = read_json(out / CARD), (out / "README.md").read_text()
    assert (card["robot"], card["controller"], card["observation"]["frames"]) == ("ur5e", "joint_velocity", 2)
    assert len(card["action"]["entries"]) == card["action"]["length"] == 7
    assert card["observation"]["instances"] == [
        "robot0_base",
        "gripper0_right_robotiq_85_adapter_link",
        "cube_main",
    ]
    assert card["observation"]["proprio"]["length"] == 9 + 6 + 6
    assert card["observation"]["proprio"]["entries"][3].startswith("15 to 20: robot0_joint_pos, angles")
    assert "16x24" in text and "2 robot" not in text and "UR5e with its usual gripper" in text


def test_what_is_wrong_with_other_images_is_named(untrained):
    policy = caliper.load_policy(untrained(*SEES)[0])
    *planes, proprio = (tensor[0].numpy() for tensor in noise(policy.spec.single, 1))
    images = dict(zip(policy.spec.planes, planes, strict=True))
    depth, instances = images["depth"], images["segmentation"]
    wrong = {
        "more metres than a float16 can": images | {"depth": depth.astype(np.float32) + 1e5},
        "one array, and this policy's are of several sizes or kinds; give a dict of agentview,": planes[0],
        "the type is uint8; this policy takes float16, metres": images | {"depth": depth.astype(np.uint8)},
        r"images\['depth'\]: it holds NaN": images | {"depth": depth * np.float16(np.nan)},
        "it holds 9; this policy knows the instances 1 to 3": images | {"segmentation": instances * 0 + 9},
        "6 channels|2 frames; .*the newest alone": images | {"pixels": np.repeat(planes[0], 2, 1)},
        r"images are of pixels; this policy takes agentview, ": {"pixels": planes[0]},
        "images of 16x24 pixels: resize": images | {"depth": depth[..., :20]},
    }
    for words, given in wrong.items():
        with pytest.raises(CaliperError, match=words):
            policy.act(given, proprio)
    policy.act(images, proprio)
    many = {name: image[None].repeat(2, 0) for name, image in images.items()}
    with pytest.raises(CaliperError, match="for 1 robots and proprio for 2; call reset"):
        policy.act(many, proprio[None].repeat(2, 0))
    policy.reset()
    assert policy.act(many, proprio[None].repeat(2, 0)).shape == (2, 7)


def test_chunks_of_an_agent_that_sees_frames(untrained):
    """What is seen while a chunk is executed counts as a frame at the next look."""
    run, config = untrained("task.frame_stack=3", agent="qc")
    policy, agent = caliper.load_policy(run), make_agent(config, "cpu").eval()
    assert policy.chunk == 2
    pixels, proprio = noise(policy.spec.single, 4)
    taken = [policy.act(pixels[t], proprio[t]) for t in range(4)]
    for t, frames in ((0, [0, 0, 0]), (2, [0, 1, 2])):
        obs = Obs(torch.cat([pixels[[i]] for i in frames], 2), torch.cat([proprio[[i]] for i in frames], 1))
        want = agent.act(obs, deterministic=True)[0]
        assert torch.allclose(torch.cat(taken[t : t + 2]), want, atol=1e-6)


def test_a_folder_that_is_not_whole_is_refused(copy, tmp_path):
    with pytest.raises(CaliperError, match=r"is not a policy's folder: it holds no policy\.json"):
        caliper.load_policy(tmp_path)
    with pytest.raises(CaliperError, match=r"lacks policy\.onnx"):
        (copy / "policy.onnx").unlink(missing_ok=True)
        caliper.load_policy(copy, format="onnx")
    with pytest.raises(CaliperError, match="format='jit' is unknown"):
        caliper.load_policy(copy, format="jit")
    with pytest.raises(CaliperError, match="can run the code of whoever wrote it"):
        caliper.load_policy(copy, format="pt2")
    damaged = bytearray((copy / WEIGHTS).read_bytes())
    damaged[-1] ^= 1
    (copy / WEIGHTS).write_bytes(damaged)
    with pytest.raises(CaliperError, match=r"another weights\.safetensors than was saved"):
        caliper.load_policy(copy)
    (copy / WEIGHTS).write_bytes(b"nonsense")
    sealed(copy)
    with pytest.raises(CaliperError, match=r"weights\.safetensors is damaged"):
        caliper.load_policy(copy)
    (copy / WEIGHTS).unlink()
    with pytest.raises(CaliperError, match=r"lacks weights\.safetensors"):
        caliper.load_policy(copy)


def test_weights_of_another_network_are_named(copy):
    weights = load_file(copy / WEIGHTS)
    names = sorted(weights)
    for name in names[:4]:
        weights[name] = torch.zeros(1)
    save_file(weights, copy / WEIGHTS)
    sealed(copy)
    with pytest.raises(CaliperError, match="is of another network") as caught:
        caliper.load_policy(copy)
    said = str(caught.value)
    assert all(f"{name} is (1,) there" in said for name in names[:3])
    assert names[3] not in said and said.endswith("and 1 more")


def test_weights_of_another_architecture_are_named(copy, configure):
    agent = make_agent(configure("encoder=impala", "encoder.channels=[3]"), "cpu")
    keep_acting(agent)
    save_file({name: w.contiguous() for name, w in agent.state_dict().items()}, copy / WEIGHTS)
    sealed(copy)
    with pytest.raises(CaliperError, match="is of another network than the one that is described") as caught:
        caliper.load_policy(copy)
    said = str(caught.value)
    assert said.count(" there and ") == 3 and re.search(r"; and \d+ more$", said) and "\n" not in said


@pytest.mark.parametrize(
    ("part", "format", "said"),
    [
        (CARD, "weights", "is not a policy's folder: it holds no policy.json"),
        (WEIGHTS, "weights", "lacks weights.safetensors; export it again"),
        ("manifest.json", "weights", "has no manifest.json; export it again"),
        (PROGRAM, "pt2", "lacks policy.pt2; export it again"),
    ],
)
def test_a_part_that_a_folder_lacks_is_named(copy, part, format, said):
    (copy / part).unlink()
    with pytest.raises(CaliperError, match=re.escape(said)) as caught:
        caliper.load_policy(copy, format=format, trusted=True)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_no_training_has_left_are_refused(copy):
    weights = load_file(copy / WEIGHTS)
    name = sorted(weights)[0]
    flat = weights[name].flatten()
    for value, said in (
        (flat.index_fill(0, torch.tensor(0), torch.nan), "NaN or infinity"),
        (flat.int(), "int32"),
    ):
        save_file(weights | {name: value.view_as(weights[name])}, copy / WEIGHTS)
        sealed(copy)
        with pytest.raises(CaliperError, match=rf"{said}.* in {name}|has {name} in {said}"):
            caliper.load_policy(copy)


def test_damaged_programs_are_one_sentence(copy):
    for format, name in (("pt2", PROGRAM), ("onnx", "policy.onnx")):
        if format == "onnx":
            pytest.importorskip("onnxruntime")
        (copy / name).write_bytes(b"PK nonsense")
        sealed(copy)
        with pytest.raises(CaliperError, match=f"{name} is damaged .*; export it again"):
            caliper.load_policy(copy, format=format, trusted=True)


def test_what_is_not_finite_never_leaves_the_policy(exported):
    card = read_json(exported[0] / CARD)
    policy = Policy(card, lambda pixels, proprio: torch.full((1, 4), torch.nan))
    images, proprio = observation(policy)
    with pytest.raises(CaliperError, match="gives an action with NaN or infinity"):
        policy.act(images, proprio)
    with pytest.raises(CaliperError, match="gives actions of 2; they must be in"):
        Policy(card, lambda *_: torch.full((1, 4), 2.0)).prove()
    with pytest.raises(CaliperError, match="proprio holds NaN or infinity in entry 0"):
        policy.act(images, np.full(11, 1e308))  # finite as float64 alone
    with pytest.raises(CaliperError, match="proprio is of no robot"):
        policy.act(images[None][:0], proprio[None][:0])


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("format",), 2, "format 2; this Caliper reads 1"),
        (("agent", "actor_hidden"), [1 << 30], "absurd size"),
        (("observation", "cameras", 0, "height"), 1 << 13, "absurd size"),
        (("observation", "cameras"), None, "lacks"),
        (("action", "length"), "7", "no such thing"),
        (("agent", "name"), "__import__('os')", "is unknown; choose one of: "),
        (("encoder", "name"), "./encoder.py:Mine", "is unknown; choose one of: "),
        (("encoder", "channels"), ["a"], "describes no network"),
        (("agent", "critic_hidden"), [1 << 14] * 40, "one of .* weights, where .* are the most"),
        (("agent", "actor_hidden"), json.loads("[" * 600 + "]" * 600), "nested deeper than 30 levels"),
        (
            ("action", "chunk"),
            7,
            r"gives actions of float32 \(1, 4\); .* says float32 \(1, 28\)",
        ),
        (("task",), "\ud800", "a character in task that no text has"),
    ],
)
def test_a_card_of_nonsense_is_refused(copy, where, value, said):
    card = read_json(copy / CARD)
    part = card
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    write_json(copy / CARD, card)
    sealed(copy)
    with pytest.raises(CaliperError, match=said):
        caliper.load_policy(copy)


def test_opening_a_strangers_folder_runs_no_code(copy, tmp_path):
    """Pickles that would write a file lie in every place; only the trusted format opens one."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"weight": Trap()}, copy / PROGRAM)
    (copy / "policy.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    sealed(copy)
    caliper.load_policy(copy)
    with pytest.raises(CaliperError, match="can run the code"):
        open_policy(copy, "pt2")
    torch.save({"weight": Trap()}, copy / WEIGHTS)
    sealed(copy)
    with pytest.raises(CaliperError, match="damaged"):
        caliper.load_policy(copy)
    assert not (tmp_path / "owned").exists()


def test_nothing_is_left_of_an_export_that_fails(finished, exported, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["export", str(finished.folder), str(exported[0])])
    assert "is there already and not an empty folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(finished.folder)])
    assert "caliper export RUN OUT" in capsys.readouterr().err
    monkeypatch.setattr(export_module, "_write_program", lambda *_: None)  # it takes seconds
    monkeypatch.setattr(export_module, "apart", lambda *_: 0.5)
    with pytest.raises(CaliperError, match=r"an action differs by 0\.5 at most.*nothing is kept"):
        caliper.load_run(finished.folder).export(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_a_run_links_to_does_not_leave_with_it(finished, tmp_path, monkeypatch):
    run, secret = shutil.copytree(finished.folder, tmp_path / "run"), tmp_path / "secret"
    secret.write_text("mine")
    (run / "videos" / "rollouts.mp4").unlink()
    (run / "videos" / "rollouts.mp4").symlink_to(secret)
    monkeypatch.setattr(export_module, "_write_program", lambda *_: None)  # it takes seconds
    out = caliper.load_run(run).export(tmp_path / "out")
    assert (out / "curve.png").exists() and not (out / "video.mp4").exists()


def test_a_program_that_acts_otherwise_is_left_out(untrained, tmp_path, capsys):
    """A traced best-of-K draws other samples than the agent, which draws the same every time."""
    run, _ = untrained("agent.best_of=16")
    out = caliper.load_run(run).export(tmp_path / "out")
    assert "policy.pt2: an action differs by" in (said := capsys.readouterr().out)
    assert "too much to be the same policy; left out" in said
    assert list(read_json(out / CARD)["formats"]) == [WEIGHTS] and not (out / PROGRAM).exists()
    theirs, ours = caliper.load_policy(out), caliper.load_run(run).policy()
    assert apart(ours.network, theirs.network, ours.spec) == 0


def test_an_agent_that_torch_cannot_trace_keeps_its_weights(finished, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("no such thing\nand more")

    monkeypatch.setattr(export_module, "_exported", refuse)
    out = caliper.load_run(finished.folder).export(tmp_path / "out")
    assert "policy.pt2, policy.onnx: none, torch can't trace this agent (RuntimeError: no such thing)" in (
        capsys.readouterr().out
    )
    assert list(read_json(out / CARD)["formats"]) == [WEIGHTS] and not (out / PROGRAM).exists()
    assert caliper.load_policy(out).act(*observation(caliper.load_policy(out))).shape == (4,)
