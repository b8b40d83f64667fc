"""For an environment with the real robomimic: its dataset class reads a file, and its BC learns from it.

    python tests/robomimic_bc.py FILE CAMERA STEPS

Prints the number of transitions, the shapes of an observation's parts, and the loss before and after.
"""

import json
import sys

import h5py
import robomimic.utils.file_utils as files
import robomimic.utils.obs_utils as observations
import torch
from robomimic.algo import algo_factory
from robomimic.config import config_factory
from robomimic.utils.dataset import SequenceDataset


def main() -> None:
    """Reads and learns."""
    path, camera, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    config = config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = []
        config.observation.modalities.obs.rgb = [f"{camera}_image"]
        config.algo.actor_layer_dims = [64]
    observations.initialize_obs_utils_with_config(config)
    shapes = files.get_shape_metadata_from_dataset(path, all_obs_keys=[f"{camera}_image"])
    env_name = files.get_env_metadata_from_dataset(path)["env_name"]
    with h5py.File(path) as file:
        total = int(file["data"].attrs["total"])
    dataset = SequenceDataset(path, (f"{camera}_image",), ("actions", "rewards", "dones"))
    loader = iter(torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=False))
    first = next(loader)
    model = algo_factory("bc", config, shapes["all_shapes"], shapes["ac_dim"], torch.device("cpu"))
    losses = []
    for epoch in range(steps):
        batch = model.postprocess_batch_for_training(
            model.process_batch_for_training(first), obs_normalization_stats=None
        )
        losses.append(float(model.train_on_batch(batch, epoch)["losses"]["action_loss"]))
    said = {
        "env_name": env_name,
        "transitions": len(dataset),
        "total": total,
        "ac_dim": shapes["ac_dim"],
        "obs": list(first["obs"][f"{camera}_image"].shape),
        "next_obs": list(first["next_obs"][f"{camera}_image"].shape),
        "follows": bool(
            torch.equal(
                first["next_obs"][f"{camera}_image"][:-1].cpu(), first["obs"][f"{camera}_image"][1:].cpu()
            )
        ),
        "losses": [losses[0], losses[-1]],
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
