"""A recording's own model, compiled here by another process: see `caliper.importing.model.child`."""

from __future__ import annotations

import atexit
import json
import re
import select
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco

from caliper.errors import CaliperError

SECONDS = 300.0  # to wait for a model, on a machine that does much else
LARGEST = 2 << 30  # bytes of an answer
COLOUR = re.compile(r'\srgba="[^"]*"')  # differs in the last digits between episodes of one scene
DIED = "MuJoCo crashes on its model, or runs out of time or memory with it"


def physics_model(xml: str, assets: Path | None = None) -> mujoco.MjModel:
    """What moves and collides in a recording's model, without its looks. Equal models are compiled once.

    Args:
        xml: the model as recorded.
        assets: folder of the meshes that are not robosuite's.

    Raises:
        CaliperError: it collides with a mesh that is not here, or MuJoCo does not take it; says why.
    """
    return _physics(COLOUR.sub("", xml), assets)


@lru_cache(maxsize=16)
def _physics(xml: str, assets: Path | None) -> mujoco.MjModel:
    model, _ = _compiled("physics", xml, assets)
    return model


def visual_model(xml: str, assets: Path | None = None) -> tuple[mujoco.MjModel, list[str]]:
    """A recording's model with all that can be seen of it here, and what could not be found.

    Args:
        xml: the model as recorded.
        assets: folder of the meshes and textures that are not robosuite's.

    Raises:
        CaliperError: as `physics_model`.
    """
    model, lost = _compiled("looks", xml, assets)
    return model, [str(name) for name in lost]


def _compiled(kind: str, xml: str, assets: Path | None) -> tuple[mujoco.MjModel, list[Any]]:
    """What the other process makes of a model.

    Raises:
        CaliperError: it says why it makes nothing of it, or ends without a word.
    """
    compiler = _compiler()
    try:
        answer, content = compiler.ask(kind, xml, assets)
    except (OSError, ValueError) as error:  # its pipes are closed, or hold nonsense
        compiler.end()
        _compiler.cache_clear()  # the next model gets another process
        raise CaliperError(DIED) from error
    if "error" in answer:
        raise CaliperError(str(answer["error"]))
    return mujoco.MjModel.from_binary_path("its.mjb", {"its.mjb": content}), list(answer["lost"])


@lru_cache(maxsize=1)
def _compiler() -> _Compiler:
    return _Compiler()


class _Compiler:
    """A process that compiles one model after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "caliper.importing.model.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.end)

    def ask(self, kind: str, xml: str, assets: Path | None) -> tuple[dict[str, Any], bytes]:
        """Its answer about a model, and the compiled model.

        Raises:
            OSError: it has ended, or takes too long.
            ValueError: its answer is none.
        """
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None and told is not None
        content = xml.encode("utf-8", "replace")
        folder = None if assets is None else str(assets.resolve())
        line = json.dumps({"do": kind, "assets": folder, "length": len(content)})
        asked.write(line.encode("ascii") + b"\n" + content)
        asked.flush()
        waiting = select.poll()
        waiting.register(told.fileno(), select.POLLIN)
        if not waiting.poll(1000 * SECONDS):
            raise TimeoutError
        answer = dict(json.loads(told.readline(1 << 20)))
        length = int(answer.get("length", 0))
        if not 0 <= length <= LARGEST or len(model := told.read(length)) < length:
            raise ValueError("a part of a model")
        return answer, model

    def end(self) -> None:
        """Ends the process, whatever it is doing, and closes the pipes."""
        atexit.unregister(self.end)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what it was not told any more
                pipe.close()  # type: ignore[union-attr]
