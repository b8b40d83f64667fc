"""One command, `caliper`, with a verb: what follows the verb is `key=value` pairs and paths."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from caliper.types import CaliperError

USAGE = """caliper VERB [key=value ...]

  train     collect if needed, pre-train offline, fine-tune online, report   caliper train task=lift agent=calql
  resume    continue an interrupted run                                      caliper resume RUN
  evaluate  measure a run's policy                                           caliper evaluate RUN evaluation.episodes=100
  render    film a run's policy                                              caliper render RUN video.episodes=9 video.camera=agentview
  report    write a run's report.html again                                  caliper report RUN
  collect   record the scripted expert                                       caliper collect task=pick_place_can data.episodes=1000
  inspect   tell what a dataset holds and whether it fits                    caliper inspect FILE
  tasks     list tasks, agents, encoders and presets

Every key of configs/train.yaml can follow: groups (task=, agent=, encoder=, sim=, preset=) and values (seed=1,
online.env_steps=50000, agent.conservative_weight=1). `caliper train --cfg` prints the resolved configuration.
"""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command: runs a verb; a mistake of the user's is one sentence and exit status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    verb, rest = words[0], words[1:]
    try:
        if verb not in VERBS:
            raise CaliperError(f"there is no verb '{verb}'; choose one of: {', '.join(VERBS)}")
        VERBS[verb](rest)
    except CaliperError as error:
        from caliper.train import Interrupted

        print(f"caliper: {error}", file=sys.stderr)
        sys.exit(130 if isinstance(error, Interrupted) else 2)
    except KeyboardInterrupt:
        print("caliper: interrupted; nothing was saved beyond the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _train(words: list[str]) -> None:
    from caliper.config import compose

    if "--cfg" in words:
        from omegaconf import OmegaConf

        config = compose([w for w in words if w != "--cfg"])
        print(OmegaConf.to_yaml(OmegaConf.structured(config)), end="")
        return
    config = compose(words)
    from caliper.train import train

    train(config)


def _collect(words: list[str]) -> None:
    from caliper.collect import collect
    from caliper.config import compose

    config = compose(words)
    path = collect(config, Path(config.dataset_path()))
    _inspect([str(path)])


def _resume(words: list[str]) -> None:
    from caliper.train import resume

    folder, overrides = _folder(words)
    resume(folder, _run_config(folder, overrides))


def _evaluate(words: list[str]) -> None:
    from caliper.saved import evaluate_run

    folder, overrides = _folder(words)
    evaluate_run(folder, _run_config(folder, overrides))


def _render(words: list[str]) -> None:
    from caliper.saved import render_run

    folder, overrides = _folder(words)
    print(render_run(folder, _run_config(folder, overrides)))


def _report(words: list[str]) -> None:
    from caliper.report import write_report

    print(write_report(_folder(words)[0]))


def _inspect(words: list[str]) -> None:
    from caliper.data.robomimic import read_dataset
    from caliper.envs.tasks import TASKS
    from caliper.inspect import describe
    from caliper.worlds import installed_meta

    if len(words) != 1:
        raise CaliperError("name one dataset file: caliper inspect FILE")
    meta = read_dataset(words[0]).meta
    print(describe(words[0], installed_meta(meta) if meta.task in TASKS else None))


def _tasks(words: list[str]) -> None:
    from importlib.resources import files

    for group in ("task", "agent", "encoder", "sim", "preset"):
        names = sorted(p.name.removesuffix(".yaml") for p in files("caliper.configs").joinpath(group).iterdir())
        print(f"{group:8} {' '.join(names)}")


def _folder(words: list[str]) -> tuple[Path, list[str]]:
    if not words or "=" in words[0]:
        raise CaliperError("name the run folder first, such as: caliper render runs/demo")
    folder = Path(words[0])
    if not (folder / "config.yaml").exists():
        raise CaliperError(f"{folder} is not a run folder: it holds no config.yaml")
    return folder, words[1:]


def _run_config(folder: Path, overrides: list[str]):  # noqa: ANN202  # its type would import Hydra for --help
    from caliper.config import load

    return load(folder / "config.yaml", overrides)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "render": _render,
    "report": _report,
    "collect": _collect,
    "inspect": _inspect,
    "tasks": _tasks,
}
