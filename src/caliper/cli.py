"""One command, `caliper`, with a verb: what follows the verb is `key=value` pairs and paths."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from caliper import api
from caliper.config.messages import GROUPS, unknown
from caliper.errors import CaliperError, printable
from caliper.training.interrupt import InterruptedRunError
from caliper.utils.early import as_ctrl_c
from caliper.utils.memory import keep_freed_memory
from caliper.utils.output import Forgiving
from caliper.utils.ranks import place

if TYPE_CHECKING:
    from caliper.tools.sweep import Summary

# Verb: what it does, and an example.
HELP = {
    "train": ("collect if needed, pre-train offline, fine-tune online, report", "task=lift agent=calql"),
    "sweep": ("several runs, a few at a time, in one table", "preset=pick_place_tray_demo seed=0,1,2"),
    "compare": ("several runs as sweep, in one page", "preset=pick_place_tray_demo agent=calql,cql seed=0,1"),
    "resume": ("continue an interrupted run", "RUN"),
    "evaluate": ("measure a run's policy", "RUN evaluation.episodes=100"),
    "render": ("film a run's policy, or recorded episodes", "RUN video.episodes=9 video.camera=agentview"),
    "report": ("write the report.html of a run, a sweep or a comparison again", "RUN"),
    "export": ("write a run's policy as a folder that other programs can use", "RUN OUT"),
    "view": ("see a policy or a dataset, or record by keyboard, in the browser", "RUN|OUT|FILE|task=lift"),
    "serve": ("answer programs that ask a policy over a websocket", "OUT --port 8765"),
    "collect": ("record the scripted expert", "task=pick_place_can data.episodes=1000"),
    "import": ("make a dataset of a recording of robosuite, robomimic, ...", "FILE [OUT] --skip-bad"),
    "replay": ("render a dataset's states into a copy with images", "FILE --cameras agentview --size 84"),
    "convert": ("write a dataset in the format of another library", "FILE OUT --to minari|lerobot"),
    "inspect": ("tell what a dataset or a recording holds and whether it fits", "FILE [--images | --replay]"),
    "tasks": ("list tasks, agents, encoders, engines and presets; tell all of one task", "[lift]"),
    "pretrained": ("list what published weights fit; tell whether a file does", "[FILE] [arch=resnet18]"),
    "doctor": ("tell what is missing here; compile a GPU's kernels ahead", "[--precompile sm_90 task=lift]"),
}
# What torch, MuJoCo and CUDA say where an estimate was too low, or others took the memory meanwhile.
NO_MEMORY = re.compile(r"(?i)out of memory|(can't|cannot|could not) allocate memory")
KEYS = """Every key of a run can follow: groups (task=, obs=, agent=, encoder=, sim=, preset=) and
values (seed=1, online.env_steps=50000, agent.conservative_weight=1). All of them: caliper train --cfg
"""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command: runs a verb; a mistake of the user's is one sentence and exit status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    keep_freed_memory()
    try:
        first = place().rank == 0
    except CaliperError as error:  # which every process says that is told so
        print(f"caliper: {error}", file=sys.stderr)
        sys.exit(2)
    out, err = Forgiving(sys.stdout if first else None), Forgiving(sys.stderr, "standard error")
    with as_ctrl_c() as stops, redirect_stdout(out), redirect_stderr(err):
        _guarded(words, stops)


def _guarded(words: list[str], stops: list[int]) -> None:
    try:
        _dispatch(words)
    except CaliperError as error:
        if _is_mine(error):
            print(f"caliper: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, InterruptedRunError) else 2)
    except (KeyboardInterrupt, Exception) as error:
        if stops or isinstance(error, KeyboardInterrupt):  # some libraries make another error of it
            if _is_mine(error):
                print(
                    "caliper: stopped at once; a run goes on from its last checkpoint, if it has one",
                    file=sys.stderr,
                )
            sys.exit(130)
        if isinstance(error, OSError) and error.filename is not None:
            print(f"caliper: {printable(f'{error.filename}: {error.strerror}')}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            what = printable((str(error) or "MemoryError").splitlines()[0])
            print(
                f"caliper: the memory is used up ({what}); give a smaller batch_size, online.capacity, "
                "number of envs, network or image size",
                file=sys.stderr,
            )
            sys.exit(2)
        raise


def _is_mine(error: BaseException) -> bool:
    """Whether it is for this process to say it, of those that a run may have: see `CaliperError.told`."""
    told: bool | None = getattr(error, "told", None)
    return place().rank == 0 if told is None else not told


def _dispatch(words: list[str]) -> None:
    verb, rest = (words[0], words[1:]) if words else ("help", [])
    if verb in ("-V", "--version"):
        print(f"caliper {version('caliper-rl')}")
    elif verb in ("-h", "--help", "help"):
        print(_usage(), end="")
    elif verb not in VERBS:
        raise CaliperError(unknown("verb", verb, VERBS))
    elif place().count > 1 and verb not in ("train", "resume"):
        raise CaliperError(f"caliper {verb} is the work of one process; give the command without torchrun")
    elif {"-h", "--help"} & set(rest):
        print(_verb_usage(verb), end="")
    else:
        _require_directory()
        VERBS[verb](rest)


def _require_directory() -> None:
    """Refuses to work in a folder that another program has deleted: no path can be told from there."""
    try:
        os.getcwd()
    except OSError as error:
        raise CaliperError(
            f"the working directory cannot be found ({error.strerror}); change to a folder that is there"
        ) from error


def _usage() -> str:
    lines = [f"  {verb:9} {what}\n            caliper {verb} {words}" for verb, (what, words) in HELP.items()]
    return "caliper VERB [key=value ...]\n\n" + "\n".join(lines) + f"\n\n{KEYS}"


def _verb_usage(verb: str) -> str:
    what, words = HELP[verb]
    choices = "".join(f"  {group + '=':9} {' '.join(_choices(group))}\n" for group in GROUPS)
    more = f"\n{KEYS}\n{choices}" if verb in ("train", "sweep", "compare", "collect", "doctor") else ""
    return f"caliper {verb}: {what}\n\n  caliper {verb} {words}\n{more}"


def _choices(group: str) -> list[str]:
    folder = files("caliper.configs").joinpath(group)
    names = [p.name for p in folder.iterdir() if p.name.endswith(".yaml") and not p.name.startswith("_")]
    return sorted(name.removesuffix(".yaml") for name in names)


def _train(words: list[str]) -> None:
    if "--cfg" not in words:
        api.train(*words)
        return
    from caliper.config.compose import compose, to_yaml

    at = words.index("--cfg")
    words = (
        words[:at] + words[at + 1 + (words[at + 1 : at + 2] == ["job"]) :]
    )  # Hydra's users write --cfg job
    print(to_yaml(compose(words)), end="")


def _sweep(words: list[str]) -> None:
    from caliper.analysis.comparison import write_sweep

    _runs("sweep", words, write_sweep)


def _compare(words: list[str]) -> None:
    from caliper.analysis.comparison import write_comparison

    _runs("compare", words, write_comparison)


def _runs(verb: str, words: list[str], write: Summary) -> None:
    from caliper.launching.choose import choose
    from caliper.tools.sweep import sweep

    own = {f"{verb}.dir": f"runs/{verb}", f"{verb}.jobs": "", "launcher": "local"}
    keys, rest = {}, []
    for word in words:
        key, _, value = word.partition("=")
        if key in own:
            own[key] = value
        elif key.startswith(f"{verb}."):
            keys[key] = value
        else:
            rest.append(word)
    folder, jobs, name = own.values()
    jobs = jobs or ("2" if name == "local" else "1000")  # a cluster has a queue of its own
    if not jobs.isdigit():
        raise CaliperError(f"{verb}.jobs={jobs} must be a number of runs side by side")
    sweep(rest, Path(folder), int(jobs), verb, write, choose(name, keys, verb))


def _collect(words: list[str]) -> None:
    plain = [word for word in words if word != "--overwrite"]
    path = api.collect(*plain, overwrite=len(plain) < len(words))
    _inspect([str(path)])


def _import(words: list[str]) -> None:
    from caliper.tools.import_recording import import_file

    import_file(words)


def _replay(words: list[str]) -> None:
    from caliper.tools.replay import parse, replay_file

    overwrite = "--overwrite" in words
    replay_file(*parse([word for word in words if word != "--overwrite"]), overwrite=overwrite)


def _convert(words: list[str]) -> None:
    from caliper.tools.convert import convert

    convert(words)


def _resume(words: list[str]) -> None:
    run, rest = _run(words)
    run.resume(*rest)


def _evaluate(words: list[str]) -> None:
    run, rest = _run(words)
    run.evaluate(*rest)


def _render(words: list[str]) -> None:
    if words and Path(words[0]).is_file():
        from caliper.tools.film_recording import film_recording

        print(film_recording(words))
        return
    run, rest = _run(words)
    print(run.video(*rest))


def _export(words: list[str]) -> None:
    run, rest = _run(words)
    if not rest or rest[0].startswith("-") or not all("=" in word for word in rest[1:]):
        raise CaliperError("name the run, then the policy's new folder: caliper export RUN OUT")
    run.export(*rest)


def _serve(words: list[str]) -> None:
    where: dict[str, str] = {}  # what is not given, the server knows
    folders, rest = [], [word for word in words if word != "--trusted"]
    trusted = len(rest) < len(words)
    while rest:
        word = rest.pop(0)
        if word in ("--port", "--host") and rest:
            where[word[2:]] = rest.pop(0)
        else:
            folders.append(word)
    port = where.pop("port", None)
    if len(folders) != 1 or folders[0].startswith("-"):
        raise CaliperError(
            "name one policy's folder: caliper serve OUT [--port 8765] [--host 127.0.0.1] [--trusted]"
        )
    if port is not None and not (port.isdigit() and 0 < int(port) < 1 << 16):
        raise CaliperError(f"--port {port} must be a number from 1 to 65535")
    from caliper.policies.server import PORT, serve

    serve(api.load_policy(folders[0], trusted=trusted), **where, port=PORT if port is None else int(port))


def _view(words: list[str]) -> None:
    from caliper.viewer.view import view

    view(words)


def _report(words: list[str]) -> None:
    from caliper.analysis.comparison import write_comparison
    from caliper.analysis.run_report import write_report
    from caliper.analysis.run_table import runs_of

    runs = runs_of(Path(words[0])) if words else []
    folder, rest = (Path(words[0]), words[1:]) if runs else _folder(words)
    if rest:
        raise CaliperError(f"a report takes the run folder alone, without '{rest[0]}'")
    print(write_comparison(folder, runs) if runs else write_report(folder))


def _inspect(words: list[str]) -> None:
    from caliper.config.build import installed
    from caliper.data.formats.recordings import is_foreign, open_recording
    from caliper.importing.describe import describe_recording
    from caliper.tools.inspect_dataset import describe, describe_minari, replayed_lines

    words, assets = [*words], None
    if "--assets" in words[1:-1]:
        at = words.index("--assets")
        assets = Path(words.pop(at + 1))
        del words[at]
    if not words or words[1:] not in ([], ["--images"], ["--replay"]):
        raise CaliperError(
            "name one dataset file: caliper inspect FILE [--images | --replay] [--assets FOLDER]"
        )
    if assets is not None and not (assets.is_dir() and is_foreign(words[0])):
        raise CaliperError(f"--assets {assets} must be a folder of meshes, for a recording's own model")
    replayed = "--replay" in words
    if replayed and (Path(words[0]).is_dir() or is_foreign(words[0])):
        raise CaliperError(
            f"{words[0]} is no dataset of Caliper's, whose actions could be replayed; caliper import FILE "
            "makes one"
        )
    if is_foreign(words[0]):
        print(describe_recording(open_recording(words[0]), "--images" in words, assets))
        return
    if Path(words[0]).is_dir():
        print(describe_minari(words[0]))
        return
    print(describe(words[0], installed))
    if replayed:
        for line in replayed_lines(words[0]):
            print(line, flush=True)


def _tasks(words: list[str]) -> None:
    if words:
        from caliper.tools.describe_task import describe_task

        print(describe_task(words))
        return
    from caliper.config.own_task import offered

    for group in GROUPS:
        print(f"{group:8} {' '.join([*_choices(group), *offered(group)])}")


def _pretrained(words: list[str]) -> None:
    from caliper.tools.pretrained import describe_file, describe_known

    print(describe_file(words) if words else describe_known())


def _doctor(words: list[str]) -> None:
    if "--precompile" in words:
        from caliper.config.compose import compose
        from caliper.tools.precompile import precompile

        at = words.index("--precompile")
        if not (arch := words[at + 1 : at + 2]):
            raise CaliperError("name the GPU's architecture: caliper doctor --precompile sm_90")
        print(precompile(compose(words[:at] + words[at + 2 :]), arch[0]))
        return
    from caliper.tools.doctor import doctor

    if words:
        raise CaliperError(f"caliper doctor takes no '{words[0]}' without --precompile")
    if not doctor():
        sys.exit(1)


def _folder(words: list[str]) -> tuple[Path, list[str]]:
    if not words or ("=" in words[0] and not Path(words[0]).is_dir()):
        raise CaliperError("name the run folder first, such as: caliper render runs/demo")
    return api.Run(words[0]).folder, words[1:]


def _run(words: list[str]) -> tuple[api.Run, list[str]]:
    folder, rest = _folder(words)
    return api.Run(folder), rest


VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "sweep": _sweep,
    "compare": _compare,
    "resume": _resume,
    "evaluate": _evaluate,
    "render": _render,
    "report": _report,
    "export": _export,
    "view": _view,
    "serve": _serve,
    "collect": _collect,
    "import": _import,
    "replay": _replay,
    "convert": _convert,
    "inspect": _inspect,
    "tasks": _tasks,
    "pretrained": _pretrained,
    "doctor": _doctor,
}
