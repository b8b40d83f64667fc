"""The error that a user may see."""


class CaliperError(Exception):
    """Something the user can fix: one clear sentence that says how, printed alone by the command line."""
