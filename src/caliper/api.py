"""Caliper from Python: what the verbs of the command line do, as functions.

What a command takes as words, these take as words or keywords: `train("preset=pick_place_tray_demo", seed=1)`
is `caliper train preset=pick_place_tray_demo seed=1`. A key with dots is a word ("online.env_steps=50000") or
a mapping (`online={"env_steps": 50000}`).

Nothing heavy is imported before a function needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caliper.errors import CaliperError, no_file
from caliper.utils.files import refuse_links

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from caliper.analysis.run_data import Evaluation
    from caliper.config.schema import RunConfig
    from caliper.envs.base import VectorEnv
    from caliper.policies.policy import Policy
    from caliper.rollout.evaluation import Result


class Run:
    """A run's folder, and what can be done with it."""

    def __init__(self, folder: Path | str) -> None:
        """Takes the run in `folder`.

        Raises:
            CaliperError: it is no run's folder.
        """
        self.folder = Path(folder)
        if not (self.folder / "config.yaml").exists():
            what = (
                "it holds no config.yaml" if self.folder.is_dir() else no_file(self.folder) or "it is a file"
            )
            raise CaliperError(f"{folder} is not a run folder: {what}")
        refuse_links(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def config(self, *words: str, **values: Any) -> RunConfig:
        """Its configuration, with what may be another when it is looked at, such as evaluation.episodes=9."""
        return self._config("evaluate", as_words(*words, **values))

    def _config(self, purpose: str, words: list[str]) -> RunConfig:
        from caliper.config import own_parts, own_task
        from caliper.config.compose import load

        path = self.folder / "config.yaml"
        parts = own_parts.recorded(load(path), words, self.folder)  # first: they say which keys there are
        config = own_parts.with_parts(load(path, words, purpose), parts)
        return own_task.recorded(config, words, self.folder)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Its evaluations so far, the oldest first: phase, env_steps, updates, success_once, interval, ..."""
        from caliper.analysis.run_data import read_run

        return read_run(self.folder).evaluations

    @property
    def metrics(self) -> Mapping[str, NDArray[Any]]:
        """The columns of metrics.csv by name, as long as each other."""
        from caliper.analysis.run_data import read_run

        return read_run(self.folder).metrics

    @property
    def report(self) -> Path:
        """Its page report.html; written if it is not there."""
        from caliper.analysis.run_report import write_report

        page = self.folder / "report.html"
        return page if page.exists() else write_report(self.folder)

    def policy(self, device: torch.device | str = "cpu", *words: str) -> Policy:
        """The policy of its newest checkpoint, ready to act.

        Args:
            device: where the network computes.
            words: where code from outside is, such as "parts.encoder=FILE.py:CLASS", if the run asks.

        Raises:
            CaliperError: there is no checkpoint, or it is damaged.
        """
        from caliper.policies.export import policy_of

        return policy_of(self.folder, self.config(*words), device)

    def evaluate(self, *words: str, **values: Any) -> Result:
        """Plays greedy episodes as `caliper evaluate` does; prints and writes the success, and returns it.

        Raises:
            CaliperError: a word doesn't fit, or there is no checkpoint.
        """
        from caliper.tools.saved_run import evaluate_run

        return evaluate_run(self.folder, self.config(*words, **values))

    def video(self, *words: str, **values: Any) -> Path:
        """Films the policy as `caliper render` does; returns the H.264 file.

        Raises:
            CaliperError: a word doesn't fit, or there is no checkpoint.
        """
        from caliper.tools.saved_run import render_run

        return render_run(self.folder, self.config(*words, **values))

    def resume(self, *words: str, **values: Any) -> Run:
        """Goes on from the newest checkpoint, with longer phases for instance; see `caliper resume`.

        Raises:
            CaliperError: a word doesn't fit, or there is no checkpoint.
        """
        from caliper.training.run import resume

        resume(self.folder, self._config("resume", as_words(*words, **values)))
        return self

    def export(self, out: Path | str, *words: str) -> Path:
        """Writes its policy as a folder that needs torch alone; see `caliper export`.

        Args:
            out: the folder.
            words: as those of `policy`.

        Raises:
            CaliperError: `out` is not empty, there is no checkpoint, or the formats disagree.
        """
        from caliper.policies.export import export

        return export(self.folder, self.config(*words), Path(out))


def load_run(path: Path | str) -> Run:
    """A run from its folder.

    Raises:
        CaliperError: it is no run's folder.
    """
    return Run(path)


def load_policy(
    path: Path | str, format: str = "weights", trusted: bool = False, device: torch.device | str = "cpu"
) -> Policy:
    """A policy from the folder that `caliper export` wrote, or from a run's.

    The former needs torch, and neither simulator nor configuration.

    Args:
        path: the folder.
        format: of an exported policy: "weights", "onnx" or "pt2".
        trusted: whether what can run its author's code may be opened: "pt2", and an encoder or an agent
            from outside that you have not run before.
        device: where the network computes.

    Raises:
        CaliperError: a part is missing, changed or of another network; or its author's code is not trusted.
    """
    from caliper.policies.opening import open_policy

    folder = Path(path)
    if format == "weights" and (folder / "config.yaml").exists():
        return Run(folder).policy(device)
    return open_policy(folder, format, trusted, device)


def make_env(
    task: str,
    /,
    num_envs: int = 1,
    *words: str,
    cameras: Sequence[str] | Mapping[str, int | Sequence[int]] | None = None,
    size: int | None = None,
    **values: Any,
) -> VectorEnv:
    """Envs of a task, stepped together: torch in, torch out.

    Args:
        task: its name, see `caliper tasks`; or the file of one's own, such as "./my_task.yaml".
        num_envs: how many.
        words: further settings of a run, such as "sim=warp" or "task.controller=osc_position".
        cameras: whose images the policy sees; a mapping gives each its side, or height and width, pixels;
            None is the task's choice.
        size: side of the images, pixels; None is the task's choice.
        values: further settings, such as `seed=1` or `device="cpu"`.

    Returns:
        Envs that refuse a step before `reset()` and actions that are not finite.

    Raises:
        CaliperError: a name or a value that is not known.
    """
    from caliper.config.build import make_envs
    from caliper.config.cameras import as_list
    from caliper.config.compose import compose
    from caliper.config.validate import check_task
    from caliper.envs.checked import CheckedEnv
    from caliper.training.devices import choose_devices

    if type(num_envs) is not int or num_envs < 1:
        raise CaliperError(f"num_envs={num_envs!r} must be a number of envs, at least 1")
    if isinstance(cameras, Mapping):
        cameras = as_list({name: s if isinstance(s, int) else list(s) for name, s in cameras.items()})
    given = {"task.cameras": None if cameras is None else list(cameras), "task.size": size}
    chosen = {key: value for key, value in given.items() if value is not None}
    config = compose([f"task={task}", *as_words(*words, **chosen, **values)])
    check_task(config)
    return CheckedEnv(make_envs(choose_devices(config).applied(config), num_envs))


def collect(*words: str, overwrite: bool = False, **values: Any) -> Path:
    """Records the scripted expert as `caliper collect` does.

    Args:
        words: of a run, such as "task=lift" and "data.episodes=100".
        overwrite: whether a file that is there may be replaced.
        values: further settings.

    Returns:
        The dataset's file.

    Raises:
        CaliperError: a word doesn't fit, or the file is there already.
    """
    from caliper.config.compose import compose
    from caliper.rollout.collect import collect as record
    from caliper.training.devices import choose_devices
    from caliper.utils.files import refuse_existing

    config = compose(as_words(*words, **values))
    if isinstance(config.data.path, list):
        raise CaliperError(f"data.path names {len(config.data.path)} files; collect into one")
    path = Path(config.dataset_path())
    refuse_existing(path, overwrite, "data.path=FILE")
    return record(choose_devices(config).applied(config), path, overwrite)


def train(*words: str, **values: Any) -> Run:
    """Trains as `caliper train` does, in any thread; outside of the main one no signal stops it.

    Args:
        words: of a run, such as "preset=pick_place_tray_demo" and "online.env_steps=50000".
        values: further settings, such as `seed=1`.

    Returns:
        The finished run.

    Raises:
        CaliperError: a word doesn't fit, or the run's folder, dataset or disk will not do.
        InterruptedRunError: the user pressed Ctrl-C; everything is saved.
        NotFiniteError: something became infinite, or no number; the last checkpoint and a report are kept.
    """
    from caliper.config.compose import compose
    from caliper.training.run import train as run

    return Run(run(compose(as_words(*words, **values))))


def as_words(*words: str, **values: Any) -> list[str]:
    """Words, and keywords made into such: `seed=1` into "seed=1", `online={"utd": 2}` into "online.utd=2".

    Raises:
        CaliperError: a value is neither text, number, None, list nor mapping.
    """
    return [*words, *(f"{key}={text}" for key, text in _pairs("", values))]


def _pairs(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", _text(f"{prefix}{key}", value)


def _text(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | int | float | Path):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(key, entry) for entry in value)}]"
    raise CaliperError(f"{key}={value!r} must be text, a number, None, a list or a mapping")
