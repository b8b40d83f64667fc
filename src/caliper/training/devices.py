"""Which devices a run takes, and why; whether Warp works on this machine's GPU is tried once and kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import warp as wp

from caliper.agents.base import resolve_precision
from caliper.config.devices import engine_device, learner_device
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.training.self_test import NO_MEMORY, PARTS, Finding, fix
from caliper.utils.cache import cache_folder
from caliper.utils.foreign import ForeignFileError, read_json, write_json

NEEDED = ("driver", "physics", "image")  # parts of the self-test that Warp's engine stands on
PACKAGES = ("caliper-rl", "torch", "warp-lang", "mujoco", "mujoco-warp")
PATIENCE = 900  # seconds; kernels are compiled at the first try


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run takes: the learner's device, the engine and its device, and why, in words."""

    learner: str
    learner_why: str
    engine: str
    engine_device: str
    engine_why: str

    def __str__(self) -> str:
        return (
            f"learner on {self.learner} ({self.learner_why}), "
            f"sim={self.engine} on {self.engine_device} ({self.engine_why})"
        )

    def applied(self, config: RunConfig) -> RunConfig:
        """The configuration with nothing left to choose."""
        return replace(config, device=self.learner, sim=replace(config.sim, name=self.engine))


def choose_devices(config: RunConfig) -> Devices:
    """Settles `device=auto` and `sim=auto`; the latter may run Warp's self-test, which is said.

    Warp is chosen where the learner is on a GPU on which Warp has passed it.
    """
    learner, engine = learner_device(config), config.sim.name
    if config.device != "auto":
        learner_why = f"device={config.device}"
    elif learner == "cpu":
        learner_why = "device=auto, and torch sees no GPU"
    else:
        learner_why = f"device=auto, and torch sees {torch.cuda.get_device_name(learner)}"
    engine_why = f"sim={config.sim.name}"
    if config.agent.get("precision") == "auto":
        precision = resolve_precision("auto", learner.partition(":")[0])
        has = "has" if precision == "bfloat16" else "has no"
        learner_why += f"; in {precision}, agent.precision=auto: it {has} instructions for bfloat16"
    if config.task.env_id is not None:
        engine, engine_why = "batch", f"{config.task.env_id} is stepped by Gymnasium"
    elif config.task.env is not None:
        engine, engine_why = "batch", "slower: each env is stepped by robosuite"
    elif engine == "auto":
        passed, why = (False, "the learner is on the CPU") if learner == "cpu" else warp_works(learner)
        engine, engine_why = ("warp" if passed else "batch"), f"sim=auto: {why}"
    device = engine_device(replace(config, device=learner, sim=replace(config.sim, name=engine)))
    return Devices(learner, learner_why, engine, device, engine_why)


def warp_works(device: str) -> tuple[bool, str]:
    """Whether Warp's engine can be used on a GPU, and why; tries it if it is not known.

    Args:
        device: of torch, such as 'cuda'.
    """
    findings = _read().get(_key(device))
    if findings is None:
        print(
            "sim=auto: trying MuJoCo Warp on this GPU, which is done once: half a minute, or minutes where "
            "its kernels are not compiled yet",
            flush=True,
        )
        findings = run_self_test(device)
        remember(findings, device)
    for finding in findings:
        if finding.name in NEEDED and finding.fix is not None:
            return False, f"Warp failed its self-test here, {finding.name}: {finding.said} -> {finding.fix}"
    return True, f"Warp has passed its self-test on {torch.cuda.get_device_name(device)}"


def run_self_test(device: str) -> list[Finding]:
    """Runs the self-test in a process of its own, for a GPU that fails may take its process with it."""
    command = [sys.executable, "-m", "caliper.training.self_test", device]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        said, end = done.stdout, f"its process ended with status {done.returncode}"
        if last := done.stderr.decode(errors="replace").split("\n")[-2:-1]:
            end += f": {last[0]}"
    except subprocess.TimeoutExpired as late:
        said, end = late.stdout or b"", f"no end after {PATIENCE} s"
    findings = _findings(said.decode(errors="replace").splitlines())
    missing = [name for name in PARTS if name not in {finding.name for finding in findings}]
    return findings + [Finding(name, end, fix(end)) for name in missing]


def remember(findings: Iterable[Finding], device: str = "cuda") -> None:
    """Keeps what a self-test has found, for this GPU, driver and packages; lack of memory is no finding.

    Where nothing can be written, the next run tries anew.
    """
    findings = list(findings)
    if NO_MEMORY in [finding.fix for finding in findings]:
        return
    known = _read() | {_key(device): findings}
    content = {key: [asdict(finding) for finding in values] for key, values in known.items()}
    with suppress(CaliperError):
        write_json(record_path(), content)


def record_path() -> Path:
    """Where the self-tests' findings are kept."""
    return cache_folder() / "self_test.json"


def _read() -> dict[str, list[Finding]]:
    """All findings by GPU, driver and packages; none where the file is missing or damaged."""
    try:
        content = read_json(record_path())
        return {key: [Finding(**entry) for entry in entries] for key, entries in content.items()}
    except (OSError, ForeignFileError, TypeError, AttributeError):
        return {}


def _key(device: str) -> str:
    driver = wp.get_cuda_driver_version() or ("unknown",)
    with suppress(OSError):  # the module's own number, where Linux shows it
        driver = (Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip(),)
    words = [torch.cuda.get_device_name(device), f"driver {'.'.join(map(str, driver))}"]
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            words.append(f"{name} {version(name)}")
    return ", ".join(words)


def _findings(lines: Iterable[str]) -> list[Finding]:
    found = []
    for line in lines:
        with suppress(ValueError, TypeError):  # whatever else a library prints
            found.append(Finding(**json.loads(line)))
    return found


def keep(devices: Devices, folder: Path) -> None:
    """Adds what a run takes from now on to its devices.json, if that is something else than before."""
    path, entry = folder / "devices.json", asdict(devices)
    starts: list[dict[str, str]] = []
    with suppress(OSError, ForeignFileError, KeyError, TypeError):  # no file yet, or one that is lost
        starts = list(read_json(path)["starts"])
    if starts and {key: starts[-1].get(key) for key in entry} == entry:
        return
    starts.append({"at": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
    write_json(path, {"starts": starts})
