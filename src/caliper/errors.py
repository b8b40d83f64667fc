"""The error that a user may see."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from unicodedata import category


class CaliperError(Exception):
    """Something the user can fix: one clear sentence that says how, printed alone by the command line.

    What it quotes from a file can't forge a line of its own: see `printable`.

    Attributes:
        told: of a run in several processes, whether another of them says it; None: the first does.
    """

    told: bool | None = None

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """Text of a file as it may be shown: what would move the cursor, hide or reorder words stands escaped."""
    # C: control, format (bidirectional, zero width), surrogate, private, unassigned; Zl, Zp: line breaks.
    return "".join(
        c if (k := category(c))[0] != "C" and k not in ("Zl", "Zp") else ascii(c)[1:-1] for c in text
    )


def no_file(path: Path) -> str | None:
    """Why there is no file to read at `path`, in words that follow its name; None if there is one."""
    try:
        if path.is_file():
            return None
        if path.is_dir():
            known = {"config.yaml": "a run", "policy.json": "a policy", "runs.csv": "a sweep"}
            of = [f" of {what}" for name, what in known.items() if (path / name).exists()]
            return f"is a folder{''.join(of[:1])}, not a file"
        if path.exists():
            return "is not a regular file"
        if path.is_symlink():
            return f"is a symbolic link to {os.readlink(path)}, which leads nowhere"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "does not exist"


def one_of(known: Iterable[str], word: object, called: str = "choose one of") -> str:
    """How to fix a name that is not known: what it may have been meant for, and all there is."""
    names = list(known)
    close = get_close_matches(str(word), names, n=2, cutoff=0.7)
    return (f"did you mean {' or '.join(close)}? There are: " if close else f"{called}: ") + ", ".join(names)
