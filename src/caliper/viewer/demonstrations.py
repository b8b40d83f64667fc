"""Demonstrations made by hand, kept in a dataset file that is whole after each of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from caliper.config.build import COLLECT_STRIDE, collect_seeds, dataset_meta
from caliper.config.schema import RunConfig
from caliper.data.dataset import Episode
from caliper.data.formats.robomimic import DatasetWriter, read_dataset
from caliper.errors import CaliperError

COLLECTOR = "keyboard"


class Demonstrations:
    """A file of demonstrations, which further ones are added to.

    Attributes:
        path: the file; absent until something is saved.
        episodes: what it holds.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        """Goes on with `path`, if it is there.

        Raises:
            CaliperError: it is of another scene or control, or was not made here.
        """
        self.path, self.episodes = path, list[Episode]()
        self._first = collect_seeds(config)[0]
        self._meta = replace(dataset_meta(config), collector=COLLECTOR, horizon=config.task.horizon)
        if path.exists():
            there = read_dataset(path)
            there.check(replace(self._meta, collector=""))
            if there.meta.collector != COLLECTOR:
                raise CaliperError(
                    f"{path} was made by {there.meta.collector or 'somebody else'}; name another file "
                    "with --out"
                )
            self.episodes += there.episodes

    @property
    def next_episode(self) -> int:
        """The number of the first start after those in the file, so that each is shown once."""
        numbers = (episode.seed - self._first for episode in self.episodes)
        return 1 + max((i for i in numbers if 0 <= i < COLLECT_STRIDE), default=-1)

    def add(self, episode: Episode) -> None:
        """Writes the file anew with one episode more; an interrupted write leaves the old one.

        Raises:
            CaliperError: the episode is none that a dataset can hold, or the disk is full or not writable.
        """
        if fault := episode.fault(self._meta):
            raise CaliperError(f"this episode cannot be saved: {fault}")
        with DatasetWriter(self.path, self._meta) as writer:
            for known in [*self.episodes, episode]:
                writer.add(known)
        self.episodes.append(episode)
