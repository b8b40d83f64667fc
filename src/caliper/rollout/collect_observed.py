"""`caliper collect` in the environments of gymnasium-robotics: observations, as a Minari dataset."""

from __future__ import annotations

from pathlib import Path

from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.rollout.collect_adroit import collect_adroit
from caliper.rollout.collect_antmaze import collect_antmaze
from caliper.rollout.collect_kitchen import collect_kitchen


def collect_observed(config: RunConfig, path: Path) -> Path:
    """Writes the dataset of the run's task.

    Returns:
        Its folder.

    Raises:
        CaliperError: nobody knows how to act in the environment, or the dataset cannot be written.
    """
    env_id = config.task.env_id or ""
    if env_id.startswith("AdroitHand"):
        return collect_adroit(config, path)
    if env_id.startswith("AntMaze"):
        return collect_antmaze(config, path)
    if env_id.startswith("FrankaKitchen"):
        return collect_kitchen(config, path)
    raise CaliperError(
        f"task={config.task.name} has no expert to collect from; name a Minari dataset's folder: "
        "data.path=..."
    )
