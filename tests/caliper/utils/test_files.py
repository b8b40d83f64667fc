"""Files that are there or not, and folders that one process has."""

import errno
import os
import socket

import pytest

from caliper import cli
from caliper.api import Run
from caliper.cli import main
from caliper.errors import CaliperError, no_file
from caliper.utils.files import holder, locked, refuse_existing, refuse_links, replacing


def test_what_there_is_in_place_of_a_file_is_named(tmp_path):
    file, run, loop, lost = (tmp_path / name for name in ("file", "run", "loop", "lost"))
    file.write_text("x")
    run.mkdir()
    assert (no_file(file), no_file(run)) == (None, "is a folder, not a file")
    (run / "config.yaml").write_text("x")
    assert no_file(run) == "is a folder of a run, not a file"
    loop.symlink_to(loop)
    lost.symlink_to("elsewhere")
    assert no_file(loop) == f"is a symbolic link to {loop}, which leads nowhere"
    assert no_file(lost) == "is a symbolic link to elsewhere, which leads nowhere"
    assert no_file(file / "below") == no_file(tmp_path / "none") == "does not exist"
    assert no_file(tmp_path / ("n" * 300)) == "cannot be read: File name too long"


@pytest.mark.parametrize("verb", ["inspect", "replay", "import", "render", "evaluate", "resume", "report"])
def test_no_verb_fails_on_what_is_no_file(verb, tmp_path, monkeypatch, capsys):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for odd in ("loop", "folder", "n" * 300, "folder/none", "loop/none"):
        with pytest.raises(SystemExit) as stopped:
            main([verb, odd])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and said.startswith("caliper: ") and odd in said, odd


def test_what_the_system_refuses_is_one_sentence(monkeypatch, capsys):
    def denied(_):
        raise PermissionError(errno.EACCES, "Permission denied", "/there/\x1b[2Jx")

    monkeypatch.setitem(cli.VERBS, "tasks", denied)
    with pytest.raises(SystemExit) as stopped:
        main(["tasks"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "caliper: /there/\\x1b[2Jx: Permission denied\n"


def test_a_device_or_a_pipe_is_replaced_not_even_when_asked(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for overwrite in (False, True):
        with pytest.raises(CaliperError, match="pipe is no regular file, and stays as it is"):
            refuse_existing(tmp_path / "pipe", overwrite, "data.path=FILE")
    (tmp_path / "file").touch()
    refuse_existing(tmp_path / "file", True, "data.path=FILE")
    with pytest.raises(CaliperError, match="is there already"):
        refuse_existing(tmp_path / "file", False, "data.path=FILE")


def test_nothing_is_written_through_a_strangers_link(tmp_path):
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.write_text("mine")
    run.mkdir()
    for name in ("report.html", "report.html.partial", ".lock"):
        (run / name).symlink_to(precious)
    with replacing(run / "report.html") as partial:
        partial.write_text("page")
    assert (run / "report.html").read_text() == "page" and not (run / "report.html").is_symlink()
    with pytest.raises(CaliperError, match=r"\.lock is no file of Caliper's"), locked(run):
        pytest.fail("it was emptied")
    assert precious.read_text() == "mine" and holder(run) == ""


@pytest.mark.parametrize("name", ["checkpoints", "evaluations/online_000012"])
def test_a_strangers_run_leads_nowhere_else(name, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    (run / name).parent.mkdir(parents=True)
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    (run / "config.yaml").write_text("seed: 0\n")
    Run(run)
    (run / name).symlink_to(other)
    with pytest.raises(CaliperError, match=f"{name} is a link, through which"):
        Run(run)
    (tmp_path / "link").symlink_to(run)
    (run / name).unlink()
    refuse_links(tmp_path / "link")


def test_a_folder_is_locked_on_a_full_disk_too(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with locked(tmp_path):
        assert holder(tmp_path) == socket.gethostname()
    monkeypatch.setattr(os, "write", full)
    with locked(tmp_path), pytest.raises(CaliperError, match="another process is at work"), locked(tmp_path):
        pytest.fail("two have it")
    with pytest.raises(BlockingIOError), locked(tmp_path):  # of what is done there, not of the lock
        raise BlockingIOError
