"""Every mistake gets one clear sentence with the fix and a non-zero exit, and leaves earlier files whole."""

import errno
import os
import re
import shutil

import h5py
import pytest

from caliper.agents import AGENTS
from caliper.cli import main
from caliper.config.compose import load
from caliper.config.meanings import choices
from caliper.data.formats.robomimic import read_dataset
from caliper.errors import CaliperError
from caliper.rollout import collect as collect_module
from caliper.tools.saved_run import load_agent
from caliper.training.checkpoint import load_checkpoint
from caliper.training.run import resume, train
from caliper.utils import files
from tests.data.test_robomimic import unseal


def refused(capsys, *words):
    """The one sentence with which the command refuses."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("caliper: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "no verb 'trian'; did you mean train? There are: train, sweep, compare, resume"),
        (
            ["train", "task=foo"],
            "no task 'foo'; choose one of: adroit_door, adroit_pen, adroit_relocate, antmaze",
        ),
        (["train", "agent=foo"], f"no agent 'foo'; choose one of: {', '.join(sorted(choices('agent')))}"),
        (["train", "encoder=foo"], "no encoder 'foo'; choose one of: conv, conv_tiny, d4pg"),
        (["train", "preset=foo"], "no preset 'foo'; choose one of: adroit, adroit_cpu, antmaze, antmaze_cpu"),
        (["train", "sim=foo"], "no sim 'foo'; choose one of: auto, batch, warp"),
        (["train", "onlin.utd=1"], "no key 'onlin'; did you mean online? There are: run_dir, seed"),
        (["train", "online.upd=1"], "no key 'online.upd'; the keys there are: env_steps"),
        (["train", "agent.lr=1"], "no key 'agent.lr'; the keys there are: "),
        (["train", "encoder.depth=1"], "no key 'encoder.depth'; the keys there are: name, channels"),
        (["train", "online.env_steps=many"], "online.env_steps=many does not fit: Value 'many'"),
        (["train", "task.cameras=agentview"], "task.cameras=agentview does not fit"),
        (["train", "seed"], "'seed' is not understood"),
        (["collect", "task=lift", "agent.chunk=null"], "agent.chunk=None has the wrong type; it must be int"),
        (["train", "agent=5"], "no agent '5'; choose one of: awac, bc"),
        (["train", "task=null"], "no task 'null'; choose one of: adroit_door"),
        (["train", "sim={name:warp}"], "no sim '{name:warp}'; choose one of: auto, batch, warp"),
        (["train", "run_dir=r\udcff"], "run_dir=r\\udcff: a path that is not UTF-8 cannot be kept"),
        (["train", "+new=1"], "'+new=1': every key of a run is there already; leave the + out"),
        (["train", "~seed"], "'~seed': no key can be left out of a run"),
        (["train", "hydra.run.dir=x"], "a run's folder is run_dir=FOLDER"),
        (["train", "-m", "seed=0,1"], "-m: several runs are made by another verb: caliper sweep"),
        (
            ["train", "seed=0,1"],
            "seed=0,1 gives several values to one run; several runs are made by: caliper sweep seed=0,1",
        ),
        (["train", "agent=calq"], "there is no agent 'calq'; did you mean calql? There are: "),
        (["train", "onlin.env_steps=1"], "did you mean online?"),
        (["train", "task.size=32,64"], "(a list is written as [1,2])"),
        (["train", "video.camera=a=b"], "in quotes"),
        (["train", "seed=1,"], "'seed=1,' cannot be read; put a value with special characters in quotes"),
        (["train", "run_dir=~/runs/a"], '~ would be a folder of that name; write run_dir="$HOME"/runs/a'),
        (["train", "seed=${seed}"], "seed=${seed}: Recursive interpolation detected; give a value"),
        (["train", "seed=glob(*)"], "several runs are made by: caliper sweep"),
        (
            ["train", "task.cameras=[[agentview,64]]"],
            "does not fit: ['agentview', 64] is no word",
        ),
        (["train", "task.cameras=[{agentview: 64}]"], "task.cameras does not fit: {'agentview': 64} is no"),
        (["train", "evaluation.appearance=[[as_is]]"], "evaluation.appearance does not fit: ['as_is'] is no"),
        (["train", "data.mixture=[[[1.0],0.1,0.0]]"], "data.mixture=[[[1.0],0.1,0.0]] does not fit"),
        (["train", "task.kwargs={x: 1}"], "give each key by itself"),
        (["train", "agent.discount=high"], "agent.discount=high has the wrong type; it must be float"),
        (["train", "agent.n_critics=1.5"], "agent.n_critics=1.5 has the wrong type; it must be int"),
        (["train", "agent.critic_hidden=64"], "must be Sequence[int]"),
        (
            ["train", "agent.actor_hidden=[a]"],
            "agent.actor_hidden=['a'] has the wrong type",
        ),
        (["train", "encoder.latent=big"], "encoder.latent=big has the wrong type; it must be int | None"),
        (["train", "agent.discount=1.0"], "the discount gamma is 1.0"),
        (
            ["train", "agent.precision=float16"],
            "did you mean bfloat16 or float32? There are: float32, bfloat16, auto",
        ),
        (["train", "agent=iql", "agent.expectile=1.0"], "agent.expectile=1.0 makes no sense"),
        (["train", "agent=awac", "agent.temperature=0.0"], "agent.temperature=0.0 makes no sense"),
        (["train", "agent=td3bc", "agent.exploration_noise=0.0"], "agent.exploration_noise=0.0 makes no"),
        (["train", "agent.name=foo"], f"choose one of: {', '.join(sorted(AGENTS))}"),
        (["train", "encoder.name=foo"], "choose one of: conv, conv_tiny"),
        (["train", "task.name=foo"], "choose one of: lift"),
        (["train", "task.controller=foo"], "choose one of: osc_pose, osc_position"),
        (["train", "task.control_freq=7"], "task.control_freq=7 does not divide the physics' 500 Hz"),
        (["train", "agent=qtopt", "offline.bc_updates=3"], "the agent qtopt has no actor to clone; set"),
        (["train", "learner=fast"], "learner=fast is unknown; choose one of: eager, graph"),
        (
            ["train", "learner=graph", "device=cpu"],
            "learner=graph needs a GPU for the learner, but device=cpu;",
        ),
        (
            ["train", "task.cameras=[front]"],
            "task.cameras: there is no camera 'front'; did you mean frontview? There are: ",
        ),
        (["train", "task.cameras=[]"], "no camera; name one"),
        (
            ["train", "video.camera=front"],
            "video.camera: there is no camera 'front'; did you mean frontview? There are: ",
        ),
        (
            ["train", "task.size=4"],
            "images of 4x4 pixels are too small for it; the smallest that works is 9x9",
        ),
        (["train", "encoder=nature", "task.size=16"], "The encoder nature cannot be built: images of 16x16"),
        (["train", "sim.name=foo"], "choose one of: batch, warp, auto"),
        (["train", "sim.device=tpu"], "sim.device=tpu is unknown; choose one of: cpu, cuda"),
        (["train", "device=tpu"], "device=tpu is unknown; choose auto, cpu, cuda, or a GPU as cuda:1"),
        (["train", "batch_size=0"], "batch_size=0 makes no sense; it must be at least 1"),
        (["train", "online.utd=nan"], "online.utd=nan makes no sense"),
        (["train", "threads=0"], "threads=0 makes no sense"),
        (["train", "sim.max_diverged=1.5"], "sim.max_diverged=1.5 makes no sense; it must be"),
        (["collect", "sim.max_diverged=nan"], "sim.max_diverged=nan makes no sense"),
        (["train", "online.capacity=20"], "online.capacity=20 frames hold no episode"),
        (["train", "online.mixing=2"], "online.mixing=2.0 makes no sense; it must be at most 1"),
        (["train", "batch_size=100000000"], "TiB with batch_size=100000000; at most "),
        (["train", "batch_size=1000000000000"], "batch_size=1000000000000; at most "),
        (["train", "online.num_envs=1000000"], "with online.num_envs=1000000; at most "),
        (["train", "evaluation.num_envs=1000000"], "with evaluation.num_envs=1000000; at most "),
        (["train", "agent.n_actions=100000000"], "with agent.n_actions=100000000; "),
        (["train", "agent.actor_hidden=[1000000,1000000]"], "the actor alone "),
        (["train", "online.capacity=100000000000"], "with online.capacity=100000000000; at most "),
        (
            ["train", "video.size=20000"],
            "video.size=20000 makes no sense; it must be at least 1, at",
        ),
        (["train", "task.size=10000"], "task.size=10000 makes no sense"),
        (["train", "threads=100000"], "threads=100000 makes no sense"),
        (["collect", "data.num_envs=1000000"], "with data.num_envs=1000000; at most "),
        (["train", "agent.n_target_actions=100000000"], "with agent.n_target_actions=100000000; at most "),
        (["train", "agent.best_of=1000000000"], "with agent.best_of=1000000000; at most "),
        (["train", "agent.n_critics=100000000"], "with agent.n_critics=100000000; "),
        (["train", "agent=qtopt", "agent.cem_samples=1000000000"], "with agent.cem_samples=1000000000; "),
        (["train", "encoder.latent=100000000"], "the encoders alone "),
        (["train", "encoder.channels=[100000,100000,10000,10000]"], "the encoders alone "),
        (
            ["train", "online.utd=1e9"],
            "online.utd=1000000000.0 makes no sense; it must be at least 0, at most",
        ),
        (["train", "reward.scale=1e38", "reward.bias=-1e38"], "reward.scale=1e+38 makes no sense"),
        (
            ["train", "online.env_steps=99999999999999999999"],
            "makes no sense; it must be at least 0, at most",
        ),
        (["train", "evaluation.episodes=100000000"], "evaluation.episodes=100000000 makes no sense"),
        (["train", "data.appearance.shift=1e300", "data.copies=2"], "shift=1e+300 makes no sense"),
        (["collect", "data.mixture=[[1.0,1e300,0.0]]"], "none negative or above 1000"),
        (["train", "data.rewards=sucess"], "data.rewards=sucess is unknown; did you mean success?"),
        (["train", "task.controller=osc_pos"], "did you mean osc_pose or osc_position?"),
        (["train", "video.camera=agentvew"], "there is no camera 'agentvew'; did you mean agentview?"),
        (["train", "agent.name=calq"], "agent.name=calq is unknown; did you mean calql?"),
        (["tasks", "lift", "task.control_freq=7"], "does not divide the physics' 500 Hz"),
        (["train", "task.kwargs.reward_shaping=true"], "has no effect on task 'pick_place_tray'; leave it"),
        (
            ["collect", "task=lift", "task.robots=[panda]"],
            "task.robots=['panda'] has no effect on task 'lift'",
        ),
        (["train", "task=lift", "task.dense=true"], "task.dense=True has no effect on task 'lift'"),
        (["train", "task=antmaze", "task.start=open"], "task.start=open has no effect on AntMaze"),
        (["train", "log.wandb=yes"], "choose one of: disabled, offline, online"),
        (["train", "data.horizon=0"], "data.horizon=0 makes no sense"),
        (["train", "data.mixture=[[1.0,0.1]]"], "must be rows of [weight, action noise"),
        (["train", "evaluation.seed=1073741820"], "evaluation.seed is too large"),
        (["train", "run_dir=runs/${x}"], "run_dir=runs/${x}: a path with ${ in it cannot be kept"),
        (["train", "data.path="], "data.path= names nothing; give a path, or leave it out"),
        (["train", "data.path=/nowhere/x.hdf5"], "the dataset /nowhere/x.hdf5 does not exist"),
        (["collect", "data.episodes=0"], "data.episodes=0 makes no sense"),
        (["inspect", "/nowhere/x.hdf5"], "the dataset /nowhere/x.hdf5 does not exist"),
        (["inspect"], "name one dataset file"),
        (["evaluate"], "name the run folder first"),
        (["render", "/nowhere"], "/nowhere is not a run folder"),
    ],
)
def test_a_mistake_on_the_command_line(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *words)
    made = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert not made  # nothing was collected for it, and no run folder begun


def test_warp_without_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch sees no GPU; use sim=batch, or sim.device=cpu" in refused(capsys, "train", "sim=warp")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("scene_hash", "0123456789abcdef", "scene_hash is '0123456789abcdef' but"),
        ("mujoco_version", "3.1.0", "mujoco_version is '3.1.0' but"),
        ("controller", "osc_pose", "controller is 'osc_pose' but 'osc_position' is needed"),
        ("control_freq", 20, "control_freq is 20 but 10 is needed"),
        ("task", "door", "task is 'door' but 'lift' is needed"),
        ("schema_version", 99, "schema_version 99"),
        ("state_dim", 5, "states has the shape"),
    ],
)
def test_a_dataset_of_something_else(name, value, sentence, words, dataset, tmp_path, capsys):
    path = tmp_path / "other.hdf5"
    shutil.copy(dataset, path)
    with h5py.File(path, "r+") as file:
        file["data"].attrs[name] = value
        unseal(file)
    said = refused(capsys, "train", *words(f"run_dir={tmp_path / 'run'}", f"data.path={path}"))
    assert sentence in said and str(path) in said
    assert "ollect it again" in said


def test_a_dataset_of_another_action_dimension(words, tmp_path, capsys):
    path = tmp_path / "pose.hdf5"
    main(["collect", *words(f"data.path={path}", "task.controller=osc_pose", "data.episodes=1")])
    said = refused(capsys, "train", *words(f"run_dir={tmp_path / 'run'}", f"data.path={path}"))
    assert "action_dim is 7 but 4 is needed" in said and "caliper collect task=lift" in said


def test_a_truncated_dataset(words, dataset, tmp_path, capsys):
    path = tmp_path / "short.hdf5"
    path.write_bytes(dataset.read_bytes()[:-1000])
    said = refused(capsys, "train", *words(f"run_dir={tmp_path / 'run'}", f"data.path={path}"))
    assert f"{path} is damaged or not an HDF5 file" in said and "make it again" in said


def test_a_run_folder_without_a_checkpoint(finished, capsys, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished.folder / "config.yaml", folder)
    for verb in ("resume", "evaluate", "render"):
        assert f"{folder} holds no checkpoint" in refused(capsys, verb, folder)
    (folder / "config.yaml").write_text("task: {size: [1]\n")
    assert f"{folder / 'config.yaml'} is not the configuration" in refused(capsys, "resume", folder)
    (folder / "config.yaml").write_text("color: blue\n")
    assert "is not the configuration of a run" in refused(capsys, "resume", folder)
    text = (finished.folder / "config.yaml").read_text().split("\n", 1)[1]
    (folder / "config.yaml").write_text(re.sub(r"(?<=^encoder:\n)  name: .*\n", "", text, flags=re.M))
    assert "its encoder has no name" in refused(capsys, "resume", folder)


def test_a_configuration_without_a_checksum_is_said_to_have_none(finished, capsys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    load_agent(folder, finished.config)
    assert "checksum" not in capsys.readouterr().err
    text = (folder / "config.yaml").read_text().split("\n", 1)[1]
    (folder / "config.yaml").write_text(text)
    load_agent(folder, finished.config)
    assert f"{folder / 'config.yaml'} carries no checksum" in capsys.readouterr().err


def test_a_run_folder_that_is_taken(finished, words, capsys):
    before = (finished.folder / "config.yaml").read_bytes()
    said = refused(capsys, "train", *words(f"run_dir={finished.folder}"))
    assert f"already holds a run; go on with: caliper resume {finished.folder}" in said
    assert (finished.folder / "config.yaml").read_bytes() == before


def test_overrides_that_a_saved_run_cannot_take(finished, capsys):
    folder = finished.folder
    assert "no key 'online.upd'" in refused(capsys, "evaluate", folder, "online.upd=1")
    assert "evaluation.episodes" in refused(capsys, "evaluate", folder, "evaluation.episodes=many")
    said = refused(capsys, "evaluate", folder, "agent.actor_hidden=[8]")
    assert "agent.actor_hidden cannot change when a run is evaluated" in said
    assert len(said) < 300  # what can change is told of the same section alone
    said = refused(capsys, "resume", folder, "online.capacity=90")
    assert "Beside it can: online.env_steps, online.eval_every" in said
    assert "no key 'agent.critic_lrr'; did you mean critic_lr?" in refused(
        capsys, "resume", folder, "agent.critic_lrr=1"
    )
    assert "no key 'encoder.depth'" in refused(capsys, "evaluate", folder, "encoder.depth=1")
    assert "gives several values to one run; give one" in refused(
        capsys, "evaluate", folder, "evaluation.episodes=1,2"
    )
    assert "evaluation.episodes=???: give a value" in refused(
        capsys, "evaluate", folder, "evaluation.episodes=???"
    )
    for word in ("evaluation.episodes=[1", "evaluation=5"):
        assert f"{word} does not fit: " in refused(capsys, "evaluate", folder, word)
    assert "no camera 'front'" in refused(capsys, "render", folder, "video.camera=front")
    assert "nothing to film" in refused(capsys, "render", folder, "video.episodes=0")
    assert "the run folder alone" in refused(capsys, "report", folder, "seed=1")


@pytest.mark.parametrize("verb", ["train", "collect"])
def test_a_folder_that_cannot_be_written(verb, words, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    where = tmp_path / "file" / "new"
    key = "run_dir" if verb == "train" else "data.path"
    said = refused(capsys, verb, *words(f"{key}={where}"))
    assert "annot write" in said and str(where) in said and "you may write to" in said
    assert (tmp_path / "file").read_text() == "in the way"


def test_no_permission_is_noticed_before_anything_is_collected(words, tmp_path, capsys, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.Path, "mkdir", forbidden)
    monkeypatch.setattr(collect_module, "run_episodes", None)  # calling it would raise
    path = tmp_path / "new" / "x.hdf5"
    assert "Permission denied" in refused(capsys, "train", *words(f"run_dir={tmp_path / 'run'}"))
    assert "Permission denied" in refused(capsys, "collect", *words(f"data.path={path}"))


class FullDisk:
    """Lets so many files reach the disk, and no more."""

    def __init__(self, room):
        self.room = room

    def __call__(self, descriptor):
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", [0, 3, 20, 40])
def test_a_full_disk(room, words, configure, finished, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(room))
        said = refused(capsys, "train", *words(f"run_dir={folder}"))
    assert "No space left on device; free some space" in said
    assert not list(folder.rglob("*partial*"))
    monkeypatch.setattr("caliper.training.run.write_report", lambda folder: folder)
    if room < 20:  # before the first checkpoint
        train(configure(f"run_dir={folder}"))
    else:
        load_checkpoint(folder)
        resume(folder, load(folder / "config.yaml", []))
    weights, _ = load_checkpoint(folder)
    expected, _ = load_checkpoint(finished.folder)
    assert all((weights[name] == expected[name]).all() for name in expected)


def test_a_full_disk_while_filming_or_collecting(finished, dataset, words, tmp_path, capsys, monkeypatch):
    path = tmp_path / "x.hdf5"
    shutil.copy(dataset, path)
    monkeypatch.setattr(os, "fsync", FullDisk(0))
    video = finished.folder / "videos" / "rollouts.mp4"
    before = video.read_bytes()
    with pytest.raises(CaliperError, match="No space left"):
        from caliper.rollout.film import film
        from caliper.tools.saved_run import load_agent

        film(load_agent(finished.folder, finished.config)[0], finished.config, finished.folder)
    assert video.read_bytes() == before
    assert "No space left" in refused(capsys, "collect", "--overwrite", *words(f"data.path={path}"))
    assert len(read_dataset(path).episodes) == 4 and list(tmp_path.iterdir()) == [path]
    assert "No space left" in refused(capsys, "report", finished.folder)
    assert not list(finished.folder.rglob("*partial*"))


def test_tensorboard_that_is_not_installed_is_refused_before_anything_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("caliper.config.validate.find_spec", lambda name: None)
    said = refused(capsys, "train", "task=lift", "log.tensorboard=true", f"run_dir={tmp_path / 'run'}")
    assert "install: pip install 'caliper-rl[tensorboard]'" in said
    assert not (tmp_path / "run").exists()
