"""What a word of the command line must be, and what is said of one that does not fit."""

from __future__ import annotations

from collections.abc import Iterable

from caliper.errors import CaliperError, one_of

GROUPS = ("task", "robot", "obs", "agent", "encoder", "sim", "preset")

# How what Hydra's parser says begins, where it speaks of its own tokens.
OF_A_PARSER = ("mismatched ", "extraneous ", "no viable ", "token ", "missing ", "Error parsing ", "Lexer")


def require_pair(word: str) -> None:
    """Refuses a word that is not key=value; of Hydra's other words it says what to use instead.

    Raises:
        CaliperError: it is not.
    """
    key, equals, _ = word.partition("=")
    if word in ("-m", "--multirun"):
        raise CaliperError(f"{word}: several runs are made by another verb: caliper sweep seed=0,1,2")
    if key.lstrip("+~").startswith("hydra"):
        raise CaliperError(
            f"'{word}': Hydra's own settings are not used here; a run's folder is run_dir=FOLDER, several "
            "runs are caliper sweep, and caliper train --cfg prints the configuration"
        )
    if word.startswith("~"):
        raise CaliperError(f"'{word}': no key can be left out of a run; give it another value, or null")
    if word.startswith("+"):
        raise CaliperError(f"'{word}': every key of a run is there already; leave the + out")
    if not equals or not key.replace(".", "").replace("_", "").isalnum():
        raise CaliperError(
            f"'{word}' is not understood; after the verb come pairs such as seed=1 or task=lift"
        )


def several_values(word: str, begun: bool = False) -> CaliperError:
    """What is said of seed=0,1 where one value is needed, for a new run or one that has begun."""
    fix = "give one" if begun else f"several runs are made by: caliper sweep {word}"
    return CaliperError(f"{word} gives several values to one run; {fix} (a list is written as [1,2])")


def unknown(what: str, word: str, known: Iterable[str], called: str = "choose one of") -> str:
    """What is said of a word that is not known: what it may have been meant for, and all there is."""
    known = [name for name in known if not name.startswith("_")]  # the others are parts of these
    return f"there is no {what} '{word}'" + (f"; {one_of(known, word, called)}" if known else "")


def unknown_key(key: str, names: Iterable[str]) -> str:
    """The same of a dotted key among the names of its section."""
    section, dot, name = key.rpartition(".")
    said = unknown("key", name, names, "the keys there are")
    return said.replace(f"'{name}'", f"'{section}{dot}{name}'", 1)


def sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's words on a mistake, cut down to what helps."""
    if choices := getattr(error, "options", None):
        group, _, name = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
        return unknown(group, name, choices)
    cause = error.__cause__ or error
    first = str(error).splitlines()[0]
    detail = str(cause).splitlines()[0]
    if "Key '" in detail:
        parent, key = getattr(cause, "parent_node", None), getattr(cause, "full_key", "?")
        names = [str(name) for name in parent or () if name != "hydra"]
        return unknown_key(key, names)
    if first.startswith("Error merging override "):
        return f"{first.removeprefix('Error merging override ')} does not fit: {detail}"
    if override := getattr(error, "override", None):
        why = "" if first.startswith(OF_A_PARSER) else f" ({first})"
        return f"'{override}' cannot be read{why}; put a value with special characters in quotes"
    key = getattr(error, "full_key", None)
    return f"{key}: {detail}" if key else first
