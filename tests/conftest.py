"""What every test may count on: no network, no account, one thread, no configuration of another test."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Before anything imports torch or numpy: many small tensors are faster on one thread, and the numbers repeat.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
# Its reader would fork, which Linux refuses a process with many simulations: their arenas, untouched, are
# larger together than the machine's memory. Without this it starts ffmpeg as Caliper's own writer does.
os.environ["IMAGEIO_FFMPEG_NO_PREVENT_SIGINT"] = "1"
# Kernels, fonts and JIT code stay in each library's own cache: compiled once, shared with real runs.


def _refuse_network(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: sees the sockets of C extensions too, and cannot be undone by a test."""
    if event == "socket.__new__" and args[1] in (socket.AF_INET, socket.AF_INET6):
        raise RuntimeError("a test opened a network socket: Caliper must work without a network")
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(
            f"a test asked for the address of {args[0]!r}: Caliper must work without a network"
        )


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command keeps it, for good; a test's huge empty tensor would then hinder every later fork."""
    from caliper import cli  # here, for a test may be the first to import it

    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)


@pytest.fixture(autouse=True)
def _own_wandb_folders(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(tmp_path_factory.getbasetemp() / "wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, folder)


@pytest.fixture(autouse=True)
def _own_hydra() -> Iterator[None]:
    """Hydra's state is global: a test that composed a configuration must not refuse it to the next."""
    yield
    if "hydra" in sys.modules:
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of benchmarks/ by its name, for this test alone."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    yield import_module
    for name in [path.stem for path in folder.glob("*.py")]:
        sys.modules.pop(name, None)


def pytest_report_header() -> str:
    return "network: sockets refused for the whole session (only local ones are allowed)"
