"""robomimic's side of benchmarks/import.py, run by an interpreter that has it and robosuite 1.4.1.

Reads names of demos from its standard input, has robomimic's own `dataset_states_to_obs` extract each, as
for a dataset of images, saves the images and answers with the seconds that took, one line of JSON each.

robomimic imports two packages that need a compiler: `mujoco_py`, of which it names an exception, and
`egl_probe`, which finds it a GPU. Stand-ins without content serve for both; nothing else of it is touched.
"""

import json
import os
import sys
import time
import types

answers = os.fdopen(os.dup(1), "w", buffering=1)  # robomimic prints to standard output, from its import on
os.dup2(2, 1)
peers: dict[str, object] = sys.modules  # type: ignore[assignment]
peers["mujoco_py"] = types.SimpleNamespace(builder=types.SimpleNamespace(MujocoException=RuntimeError))
peers["egl_probe"] = types.SimpleNamespace(get_available_devices=list)

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import robomimic.utils.env_utils as EnvUtils  # noqa: E402, N812
import robomimic.utils.file_utils as FileUtils  # noqa: E402, N812
import robosuite  # noqa: E402
from robomimic.scripts.dataset_states_to_obs import extract_trajectory  # noqa: E402

path, folder, size, *cameras = sys.argv[1:]
env = EnvUtils.create_env_for_data_processing(
    env_meta=FileUtils.get_env_metadata_from_dataset(dataset_path=path),
    camera_names=cameras,
    camera_height=int(size),
    camera_width=int(size),
    reward_shaping=False,
)
print(json.dumps({"robosuite": robosuite.__version__}), file=answers)
for line in sys.stdin:
    name = line.strip()
    with h5py.File(path, "r") as file:
        demo = file["data"][name]
        states, actions = demo["states"][()], demo["actions"][()]
        first = {"states": states[0], "model": demo.attrs["model_file"]}
    wall, cpu = time.perf_counter(), time.process_time()
    found = extract_trajectory(env, first, states, actions, done_mode=2)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    images = np.stack([found["obs"][f"{camera}_image"] for camera in cameras], axis=1)  # t v h w c
    np.save(os.path.join(folder, name + ".npy"), images)
    print(json.dumps({"images": len(cameras) * (len(states) + 1), "seconds": seconds}), file=answers)
