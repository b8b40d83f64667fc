"""What a word of the command line must be, and what is said of one that does not fit."""

from __future__ import annotations

from caliper.errors import CaliperError


def require_pair(word: str) -> None:
    """Refuses a word that is not key=value.

    Raises:
        CaliperError: it is not.
    """
    key, equals, _ = word.partition("=")
    if not equals or not key.replace(".", "").replace("_", "").isalnum():
        raise CaliperError(
            f"'{word}' is not understood; after the verb come pairs such as seed=1 or task=lift"
        )


def sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's words on a mistake, cut down to what mends it."""
    if choices := getattr(error, "options", None):
        group, _, name = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
        return f"there is no {group} '{name}'; choose one of: {', '.join(choices)}"
    cause = error.__cause__ or error
    first = str(error).splitlines()[0]
    detail = str(cause).splitlines()[0]
    if "Key '" in detail:
        parent = getattr(cause, "parent_node", None)
        names = [str(name) for name in parent or () if name != "hydra"]
        known = f"; the keys there are: {', '.join(names)}" if names else ""
        return f"there is no key '{getattr(cause, 'full_key', '?')}'{known}"
    if first.startswith("Error merging override "):
        return f"{first.removeprefix('Error merging override ')} does not fit: {detail}"
    if override := getattr(error, "override", None):
        return f"'{override}' cannot be read ({first}); put a value with special characters in quotes"
    if first.startswith("Ambiguous value"):
        return f"{first}; write a list as [1,2]"
    key = getattr(error, "full_key", None)
    return f"{key}: {detail}" if key else first
