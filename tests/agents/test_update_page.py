"""An update is read in one go: what it enters is counted, and `docs/update.md` walks what is there.

A definition is a function or method of Caliper's own source whose body an update runs, counted once however
often it is called. Comprehensions belong to the function that they stand in, and what dataclasses generate is
nobody's source. The encoder, everything in `encoders/`, is one stop: the config says which it is.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest

from caliper.agents import AGENTS
from tests.agents.conftest import keys_of, make, random_batch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "update.md").read_text()
OURS = [ROOT / name for name in ("agents", "encoders", "src")]
PASSED_OVER = ("encoders/", "src/caliper/types.py")


def entered(work):
    """What `work` enters of Caliper's source: (file, qualified name), in the order of the first call."""
    seen = {}

    def note(frame, event, _):
        code = frame.f_code
        path = Path(code.co_filename).resolve()
        if event == "call" and not code.co_name.startswith("<") and any(map(path.is_relative_to, OURS)):
            seen[str(path.relative_to(ROOT)), code.co_qualname] = None

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return list(seen)


def walk(name, **keys):
    """The definitions that an update of an agent passes, the encoder aside, and the files they stand in.

    Only encoders and what readies images for them ask `Obs` for its parts.
    """
    agent, batch = make(name, **keys), random_batch()
    agent.update(batch)  # what is made once is made
    found = entered(lambda: agent.update(batch))
    own = [(file, definition) for file, definition in found if not file.startswith(PASSED_OVER)]
    assert len(own) < len(found)
    return own, {file for file, _ in own}


def test_an_update_of_calql_passes_fifteen_definitions_in_four_files():
    own, files = walk("calql")
    assert files == {f"agents/{name}.py" for name in ("sac", "cql", "calql", "nets")}
    assert len(own) + 1 <= 15, own  # and the encoder
    assert own[0] == ("agents/sac.py", "SAC.update")


@pytest.mark.parametrize("name", AGENTS)
def test_the_other_updates_are_no_longer(name):
    own, files = walk(name, **({"actor_every": 1} if "actor_every" in keys_of(name) else {}))
    assert len(own) + 1 <= 16 and len(files) <= 5, own  # WSRL: Cal-QL's with the target and the draw of RLPD


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_as_published_enters_nothing_of_the_deviations(name):
    own, _ = walk(name)
    assert "agents/deviations.py" not in {file for file, _ in own}


def test_a_deviation_that_is_on_is_entered():
    own, _ = walk("calql", mc_weight=0.5, bc_weight=0.1)
    names = {definition for file, definition in own if file == "agents/deviations.py"}
    assert names == {"mix_return", "BCTerm.loss", "BCTerm.weight"}


def test_every_key_of_the_deviations_stands_under_a_mark():
    """Where an algorithm looks at such a key, or at what is built from it, the line is marked."""
    keys = "mc_weight|critic_encoder_from_bc|actor_tau < 1|best_of > 1|gripper_switch"
    keys += "|(average_actor|bc_term) is not None"
    looks = re.compile(rf"^ +if .*({keys})")
    lines = [
        line
        for path in (ROOT / "agents").glob("*.py")
        if path.name != "deviations.py"
        for line in path.read_text().splitlines()
        if looks.search(line)
    ]
    assert len(lines) > 15
    assert not [
        line
        for line in lines
        if not line.endswith(("# deviation", "# deviation: the actor may be a clone by now"))
    ]


def test_the_page_names_what_exists():
    modules = {
        path.stem: importlib.import_module(f"caliper.agents.{path.stem}")
        for path in (ROOT / "agents").glob("[a-z]*.py")
    }
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    spans = set(re.findall(r"`([^`]+)`", prose))
    files = {span for span in spans if "/" in span}
    assert len(files) > 10 and all((ROOT / file).exists() for file in files)
    names = {
        span for span in spans - files if re.fullmatch(r"[A-Za-z_0-9]+(\.[a-z_]+)?", span) and len(span) > 1
    }
    for name in names - {"noise", "update"}:
        owner, _, attribute = name.partition(".")
        homes = [module for module in modules.values() if hasattr(module, owner)]
        assert homes, name
        assert not attribute or attribute in vars(getattr(homes[0], owner)), name


def test_the_page_walks_all_that_an_update_passes_and_no_more():
    headed = {definition for _, definition in walk("calql")[0]}
    before = PAGE.split("## What is not in the paper")[0]
    named = set(re.findall(r"`((?:[A-Z]\w+\.)?[a-z_]+)`", re.sub(r"```.*?```", "", before, flags=re.DOTALL)))
    assert headed <= named, headed - named
    assert {name for name in named if "." in name} == {name for name in headed if "." in name}


def test_the_lines_on_the_page_are_lines_of_the_code():
    source = "\n".join(
        (ROOT / "agents" / f"{name}.py").read_text() for name in ("sac", "cql", "calql", "nets")
    )
    lines = {line.strip() for line in source.splitlines()}
    quoted = [
        line for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
    ]
    assert len(quoted) > 20
    assert not [line for line in quoted if line not in lines]
