"""The typed shape of a run's configuration; `configs/*.yaml` fills it, the command line overrides it."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from omegaconf import MISSING


@dataclass
class TaskConfig:
    """The task and how it is seen and controlled."""

    name: str = MISSING
    obs: str = "pixels"  # pixels (and the robot's own state) | state (poses of robot and objects)
    controller: str = "osc_pose"  # osc_pose (7-D actions) | osc_position (4-D)
    control_freq: int = 20  # control steps per second
    horizon: int = 200  # control steps per episode
    cameras: list[str] = field(default_factory=lambda: ["agentview", "robot0_eye_in_hand"])
    size: int = 64  # side of the policy's images, pixels
    start: str | None = None  # how episodes start, if there are several ways; null: the task's usual one
    # The benchmarks of gymnasium-robotics; for Caliper's own scenes the keys below stay as they are.
    env_id: str | None = None  # an environment of Gymnasium, which replaces all of the above but the horizon
    kwargs: dict[str, Any] = field(default_factory=dict)  # of its constructor
    dense: bool = False  # raw reward: its own; false: 1 where it says success, else 0
    successes_only: bool = False  # drop recorded episodes without success, and what follows the last success


@dataclass
class SimConfig:
    """The engine."""

    name: str = "batch"  # batch (CPU) | warp (CUDA, or Warp's CPU device)
    device: str = "cpu"  # of simulation, buffers and learner


@dataclass
class AppearanceConfig:
    """How far re-rendered episodes may stray from the scene: each number from minus to plus the strength."""

    shift: float = 0.0  # of a camera along each of its axes, metres
    turn: float = 0.0  # of a camera about each of its axes, radians
    light: float = 0.0  # relative change of the headlight, and of the lamps
    colour: float = 0.0  # relative change of each surface's red, green and blue; textures are kept


@dataclass
class PriorConfig:
    """Further data whose rewards count as zero, as in COG. What is null is as in `data`."""

    path: str | None = None  # HDF5; null: a name of its own under datasets/
    content: str | None = None  # as data.content
    episodes: int = 0  # to collect if the file is not there; 0 and no path: no prior data
    start: str | None = None
    stage: str | None = None
    horizon: int | None = None
    mixture: list[list[float]] | None = None
    seed: int = 1  # other than data.seed, so that no object lies twice in the same place


@dataclass
class DataConfig:
    """The dataset, and how it is collected if it is not there."""

    path: str | None = None  # HDF5, or the folder of a Minari dataset; null: a name under datasets/
    # What recorded rewards are: success (1 on success, else 0) | step_cost (0, else -1) | flag (whatever;
    # made from the success flags instead). For HDF5 files; Minari's are read by rules of their own.
    rewards: str = "success"
    content: str | None = None  # SHA-256 of what it holds, noted by the run, which then takes no other
    episodes: int = 200
    horizon: int | None = None  # control steps of a recorded episode; null: task.horizon
    start: str | None = None  # how recorded episodes start; null: task.start
    stage: str | None = None  # stage of the task after which the script stops; null: the whole task
    # Each episode draws one of these rows (weight, action noise, metres off the grasp point): mixed quality.
    mixture: list[list[float]] = field(
        default_factory=lambda: [[0.3, 0.1, 0.0], [0.3, 0.5, 0.0], [0.2, 1.0, 0.0], [0.2, 0.3, 0.03]]
    )
    seed: int = 0
    num_envs: int = 32
    # Each episode enters the offline buffer so often: once as recorded, then under an appearance of its own.
    copies: int = 1
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)


@dataclass
class RewardScale:
    """Training reward = scale * raw + bias, raw being 1 on success and 0 else."""

    scale: float = 11.0
    bias: float = -1.0
    sparse: bool = True  # an episode without success counts as one that never ends


@dataclass
class OfflineConfig:
    """Pre-training on the dataset."""

    clone_updates: int = 0  # behaviour-cloning steps of the actor before everything else
    updates: int = 20_000  # then updates of the agent
    eval_every: int = 2_000  # updates


@dataclass
class OnlineConfig:
    """Fine-tuning in the simulator."""

    env_steps: int = 20_000
    num_envs: int = 8
    utd: float = 1.0  # updates per environment step
    warmup_steps: int = 500  # environment steps before the first update
    mixing: float = 0.5  # offline share of a batch; negative: by size
    capacity: int = 50_000  # frames of the online buffer
    eval_every: int = 2_000  # environment steps


@dataclass
class EvalConfig:
    """Greedy evaluation on fixed seeds."""

    episodes: int = 20
    final_episodes: int = 50  # of the last evaluation of each phase
    num_envs: int = 20
    seed: int = 0  # episode i starts from seed + i; training uses other seeds


@dataclass
class VideoConfig:
    """Rollout videos."""

    episodes: int = 4  # 0 = none
    camera: str = "showcase"
    size: int = 256


@dataclass
class LogConfig:
    """Where numbers go besides metrics.csv."""

    every: int = 100  # updates between rows
    wandb: str = "offline"  # offline (no account, files in the run folder) | online | disabled
    checkpoint_minutes: float = 5.0


@dataclass
class RunConfig:
    """A whole run."""

    run_dir: str | None = None  # null: runs/<task>_<agent>_<encoder>_seed<seed>_<time>
    seed: int = 0
    threads: int | None = None  # CPU threads; null: one per core
    batch_size: int = 256
    learner: str = "eager"  # eager | compile (torch.compile) | graph (each update one CUDA graph; GPU alone)
    method: str | None = None  # what the agent and its driver's settings are called; null: as the agent
    agent: dict[str, Any] = MISSING
    encoder: dict[str, Any] = MISSING
    task: TaskConfig = field(default_factory=TaskConfig)
    sim: SimConfig = field(default_factory=SimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reward: RewardScale = field(default_factory=RewardScale)
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    log: LogConfig = field(default_factory=LogConfig)
    # What a preset uses beyond the published algorithm: a sentence by the key that it is about.
    deviations: dict[str, str] = field(default_factory=dict)

    @property
    def discount(self) -> float:
        """Discount of the returns: the agent's, or the published one for an agent without."""
        return float(self.agent.get("discount", 0.99))

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
        given = {
            k: v for k, v in asdict(self.data.prior).items() if v is not None or k in ("path", "content")
        }
        # Its rewards are not looked at: they will count as zero.
        return replace(self, data=replace(self.data, **given, rewards="flag", prior=PriorConfig()))

    def dataset_path(self) -> str:
        """Where the dataset is, or will be collected to; another mixture makes another file."""
        task, data = self.task, self.data
        words = [task.name, task.controller, f"{task.control_freq}hz", f"{self.recorded_horizon}steps"]
        words += [f"from_{self.recorded_start}"] * (self.recorded_start is not None)
        words += [f"until_{data.stage}"] * (data.stage is not None)
        words += [str(data.episodes), f"seed{data.seed}"]
        if data.mixture != DataConfig().mixture:
            words.append(f"mix{zlib.crc32(json.dumps(data.mixture).encode()):08x}")
        return data.path or f"datasets/{'_'.join(words)}.hdf5"
