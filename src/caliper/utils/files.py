"""Files that are either whole or absent."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caliper.errors import CaliperError


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_name(path: Path) -> Path:
    """The temporary name beside `path`; no pattern such as *.mp4 matches it."""
    return path.with_name(f"{path.name}.partial")


def commit(partial: Path, path: Path) -> None:
    """Gives a complete file its name, through the disk's cache."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def cannot_write(path: Path, reason: object) -> CaliperError:
    """The error for a full disk or a missing permission."""
    return CaliperError(
        f"Cannot write {path}: {reason}; free some space or choose a folder you may write to."
    )


def refuse_existing(path: Path, overwrite: bool, other: str) -> None:
    """Keeps a file that is there from being replaced unasked.

    Args:
        path: that would be written.
        overwrite: the user has asked for it, with --overwrite.
        other: how to name another file.

    Raises:
        CaliperError: there is such a file, or a folder; or a device or a pipe, which nobody can mean.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CaliperError(f"{path} is no regular file, and stays as it is; name another with {other}")
    if path.exists() and not overwrite:
        raise CaliperError(f"{path} is there already; name another file with {other}, or add --overwrite")


def leads_out(path: Path, folder: Path) -> bool:
    """Whether what a path stands for, links followed, is outside of a folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


FOLDERS = ("checkpoints", "evaluations", "plots", "videos", "wandb", "tensorboard")  # of a run


def refuse_links(folder: Path) -> None:
    """Refuses a run folder that leads elsewhere: what is written and tidied up there is somebody's.

    The run folder itself may be a link, for its user has named it.

    Raises:
        CaliperError: a folder in it, or in one of those, is a link that leads out of it.
    """
    for name in FOLDERS:
        own = folder / name
        inside = own.iterdir() if own.is_dir() and not own.is_symlink() else ()
        for path in (own, *inside):
            linked = path.is_symlink() and path.is_dir()
            if linked and leads_out(path, folder):  # wandb links one of its own
                raise CaliperError(
                    f"{path} is a link, through which files elsewhere would be changed; put the folder "
                    "itself there, or link the whole run folder"
                )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name; what was written there becomes `path` when the block succeeds.

    Args:
        path: the final name. An earlier file of that name stays whole until the new one is complete.

    Raises:
        CaliperError: the file cannot be written (disk full, no permission).
    """
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # in a stranger's folder a link, through which we would write
        yield partial
        commit(partial, path)
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path]:
    """Yields a temporary folder; what was written there becomes `path`, whole, when the block succeeds.

    Args:
        path: the final name: of nothing yet, or of an empty folder.
        what: is to be written there, for the message.

    Raises:
        CaliperError: `path` holds something, or the disk fails.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CaliperError(f"{path} is there already and not an empty folder; name another for {what}")
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for inside in (*partial.rglob("*"), partial):
            sync(inside)
        with suppress(FileNotFoundError):
            path.rmdir()  # an empty one
        partial.rename(path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class LockedError(CaliperError):
    """Another process is at work in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of a folder; a process that dies lets go. See also `holder`.

    Raises:
        LockedError: another process has it.
        CaliperError: the folder cannot be written to, or has a link or something else in place of the lock.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):  # it is emptied: see below
            raise CaliperError(f"{path} is no file of Caliper's; remove it")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise LockedError(
                f"another process is at work in {folder}; wait for it, or stop it first"
            ) from error
        raise cannot_write(path, error.strerror or error) from error
    try:
        with suppress(OSError):  # on a full disk the folder is locked all the same
            os.truncate(descriptor, 0)
            os.write(descriptor, socket.gethostname().encode())
        yield
    finally:
        os.close(descriptor)


def holder(folder: Path) -> str:
    """The machine whose process has locked a folder, or was the last to; "" if none has."""
    path = folder / ".lock"
    try:
        if path.is_symlink() or not path.is_file():
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
