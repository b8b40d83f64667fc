"""`caliper doctor`: what is here, what is missing, and the one line that fixes it. It needs no network."""

from __future__ import annotations

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from caliper.errors import CaliperError
from caliper.machine import cores

DIST = "caliper-rl"
ROBOSUITE = "robosuite==1.5.2"  # as constraints.txt pins it; not declared: it comes without its dependencies
WIDTH = 24


class _MissingError(Exception):
    """Something Caliper needs is not here: what, and the line that fixes it."""


def doctor() -> bool:
    """Prints the table, line by line as it is found out.

    Returns:
        Whether everything that Caliper needs is there; a GPU is not needed.
    """
    missing = 0
    for name, check in _lines():
        print(f"{name:{WIDTH}}", end="", flush=True)
        try:
            print(check())
        except _MissingError as lack:
            missing += 1
            print(lack)
        except Exception as error:  # whatever is broken, the other lines are still of use
            missing += 1
            reason = str(error).strip() or type(error).__name__
            print(f"does not work: {reason.splitlines()[0]}")
    print(f"\n{missing} missing" if missing else "\nEverything needed is there.")
    return missing == 0


def _lines() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "Python", platform.python_version
    for requirement in _requirements():
        yield requirement.name, partial(_package, requirement)
    yield "CUDA for torch", _torch_cuda
    yield "CUDA for Warp", _warp_cuda
    yield "engine batch", _batch
    yield "engine warp", _warp
    yield "image on cpu", partial(_image, "batch", "cpu")
    yield "rasteriser", _rasteriser
    if all(_seeing_cuda().values()):
        yield from ((f"GPU {name}", check) for name, check in _self_test())
    yield "device=auto", partial(_chosen, "learner")
    yield "sim=auto", partial(_chosen, "engine")
    yield "CPU cores", lambda: f"{cores()} of {os.cpu_count()}"
    yield "kernel cache", _kernel_cache
    yield "video encoder", _encoder
    yield "wandb mode", _wandb


# ---- packages


def _requirements() -> list[Requirement]:
    """What Caliper's installed distribution declares, extras aside, and robosuite."""
    try:
        declared = [Requirement(line) for line in requires(DIST) or []]
    except PackageNotFoundError:
        declared = []
    needed = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [Requirement(DIST), *needed, Requirement(ROBOSUITE)]


def _package(requirement: Requirement) -> str:
    name = requirement.name
    if name == DIST:
        fix = "pip install . in Caliper's folder"
    elif str(requirement) == ROBOSUITE:
        fix = f"pip install --no-deps {ROBOSUITE}"
    else:
        fix = f"pip install '{requirement}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        raise _MissingError(f"missing -> {fix}") from None
    if not requirement.specifier.contains(found, prereleases=True):
        raise _MissingError(f"{found}, {requirement.specifier} is needed -> {fix}")
    return found


# ---- devices and engines


def _torch_cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"none (torch is {built})"
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = [f"{d.name}, {d.total_memory / 2**30:.0f} GiB, sm_{d.major}{d.minor}" for d in devices]
    return f"{'; '.join(names)} (CUDA {torch.version.cuda})"


def _warp_cuda() -> str:
    import warp as wp

    import caliper.envs  # noqa: F401  # starts Warp without its banner

    toolkit, driver = (
        ".".join(map(str, number)) if number else "none"
        for number in (wp.get_cuda_toolkit_version(), wp.get_cuda_driver_version())
    )
    devices = [f"{d.name}, {d.total_memory / 2**30:.0f} GiB, sm_{d.arch}" for d in wp.get_cuda_devices()]
    return f"{'; '.join(devices) or 'none'} (CUDA {toolkit}, driver's: {driver})"


def _seeing_cuda() -> dict[str, bool]:
    """Who of the two that share the GPU's memory sees one."""
    try:
        import torch
        import warp as wp

        import caliper.envs  # noqa: F401  # starts Warp without its banner
    except ImportError:
        return {"torch": False, "Warp": False}
    return {"torch": torch.cuda.is_available(), "Warp": wp.is_cuda_available()}


def _batch() -> str:
    from mujoco.batch import Batch  # noqa: F401  # it is here from mujoco 3.17 on

    return "on cpu"


def _warp() -> str:
    import mujoco_warp  # noqa: F401

    seeing = _seeing_cuda()
    if all(seeing.values()):
        return "on cuda, and on cpu for tests"
    fix = {
        (True, False): ": Warp does not see torch's GPU -> update the NVIDIA driver",
        (False, True): ": torch does not see Warp's GPU -> install a torch built for CUDA and this driver",
    }
    return f"on cpu, for tests{fix.get((seeing['torch'], seeing['Warp']), '; no GPU')}"


def _self_test() -> Iterator[tuple[str, Callable[[], str]]]:
    """The GPU's self-test, each part a line; what it finds is kept for runs that say sim=auto."""
    from caliper.training.devices import remember, run_self_test
    from caliper.training.self_test import PARTS, Finding

    def tried() -> Iterator[Finding]:
        findings = run_self_test("cuda")
        remember(findings)
        yield from findings

    findings = tried()

    def check() -> str:
        finding = next(findings)
        if finding.fix:
            raise _MissingError(f"{finding.said} -> {finding.fix}")
        return finding.said

    return ((name, check) for name in PARTS)


def _chosen(part: str) -> str:
    """What a run that leaves both to Caliper takes, and why."""
    from caliper.config.compose import compose
    from caliper.training.devices import choose_devices

    chosen = choose_devices(compose(["device=auto", "sim=auto"]))
    if part == "learner":
        return f"{chosen.learner} ({chosen.learner_why})"
    return f"{chosen.engine} on {chosen.engine_device} ({chosen.engine_why})"


def _image(sim: str, device: str) -> str:
    """Draws one small image of the lightest task."""
    from caliper.envs.sim import SimEnv

    start = time.perf_counter()
    env = SimEnv("lift", 1, sim=sim, device=device, cameras=("agentview",), size=64, threads=1)
    ready = time.perf_counter()
    pixels = env.observe().pixels.cpu()
    drawn = time.perf_counter()
    if pixels.min() == pixels.max():
        raise CaliperError("the image is of one colour")
    return f"lift at 64x64 in {1e3 * (drawn - ready):.1f} ms, after {ready - start:.1f} s to get ready"


def _rasteriser() -> str:
    """Where its compiled code is kept; the image above compiled it ahead of the first run."""
    from caliper.envs.render.compiled import draw, kept

    return kept() if draw.signatures else "not compiled, for there was no image"


# ---- files


def _kernel_cache() -> str:
    import warp as wp

    import caliper.envs  # noqa: F401  # starts Warp without its banner

    folder = Path(str(wp.config.kernel_cache_dir))
    files = [path for path in folder.rglob("*") if path.is_file()]
    kinds: Counter[str] = Counter()
    for path in files:
        if match := re.search(r"\.(?:(sm\d+)[af]?\.(?:cubin|ptx)|cpu\w+\.o)$", path.name):
            kinds[match[1].replace("sm", "sm_") if match[1] else "cpu"] += 1
    modules = ", ".join(f"{count} for {kind}" for kind, count in sorted(kinds.items())) or "none"
    size = sum(path.stat().st_size for path in files) / 2**20
    return f"{folder}: {size:.0f} MiB, compiled modules: {modules}"


def _encoder() -> str:
    import imageio_ffmpeg

    try:
        return f"{imageio_ffmpeg.get_ffmpeg_exe()} ({imageio_ffmpeg.get_ffmpeg_version()})"
    except RuntimeError:
        raise _MissingError("no ffmpeg -> pip install --force-reinstall imageio-ffmpeg") from None


def _wandb() -> str:
    from caliper.config.compose import usual_values

    return f"{usual_values()['log']['wandb']} unless log.wandb says otherwise"
