"""The error that a user may see."""

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
