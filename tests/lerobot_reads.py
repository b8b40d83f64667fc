"""For an environment with the real LeRobot: its dataset class reads a folder, and its loader makes a batch.

    python tests/lerobot_reads.py FOLDER IMAGES.pt

LeRobot decodes videos by torchcodec, which needs FFmpeg's shared libraries on the machine, or by a part of
torchvision that newer ones lack. Where torchcodec doesn't load, PyAV decodes, by the same timestamps and
tolerance; everything else is LeRobot's own.
"""

import json
import sys
from pathlib import Path

import av
import torch
from lerobot.datasets import lerobot_dataset


def decoded(path: Path, timestamps: list[float], tolerance_s: float, backend: str | None) -> torch.Tensor:
    """Frames (k, 3, h, w) in [0, 1] whose times are the wanted ones."""
    found = []
    with av.open(str(path)) as video:
        frames = [(float(frame.time), frame) for frame in video.decode(video=0)]
    for wanted in timestamps:
        time, frame = min(frames, key=lambda pair: abs(pair[0] - wanted))
        assert abs(time - wanted) < tolerance_s, (time, wanted)
        found.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1) / 255)
    return torch.stack(found)


def main() -> None:
    """Prints what LeRobot finds, as JSON."""
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception:  # missing, or without its libraries
        lerobot_dataset.decode_video_frames = decoded
    dataset = lerobot_dataset.LeRobotDataset("caliper/lift", root=sys.argv[1])
    items = [dataset[i] for i in range(len(dataset))]
    episodes = dataset.meta.episodes
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)))
    said = {
        "decoder": "PyAV" if lerobot_dataset.decode_video_frames is decoded else "torchcodec",
        "frames": len(dataset),
        "fps": dataset.fps,
        "lengths": list(episodes["length"]),
        "task": items[0]["task"],
        "state": torch.stack([item["observation.state"] for item in items]).tolist(),
        "action": torch.stack([item["action"] for item in items]).tolist(),
        "done": [bool(item["next.done"]) for item in items],
        "success": [bool(item["next.success"]) for item in items],
        "mean": {key: dataset.meta.stats[key]["mean"].ravel().tolist() for key in dataset.meta.stats},
        "batch": {key: list(batch[key].shape) for key in dataset.features},
    }
    torch.save({key: torch.stack([i[key] for i in items]) for key in dataset.meta.video_keys}, sys.argv[2])
    print(json.dumps(said))


if __name__ == "__main__":
    main()
