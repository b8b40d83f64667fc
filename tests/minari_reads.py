"""For an environment with the real Minari: it reads a folder, and its space holds the observations.

python tests/minari_reads.py FOLDER
"""

import json
import sys

import minari


def main() -> None:
    """Prints what Minari finds, as JSON."""
    dataset = minari.MinariDataset(f"{sys.argv[1]}/data")
    episodes = list(dataset.iterate_episodes())
    first = {key: value[0] for key, value in episodes[0].observations.items()}
    said = {
        "id": dataset.spec.dataset_id,
        "steps": dataset.total_steps,
        "fits": dataset.observation_space.contains(first)
        and dataset.action_space.contains(episodes[0].actions[0]),
        "shapes": {key: list(value.shape) for key, value in episodes[0].observations.items()},
        "images": [int(episode.observations["agentview_image"].sum()) for episode in episodes],
        "actions": [episode.actions.tolist() for episode in episodes],
        "rewards": [episode.rewards.tolist() for episode in episodes],
        "ends": [[bool(e.terminations[-1]), bool(e.truncations[-1])] for e in episodes],
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
