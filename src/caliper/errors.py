"""The error that a user may see."""

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category


class CaliperError(Exception):
    """Something the user can fix: one clear sentence that says how, printed alone by the command line.

    What it quotes from a file can't forge a line of its own: see `printable`.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


def printable(text: str) -> str:
    """Text of a file as it may be shown: what would move the cursor, hide or reorder words stands escaped."""
    # C: control, format (bidirectional, zero width), surrogate, private, unassigned; Zl, Zp: line breaks.
    return "".join(
        c if (k := category(c))[0] != "C" and k not in ("Zl", "Zp") else ascii(c)[1:-1] for c in text
    )


def one_of(known: Iterable[str], word: object, called: str = "choose one of") -> str:
    """How to fix a name that is not known: what it may have been meant for, and all there is."""
    names = list(known)
    close = get_close_matches(str(word), names, n=2, cutoff=0.7)
    return (f"did you mean {' or '.join(close)}? There are: " if close else f"{called}: ") + ", ".join(names)
