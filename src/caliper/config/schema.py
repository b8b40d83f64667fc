"""The typed shape of a run's configuration: types, limits, and what may change later.

Values and what they mean are in `configs/train.yaml` and the files of its groups.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from omegaconf import MISSING

from caliper.limits import key

LARGE = 1e6  # a reward beyond it, and the square of its return, are no use to 32 bits
MANY = 1_000_000_000_000  # updates or steps: more than a lifetime of them


@dataclass
class TaskConfig:
    """The task and how it is seen and controlled."""

    name: str = key()
    obs: str = key(choices=("pixels", "state"))
    robot: str = key()
    controller: str = key()
    control_freq: int = key(at_least=1, at_most=500)
    horizon: int = key(at_least=1, at_most=1000000)
    cameras: list[str] = key()
    size: int = key(at_least=1, at_most=1024)
    depth: bool = key()
    segmentation: bool = key()
    frame_stack: int = key(at_least=1, at_most=64)
    proprio: list[str] = key()
    start: str | None = key()
    draw_size: bool = key()
    code: str | None = key(resume=True, evaluate=True)
    code_sha256: str | None = key(resume=True, evaluate=True)
    env: str | None = key()
    robots: list[str] = key()
    env_id: str | None = key()
    kwargs: dict[str, Any] = key()
    dense: bool = key()
    successes_only: bool = key()

    @property
    def actors(self) -> list[str]:
        """The robots of an environment of robosuite: `robots`, or `robot` alone."""
        return self.robots or [self.robot]


@dataclass
class PartsConfig:
    """An encoder and an agent from outside: Python code of one's own, or of an installed package."""

    encoder: str | None = key(resume=True, evaluate=True)
    encoder_sha256: str | None = key(resume=True, evaluate=True)
    agent: str | None = key(resume=True, evaluate=True)
    agent_sha256: str | None = key(resume=True, evaluate=True)


@dataclass
class SimConfig:
    """The engine: `batch` is MuJoCo on the CPU, `warp` MuJoCo Warp, `auto` Warp where it has been tried."""

    name: str = key(choices=("batch", "warp", "auto"), evaluate=True)
    device: str = key(choices=("cpu", "cuda"), evaluate=True)
    max_diverged: float = key(at_least=0, at_most=1, resume=True, evaluate=True)


@dataclass
class AppearanceConfig:
    """How far episodes may stray from the scene: each number but `dim` from minus to plus the range."""

    shift: float = key(at_least=0, at_most=10)
    turn: float = key(at_least=0, at_most=4)
    light: float = key(at_least=0, below=1)
    colour: float = key(at_least=0, below=1)
    dim: float = key(at_least=0, below=1)


@dataclass
class PriorConfig:
    """Further data whose rewards count as zero, as in COG."""

    path: str | None = key()
    content: str | None = key()
    episodes: int = key(at_least=0)
    start: str | None = key()
    stage: str | None = key()
    horizon: int | None = key(at_least=1)
    mixture: list[list[float]] | None = key()
    seed: int = key(at_least=0)


@dataclass
class DataConfig:
    """The dataset, and how it is collected if it is not there."""

    path: Any = key(resume=True, evaluate=True)  # None, a name, or a list of names
    filter: str | None = key()
    rewards: str = key(choices=("success", "step_cost", "flag"))
    content: str | None = key()
    episodes: int = key(at_least=1)
    horizon: int | None = key(at_least=1)
    start: str | None = key()
    stage: str | None = key()
    kind: str | None = key(choices=("complete", "partial", "mixed", "fixed", "diverse"))
    operator: str = key(choices=("script", "person"))
    mixture: list[list[float]] = key()
    demonstrations: str | None = key()
    seed: int = key(at_least=0)
    num_envs: int = key(at_least=1, resume=True)
    copies: int = key(at_least=1)
    storage: str = key(choices=("auto", "memory", "device", "disk"), resume=True)
    frames: str | None = key(resume=True)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)


@dataclass
class RewardScale:
    """Training reward = scale * raw + bias, raw being 1 on success and 0 else."""

    scale: float = key(at_least=-LARGE, at_most=LARGE)
    bias: float = key(at_least=-LARGE, at_most=LARGE)
    sparse: bool = key()


@dataclass
class OfflineConfig:
    """Pre-training on the dataset."""

    bc_updates: int = key(at_least=0, at_most=MANY)
    updates: int = key(at_least=0, at_most=MANY, resume=True)
    eval_every: int = key(at_least=1, resume=True)


@dataclass
class OnlineConfig:
    """Fine-tuning in the simulator."""

    env_steps: int = key(at_least=0, at_most=MANY, resume=True)
    num_envs: int = key(at_least=1)
    utd: float = key(at_least=0, at_most=1000)
    warmup_steps: int | None = key(at_least=0)
    mixing: float = key(at_most=1)
    capacity: int = key(at_least=2)
    stagger: bool = key()
    eval_every: int = key(at_least=1, resume=True)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)


@dataclass
class EvalConfig:
    """Greedy evaluation on fixed seeds."""

    episodes: int = key(at_least=1, at_most=100000, resume=True, evaluate=True)
    final_episodes: int = key(at_least=1, at_most=100000, resume=True, evaluate=True)
    num_envs: int = key(at_least=1, resume=True, evaluate=True)
    seed: int = key(at_least=0, evaluate=True)
    appearance: list[str] = key(evaluate=True)


@dataclass
class VideoConfig:
    """Rollout videos."""

    episodes: int = key(at_least=0, resume=True, evaluate=True)
    camera: str = key(resume=True, evaluate=True)
    size: int = key(at_least=1, at_most=4096, resume=True, evaluate=True)


@dataclass
class LogConfig:
    """Where numbers go besides metrics.csv."""

    every: int = key(at_least=1, resume=True)
    wandb: str = key(choices=("disabled", "offline", "online"), resume=True)
    tensorboard: bool = key(resume=True)
    checkpoint_minutes: float = key(at_least=0, resume=True)


@dataclass
class RunConfig:
    """A whole run."""

    run_dir: str | None = key()
    seed: int = key(at_least=0)
    threads: int | None = key(at_least=1, at_most=1024, resume=True, evaluate=True)
    batch_size: int = key(at_least=1)
    device: str = key(resume=True, evaluate=True)
    learner: str = key(choices=("eager", "graph"), resume=True, evaluate=True)
    tf32: bool = key(resume=True, evaluate=True)
    method: str | None = key()
    agent: dict[str, Any] = MISSING
    encoder: dict[str, Any] = MISSING
    parts: PartsConfig = field(default_factory=PartsConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    sim: SimConfig = field(default_factory=SimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reward: RewardScale = field(default_factory=RewardScale)
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def discount(self) -> float:
        """Discount of the returns: the agent's, or the critics' default for an agent without one."""
        from caliper.agents.actor_critic import CriticConfig  # torch, which composing does without

        return float(self.agent.get("discount", CriticConfig.discount))

    @property
    def chunk(self) -> int:
        """Control steps that an action of the agent covers."""
        return int(self.agent.get("chunk", 1))

    @property
    def recorded_horizon(self) -> int:
        """Control steps after which an episode is cut in a dataset that the run collects."""
        return self.task.horizon if self.data.horizon is None else self.data.horizon

    @property
    def recorded_start(self) -> str | None:
        """How episodes start in a dataset that the run collects."""
        return self.task.start if self.data.start is None else self.data.start

    @property
    def prior(self) -> RunConfig | None:
        """The run whose dataset is this run's prior data, if there is any."""
        if not (self.data.prior.episodes or self.data.prior.path):
            return None
        kept = ("path", "content")
        given = {k: v for k, v in asdict(self.data.prior).items() if v is not None or k in kept}
        none = replace(self.data.prior, episodes=0, path=None)
        # Its rewards are not looked at: they will count as zero.
        return replace(self, data=replace(self.data, **given, rewards="flag", filter=None, prior=none))

    def dataset_paths(self) -> list[str]:
        """Where the dataset's files are: those named, or the one that would be collected."""
        path = self.data.path
        return list(path) if isinstance(path, list) else [self.dataset_path()]

    def dataset_path(self) -> str:
        """Where the dataset is, or will be collected to; another mixture makes another file."""
        task, data = self.task, self.data
        words = [
            task.name,
            *([task.robot] * (task.robot != "panda")),
            task.controller,
            f"{task.control_freq}hz",
            f"{self.recorded_horizon}steps",
        ]
        words += [f"from_{self.recorded_start}"] * (self.recorded_start is not None)
        words += ["sizes"] * task.draw_size
        words += [f"until_{data.stage}"] * (data.stage is not None)
        words += [f"by_{data.operator}"] * (data.operator != "script")
        mixture = zlib.crc32(json.dumps(data.mixture).encode())
        words += [str(data.episodes), f"seed{data.seed}"]
        if task.env_id is not None:  # a folder of Minari's
            shown = [PurePath(data.demonstrations).stem] if data.demonstrations else []
            shown += [data.kind] if data.kind else []
            words = [task.name, f"{self.recorded_horizon}steps", *words[-2:], *shown, f"mix{mixture:08x}"]
            return str(data.path or f"datasets/{'_'.join(words)}")
        words += [f"mix{mixture:08x}"]
        return str(data.path or f"datasets/{'_'.join(words)}.hdf5")
