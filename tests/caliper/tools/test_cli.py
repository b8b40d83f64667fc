"""The command: its verbs, its help, and its manners on a terminal and in a log."""

import contextlib
import ctypes
import io
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version

import h5py
import pytest
import yaml

from caliper.agents import AGENTS
from caliper.cli import HELP, VERBS, main
from caliper.config.compose import compose, load
from caliper.rollout.collect import collect
from caliper.training.interrupt import Interrupt
from caliper.utils import memory, progress
from caliper.utils.early import SIGNALS, stop_if_told
from caliper.utils.output import Forgiving
from tests.data.test_robomimic import unseal
from tests.small_runs import SMALL


def output(capsys, *words):
    main(list(words))
    return capsys.readouterr().out


def test_version_and_help(capsys):
    assert output(capsys, "--version") == f"caliper {version('caliper-rl')}\n"
    assert output(capsys) == output(capsys, "--help")
    assert VERBS.keys() == HELP.keys()
    usage = output(capsys, "--help")
    for verb in VERBS:
        assert f"  {verb} " in usage
        said = output(capsys, verb, "--help")
        assert f"caliper {verb}" in said and HELP[verb][0] in said
    assert "calql" in output(capsys, "train", "--help")


def test_help_is_quick():
    """Nobody should wait for Hydra, MuJoCo or Warp to read a list of verbs."""
    code = (
        "import sys; from caliper.cli import main; main(['--help']);"
        "print(*[m for m in ('hydra', 'mujoco', 'warp', 'h5py', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("--cfg\n\n")


def test_the_configuration_can_be_printed_and_read_again(capsys, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(output(capsys, "train", "--cfg", "task=lift", "seed=3", "agent.discount=0.5"))
    config = load(path, ["evaluation.episodes=7"])
    assert (config.task.name, config.seed, config.discount) == ("lift", 3, 0.5)
    assert config.evaluation.episodes == 7
    assert yaml.safe_load(path.read_text())["agent"]["name"] == "calql"


def test_tasks_lists_every_group(capsys):
    lines = dict(line.split(maxsplit=1) for line in output(capsys, "tasks").splitlines())
    assert {"lift", "pick_place_can", "pick_place_tray", "antmaze"} <= set(lines["task"].split())
    assert {*AGENTS, "cql_sac", "sac_bc", "sac_data", "q_learning", "cog", "qc_fql"} == set(
        lines["agent"].split()
    )
    assert "state" in lines["obs"].split()
    assert {"conv", "conv_tiny", "d4pg", "impala", "resnet18"} <= set(lines["encoder"].split())
    assert lines["sim"].split() == ["auto", "batch", "warp"] and "default" in lines["preset"].split()


def test_verbs_work_on_what_a_run_left(finished, capsys):
    folder = str(finished.folder)
    assert "1 episodes succeed" in output(capsys, "evaluate", folder, "evaluation.episodes=1")
    assert json.loads((finished.folder / "evaluation.json").read_text())["episodes"] == 1
    words = ["video.camera=agentview", "video.size=32", "video.episodes=1"]
    path = finished.folder / "videos" / "agentview_1x32.mp4"
    assert output(capsys, "render", folder, *words) == f"{path}\n"
    assert b"avc1" in path.read_bytes()
    page = finished.folder / "report.html"
    page.unlink()
    assert output(capsys, "report", folder) == f"{page}\n" and page.exists()


def test_collect_and_inspect(words, tmp_path, capsys):
    path = tmp_path / "new.hdf5"
    said = output(capsys, "collect", *words(f"data.path={path}", "data.episodes=2"))
    assert said == output(capsys, "inspect", str(path))
    assert "2, of which 0" in said and "yes, the installed scene" in said


def test_collect_does_not_replace_a_file_unasked(words, dataset, tmp_path, capsys):
    path = tmp_path / "mine.hdf5"
    path.write_bytes(dataset.read_bytes())
    before = path.read_bytes()
    with pytest.raises(SystemExit):
        main(["collect", *words(f"data.path={path}", "data.episodes=2")])
    assert "is there already" in capsys.readouterr().err and path.read_bytes() == before
    output(capsys, "collect", "--overwrite", *words(f"data.path={path}", "data.episodes=2"))
    assert path.read_bytes() != before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_library_that_takes_an_interrupt_for_its_own_error(number, monkeypatch, capsys):
    def load(_):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as interrupt:
            raise ImportError("numpy is broken") from interrupt

    monkeypatch.setitem(VERBS, "tasks", load)
    plain = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, plain)
    others = {s: signal.getsignal(s) for s in SIGNALS}
    with pytest.raises(SystemExit) as stopped:
        main(["tasks"])
    assert {s: signal.getsignal(s) for s in SIGNALS} == others  # who called it goes on as before
    signal.signal(number, before)
    assert stopped.value.code == 130 and capsys.readouterr().err.startswith("caliper: stopped at once")
    stop_if_told()


def test_an_interrupt_that_a_library_swallows_still_stops_a_run(tmp_path, monkeypatch, capsys):
    def swallows():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

    def begin(_):
        swallows()
        with Interrupt(tmp_path):
            pytest.fail("the run began")

    def collect_one(_):
        swallows()
        collect(compose([*SMALL, "obs=state"]), tmp_path / "lift.hdf5")
        pytest.fail("episodes were played")

    monkeypatch.setitem(VERBS, "train", begin)
    monkeypatch.setitem(VERBS, "collect", collect_one)
    for verb in ("train", "collect"):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(SystemExit) as stopped:
            main([verb])
        signal.signal(signal.SIGINT, before)
        assert stopped.value.code == 130 and capsys.readouterr().err.startswith("caliper: stopped at once")
    assert not list(tmp_path.iterdir())
    with Interrupt(tmp_path):  # the next one may
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_imports_is_one_sentence(number):
    script = f"""if True:
        import os, signal, sys
        signal.signal({number:d}, signal.SIG_DFL if {number:d} != 2 else signal.default_int_handler)
        class Strikes:
            def find_spec(self, name, *_):
                if name == "caliper.cli":
                    os.kill(os.getpid(), {number:d})
        sys.meta_path.insert(0, Strikes())
        from caliper.__main__ import main
        main()
    """
    done = subprocess.run([sys.executable, "-c", script, "tasks"], capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == ""
    assert done.stderr == "caliper: stopped at once, before anything had begun\n"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 819 GB\nat 0x1")],
)
def test_used_up_memory_is_one_sentence(error, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setitem(VERBS, "tasks", fail)
    with pytest.raises(SystemExit) as stopped:
        main(["tasks"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("caliper: the memory is used up (")
    assert said.count("\n") == 1 and "smaller batch_size" in said
    monkeypatch.setitem(VERBS, "tasks", lambda _: [][1])
    with pytest.raises(IndexError):  # other errors are ours to see
        main(["tasks"])


@pytest.mark.parametrize("target", ["| head -1", "> /dev/full", ">&-", "2>&-", "> /dev/full 2> /dev/full"])
def test_output_that_goes_away_is_no_error(target):
    command = f"{sys.executable} -m caliper --help {target}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert ("takes no more" in done.stderr) == (target == "> /dev/full")


@pytest.mark.parametrize("words", [["train", "task=lift"], ["tasks"]])
def test_a_working_directory_that_is_gone_is_one_sentence(words, tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as stopped:
        main(words)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1
    assert said.startswith("caliper: the working directory cannot be found")


def test_letters_that_a_terminal_lacks_are_escaped():
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="ascii")
    Forgiving(terminal).write("run folder: ä\n")
    assert written.getvalue() == b"run folder: \\xe4\n"


@pytest.mark.parametrize("path", ["a run/äöü", "x=y,z", "it's here", "100%"])
def test_paths_are_taken_letter_by_letter(path, capsys, tmp_path):
    said = yaml.safe_load(output(capsys, "train", "--cfg", "job", "task=lift", f"run_dir={path}"))
    assert said["run_dir"] == path
    config = tmp_path / "config.yaml"
    config.write_text(output(capsys, "train", "--cfg", "task=lift"))
    assert load(config, [f"data.path={path}"], "resume").data.path == path


def test_groups_cannot_be_chosen_again(finished, capsys):
    for words in (["task=lift"], ["agent=iql"], ["seed=0,1"], ["task.control_freq=20"]):
        with pytest.raises(SystemExit):
            main(["evaluate", str(finished.folder), *words])
        assert capsys.readouterr().err.startswith(f"caliper: {words[0].partition('=')[0]}")


def test_inspect_shows_what_does_not_fit(dataset, tmp_path, capsys):
    path = tmp_path / "old.hdf5"
    path.write_bytes(dataset.read_bytes())
    with h5py.File(path, "r+") as file:
        file["data"].attrs["scene_hash"] = "0123456789abcdef"
        file["data"].attrs["controller"] = "joint_torque"
        unseal(file)
    assert "unknown" in output(capsys, "inspect", str(path))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["controller"] = "osc_position"
    assert "no: scene_hash is '0123456789abcdef'" in output(capsys, "inspect", str(path))


def test_what_no_robot_does_is_not_filmed(dataset, tmp_path, capsys):
    path = tmp_path / "odd.hdf5"
    path.write_bytes(dataset.read_bytes())
    with h5py.File(path, "r+") as file:
        file["data/demo_0/states"][2, 3] = 9.0
        unseal(file)
    for words, said in (
        ([path], "can't be filmed: in demo_0, row 2, robot0_joint3 is at 9"),
        ([dataset, "--out", path], "must end in .mp4"),
    ):
        with pytest.raises(SystemExit):
            main(["render", *map(str, words)])
        assert said in capsys.readouterr().err


class Terminal:
    def __init__(self, watched):
        self.watched, self.text = watched, ""

    def isatty(self):
        return self.watched

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("watched", [True, False])
def test_a_log_gets_no_bar_of_a_short_job(watched, monkeypatch):
    stderr = Terminal(watched)
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress.bar(2, "job", "step") as bar:
        bar.update(2)
    assert progress.watched() == watched and ("100%" in stderr.text) == watched


def test_memory_settings_are_optional(monkeypatch):
    memory.keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())  # a C library without mallopt
    memory.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    memory.keep_freed_memory()


@pytest.mark.slow
def test_wandb_offline_stays_in_the_run_folder(words, tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "from caliper.cli import main; main()",
        "train",
        *words(f"run_dir={folder}"),
    ]
    subprocess.run([*command, "log.wandb=offline"], check=True, capture_output=True, timeout=300)
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert (folder / "report.html").exists()
