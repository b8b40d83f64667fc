"""What a run says of the code that made it: the right commit, and whether it was changed."""

import json
import subprocess

import pytest

from caliper.utils.provenance import checkout, in_words, provenance


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit, which declares itself to be Caliper."""
    folder = tmp_path / "checkout"
    (folder / "src" / "caliper").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "caliper-rl"\n')
    (folder / "src" / "caliper" / "a.py").write_text("x = 1\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_checkout_is_named_by_its_commit_and_its_changes(repository):
    inside, head = repository / "src" / "caliper", git(repository, "rev-parse", "HEAD")
    clean = checkout(inside, owner="caliper-rl")
    assert clean == {"commit": head, "dirty": False, "diff": None} and in_words(clean) == head
    (repository / "notes.txt").write_text("not ours")  # untracked: the code is as committed
    assert checkout(inside) == clean
    (inside / "a.py").write_text("x = 2\n")
    changed = checkout(inside)
    assert changed["commit"] == head and changed["dirty"] and len(changed["diff"]) == 16
    assert in_words(changed) == f"{head} with local changes (diff {changed['diff']})"
    (inside / "a.py").write_text("x = 3\n")
    assert checkout(inside)["diff"] != changed["diff"]
    git(repository, "add", ".")  # staged changes count too
    assert checkout(inside)["dirty"]


def test_code_that_git_does_not_know_counts_in_a_checkout_of_ours(repository):
    inside = repository / "src" / "caliper"
    (repository / "notes.txt").write_text("not code")
    assert not checkout(inside, owner="caliper-rl")["dirty"]
    (inside / "new agent.py").write_text("x = 1\n")
    first = checkout(inside, owner="caliper-rl")
    (inside / "new agent.py").write_text("x = 2\n")
    second = checkout(inside, owner="caliper-rl")
    assert first["dirty"] and second["dirty"] and first["diff"] != second["diff"]
    assert not checkout(inside)["dirty"]  # of the user's own repository only what git knows


def test_a_repository_that_the_environment_names_is_not_asked(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))  # as in a hook of git
    (tmp_path / "outside").mkdir()
    assert checkout(tmp_path / "outside")["commit"] is None


def test_no_program_of_a_strangers_repository_runs(repository, tmp_path):
    program, ran = tmp_path / "program", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py diff=theirs\n")
    for key in ("core.fsmonitor", "diff.external", "diff.theirs.textconv"):
        git(repository, "config", key, str(program))
    (repository / "src" / "caliper" / "a.py").write_text("x = 2\n")
    assert checkout(repository)["dirty"] and not ran.exists()


def test_an_installed_caliper_is_no_part_of_the_users_repository(repository):
    installed = repository / ".venv" / "lib" / "caliper"
    installed.mkdir(parents=True)
    (repository / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    assert checkout(installed, owner="caliper-rl") == {"commit": None, "dirty": None, "diff": None}
    told = provenance(installed, repository)
    assert told["caliper"]["commit"] is None and told["versions"]["caliper-rl"]
    assert told["directory"]["commit"] == git(repository, "rev-parse", "HEAD") and told["directory"]["dirty"]


def test_without_git(tmp_path, monkeypatch):
    told = provenance(tmp_path / "absent", tmp_path)
    assert told["caliper"] == told["directory"] == {"commit": None, "dirty": None, "diff": None}
    assert told["versions"]["torch"] and "cores" in told["hardware"] and in_words(told["caliper"]) == ""
    json.dumps(told)
    monkeypatch.setenv("PATH", "")
    assert checkout(tmp_path)["commit"] is None


def test_a_repository_without_a_commit(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert checkout(tmp_path)["commit"] is None
