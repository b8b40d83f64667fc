"""Prior data of COG (Singh et al. 2020, arXiv:2010.14500): recorded for another purpose, without reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from caliper.data.dataset import Dataset
from caliper.errors import CaliperError


def relabelled(dataset: Dataset) -> Dataset:
    """A dataset as prior data: every raw reward zero, every end a time-out, every return unknown.

    Each of the three keeps the prior from saying what it doesn't know of the task:

    - Raw zero, not zero after scale and bias: a step of the prior costs what a step without success costs.
    - An episode that was recorded as terminal ended when its own purpose was met. With a negative reward for
      each step such an end would look like a way to pay no more, so it is none here: the last transition,
      whose next state may not have been recorded, is left out and the one before bootstraps.
    - That an episode never met the task's success says nothing of what can be had from its states: other
      data goes on from there, and stitching the two is the point. By the rule for episodes without success
      (`caliper.data.returns`) its return would be r_neg / (1 - gamma). As Cal-QL's lower bound that is true
      and idle; mixed into a target it would hold the value of an open box at that of eternal failure. So the
      returns are minus infinity: a bound that never binds, and a number that no agent may mix in.

    Raises:
        CaliperError: an episode has no transition left.
    """
    episodes = []
    for number, episode in enumerate(dataset.episodes):
        t = len(episode) - episode.terminated
        if t == 0:
            raise CaliperError(
                f"{dataset.path or 'the prior data'}: episode {number} ends with its first action, so that "
                "nothing of it is left without its end; leave it out"
            )
        states = np.concatenate([episode.states, episode.final_state[None]])  # (t + 1, s)
        episodes.append(
            replace(
                episode,
                states=states[:t],
                final_state=states[t],
                actions=episode.actions[:t],
                rewards=np.zeros(t, np.float32),
                terminated=False,
            )
        )
    return replace(dataset, episodes=episodes, returns=False)
