"""Warp kernels for a GPU that is not here: what a CUDA run would launch, compiled on a machine without one.

Warp compiles a module of kernels when it is first launched, once for each block size, and keeps the result in
its cache under a hash of the source and the options. So a few steps of the run's envs are pretended on
Warp's CPU device: no kernel is run there, nor compiled, but it is noted which module CUDA would have asked
for with which block size (the CPU itself takes 1). Then each is compiled by the NVRTC inside Warp, which
needs neither driver nor GPU, and put where a CUDA run looks.

Verified without a GPU, with Warp 1.19 and MuJoCo Warp 4.0: every module noted compiles; its file has the name
that Warp's own lookup gives for a device of that architecture; neither the number of envs nor the choice
and size of cameras changes the set. Not run, read from the source: where MuJoCo Warp behaves otherwise on
CUDA. Sparse models take other block sizes there (Caliper's scenes are dense, a test holds that), and one
kernel is loaded a second time, with its module's own block size, to ask for its occupancy (that is noted).
A miss costs its compilation at the first launch, never a wrong result. The cache fits machines with the same
versions of the packages and the same kind of processor (x86-64 or ARM).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import warp as wp
from warp._src import context as warp_context

from caliper.config.build import make_env
from caliper.config.schema import RunConfig
from caliper.config.validate import check_task
from caliper.envs.render.trace import RayTracer
from caliper.errors import CaliperError
from caliper.machine import cores
from caliper.utils.files import cannot_write
from caliper.utils.progress import bar

Variant = tuple[Any, int]  # a Warp module and the block size it is compiled for
NUM_ENVS = 2


class _BlockDim(int):
    """The block size of a launch on this device, which remembers what CUDA would take."""

    on_cuda: int


class _NoLaunch:
    """A recorded launch of a kernel that was not compiled."""

    def launch(self) -> None:
        """Does nothing."""


@contextmanager
def recording(run: bool = True) -> Iterator[dict[Variant, None]]:
    """Notes, while it is open, what launches on Warp's CPU device would load on CUDA, in order.

    Rests on a few functions inside Warp, hence on its version; nothing else of Caliper does.

    Args:
        run: whether the launches take place. Else no kernel is compiled for the CPU, which would take longer
            than all of the rest, and arrays keep whatever is in them.
    """
    seen: dict[Variant, None] = {}
    resolve, suggest = warp_context._resolve_launch_block_dim, wp.get_suggested_block_size
    load, launch = warp_context.Module.load, wp.launch

    def resolve_and_remember(device: Any, wanted: int | None) -> int:
        if isinstance(wanted, _BlockDim):  # a tiled launch resolves it twice
            return wanted
        block_dim = _BlockDim(resolve(device, wanted))
        block_dim.on_cuda = wanted if wanted and wanted > 0 else 256
        return block_dim

    def load_and_note(module: Any, device: Any, block_dim: int | None = None, *rest: Any, **more: Any) -> Any:
        if isinstance(block_dim, _BlockDim):
            seen[module, block_dim.on_cuda] = None
        return load(module, device, block_dim, *rest, **more) if run else None

    def launch_nothing(*args: Any, **kwargs: Any) -> Any:
        launch(*args, **kwargs)
        return _NoLaunch() if kwargs.get("record_cmd") else None

    def loop_once(condition: Any, while_body: Callable[..., None], stream: Any = None, **kwargs: Any) -> None:
        while_body(**kwargs)  # its condition would never come about

    def suggest_and_note(kernel: Any, device: Any = None) -> tuple[int, int]:
        seen[kernel.module, kernel.module.options["block_dim"]] = None
        return suggest(kernel, device) if run else (1, 1)

    hooks: list[tuple[Any, str, Any]] = [
        (warp_context, "_resolve_launch_block_dim", resolve_and_remember),
        (warp_context.Module, "load", load_and_note),
        (wp, "get_suggested_block_size", suggest_and_note),
    ]
    if not run:
        hooks += [(wp, "launch", launch_nothing), (wp, "capture_while", loop_once)]
    with ExitStack() as stack:
        for owner, name, hook in hooks:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, hook)
        yield seen


def record_run(config: RunConfig) -> list[Variant]:
    """The modules that a run of this configuration would load on CUDA, and their block sizes.

    Raises:
        CaliperError: the configuration will not do.
    """
    config = replace(config, sim=replace(config.sim, name="warp", device="cpu"))
    check_task(config)
    with recording(run=False) as seen:
        env = make_env(config, NUM_ENVS)
        env.step(torch.zeros(NUM_ENVS, env.action_dim))
        env.reset()
        spec = env.spec
        if spec.cameras:  # a GPU traces rays where this CPU draws otherwise
            RayTracer(
                env.engine, spec.cameras, spec.sizes[0], depth=spec.depth or spec.instances > 0
            ).render()
    return list(seen)


def compile_all(variants: Iterable[Variant], arch: int, threads: int) -> int:
    """Compiles modules into Warp's kernel cache, several at a time; those already there are left alone.

    Args:
        variants: what to compile.
        arch: compute capability, such as 90.
        threads: compilers side by side, each of which takes a core.

    Returns:
        How many were compiled.

    Raises:
        CaliperError: the cache cannot be written, or Warp cannot compile a module.
    """
    variants = list(variants)

    def compile_one(variant: Variant) -> bool:
        module, block_dim = variant
        module.get_module_hash(block_dim)  # resolves the options below
        options = module.resolved_options[block_dim]
        try:
            return bool(module._compile(output_arch=arch, use_ptx=False, options=options))
        except OSError as error:
            raise cannot_write(cache_folder(), error.strerror) from error
        except Exception as error:  # Warp raises bare ones
            reason = str(error).strip().splitlines()[0]
            raise CaliperError(
                f"Warp cannot compile {module.name} for sm_{arch} ({reason}); leave it to the first run there"
            ) from error

    compiled = 0
    with (
        bar(len(variants), f"compile for sm_{arch}", "module") as progress,
        ThreadPoolExecutor(threads) as pool,
    ):
        for done in pool.map(compile_one, variants):
            compiled += done
            progress.update()
    return compiled


def precompile(config: RunConfig, arch: str) -> str:
    """Compiles the kernels that a CUDA run of this configuration needs.

    Args:
        config: the run; its engine and device are not looked at.
        arch: architecture of the GPU, such as sm_90.

    Returns:
        What was done, in one line.

    Raises:
        CaliperError: an architecture that Warp does not know, a configuration that will not do, or no room.
    """
    number = _known_arch(arch)
    threads = config.threads or cores()
    variants = record_run(config)
    compiled = compile_all(variants, number, threads)
    return (
        f"{cache_folder()} holds the {len(variants)} modules of kernels that {config.task.name} needs on "
        f"{arch}: {compiled} compiled now, {len(variants) - compiled} were there"
    )


def cache_folder() -> Path:
    """Warp's kernel cache: WARP_CACHE_PATH, or its own choice, with its version below."""
    return Path(str(wp.config.kernel_cache_dir))


def _known_arch(arch: str) -> int:
    known = wp.get_cuda_supported_archs()
    match = re.fullmatch(r"sm_(\d+)", arch)
    if match is None or int(match[1]) not in known:
        names = ", ".join(f"sm_{number}" for number in known) or "none, for it was built without CUDA"
        raise CaliperError(f"Warp cannot compile for '{arch}'; choose one of: {names}")
    return int(match[1])
