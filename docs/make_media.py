"""The images of these pages and of the README, made again.

    python docs/make_media.py tasks                               # docs/media/tasks/NAME.png
    python docs/make_media.py benchmarks                          # docs/media/tasks/gymnasium.png
    python docs/make_media.py films antmaze kitchen               # docs/media/tasks/NAME.webp
    python docs/make_media.py films adroit_door --policy policy_door.npz
    python docs/make_media.py rollouts RUN/videos/rollouts.mp4    # docs/media/rollouts.webp, for the README
    python docs/make_media.py rollouts VIDEO --out FILE.gif --crop 0 0 266 287 --width 480

Nothing but Caliper's own packages is needed: no display, no OpenGL, no system's ffmpeg.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import imageio_ffmpeg
import numpy as np
import yaml
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

MEDIA = Path(__file__).parent / "media"
CONFIGS = Path(__file__).parent.parent / "configs" / "task"
SIDE, GAP, CAPTION = 256, 6, 20  # pixels: side of each image, space between two, height of the line below
LARGEST_IMAGE = 60_000  # bytes
LARGEST_MOVING = 1_500_000
LARGEST_FILM = 700_000


# ---- tasks


def draw_tasks(names: Sequence[str]) -> None:
    """The first image of each task: the showcase camera, then what the policy's cameras give, enlarged."""
    from caliper.envs.sim import SimEnv
    from caliper.envs.tasks import TASKS

    usual = yaml.safe_load((CONFIGS.parent / "train.yaml").read_text(encoding="utf-8"))["task"]
    for name in names or TASKS:
        task = usual | yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["task"]
        cameras, size = tuple(task["cameras"]), task["size"]
        env = SimEnv(name, 1, cameras=cameras, size=size, controller=task["controller"], threads=1)
        views = {"showcase": env.render(("showcase",), SIDE)[0, 0]}  # (c, h, w) each
        views |= dict(zip(cameras, env.render(cameras, size)[0], strict=True))
        tiles = [_tile(rearrange(view.cpu().numpy(), "c h w -> h w c"), name) for name, view in views.items()]
        path = MEDIA / "tasks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(_row(tiles), path)


def draw_benchmarks(names: Sequence[str] = ("adroit_door", "adroit_pen", "antmaze_large", "kitchen")) -> None:
    """The first image of tasks of gymnasium-robotics, by Caliper's renderer."""
    from caliper.config.build import make_envs
    from caliper.config.compose import compose

    tiles = []
    for name in names:
        view = make_envs(compose([f"task={name}"]), 1).render(("showcase",), SIDE)[0, 0]
        tiles.append(_tile(rearrange(view.numpy(), "c h w -> h w c"), name))
    _save(_row(tiles), MEDIA / "tasks" / "gymnasium.png")


def _tile(pixels: np.ndarray, camera: str) -> Image.Image:
    """One image on a white tile with its camera's name below; small images are enlarged pixel by pixel."""
    tile = Image.new("RGB", (SIDE, SIDE + CAPTION), "white")
    tile.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    words = camera if pixels.shape[0] == SIDE else f"{camera}, {pixels.shape[0]} x {pixels.shape[1]}"
    ImageDraw.Draw(tile).text((2, SIDE + 3), words, "black", ImageFont.load_default(13))
    return tile


def _row(tiles: Sequence[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + CAPTION), "white")
    for i, tile in enumerate(tiles):
        row.paste(tile, (i * (SIDE + GAP), 0))
    return row


def _save(image: Image.Image, path: Path) -> None:
    """As PNG with as many colours as fit."""
    for colours in (256, 128, 64, 32):
        content = io.BytesIO()
        image.quantize(colours).save(content, "PNG", optimize=True)
        if content.tell() < LARGEST_IMAGE:
            break
    path.write_bytes(content.getvalue())
    print(f"{path}: {content.tell() / 1000:.0f} kB, {colours} colours")


# ---- films of gymnasium-robotics' tasks


class Film(NamedTuple):
    """How one is made."""

    seed: int  # of its episode
    every: int  # control steps from image to image
    speed: float  # 1: as fast as in the simulation
    side: int  # of what is drawn, pixels
    crop: tuple[int, int, int, int]  # left, top, width and height of what is kept


# The ant's seed sends it from one end of the U to the other; its outer walls are cut away.
FILMS = {
    "antmaze": Film(23, 3, 2, 400, (44, 50, 312, 272)),
    "kitchen": Film(3, 2, 2, 304, (0, 0, 304, 304)),
    "adroit_door": Film(0, 1, 1 / 8, 304, (0, 0, 304, 304)),
}
NOISE = 0.2  # on the scripts' actions, as on those of collected data


def film_benchmarks(names: Sequence[str], policy: Path | None) -> None:
    """An episode of each task, played as `caliper collect` plays them, by Caliper's renderer."""
    from caliper.config.build import make_envs
    from caliper.config.compose import compose
    from caliper.rollout.film import draw_states

    for name in names:
        film, config = FILMS[name], compose([f"task={name}", "device=cpu"])
        env: Any = make_envs(config, 1)
        if name == "antmaze":
            states = _ant_states(env, film.seed)
        elif name == "kitchen":
            states = _kitchen_states(env, film.seed)
        else:
            states = _door_states(env, film.seed, policy)
        states = states[sorted({*range(0, len(states), film.every), len(states) - 1})]
        (clip,) = draw_states(env, [states], "showcase", film.side)
        left, top, wide, high = film.crop
        images = [Image.fromarray(image[top : top + high, left : left + wide]) for image in clip]
        pause = round(1000 * film.every / film.speed / config.task.control_freq)
        _save_moving(images, pause, MEDIA / "tasks" / f"{name}.webp", wide, LARGEST_FILM)


def _ant_states(env: Any, seed: int) -> Tensor:
    """A walk through the maze; its observations hold all but the height of the goal's mark, (t + 1, s)."""
    import torch

    from caliper.envs.scripts.ant_maze import Maze, planner, walks

    inner = env.envs[0]
    maze = Maze(inner.maze)
    walk = next(walks(inner.model, maze, planner(maze), [seed], np.array([NOISE]), env.horizon, 1, 1))
    obs = torch.from_numpy(walk.obs).double()  # where it is, its goal, and the rest
    states = env.get_state().repeat(len(obs), 1)
    states[:, 1:-7] = torch.cat([obs[:, :2], obs[:, 4:]], 1)
    states[:, -7:-5] = obs[:, 2:4]
    return states


def _kitchen_states(env: Any, seed: int) -> Tensor:
    """The operator's four tasks, (t + 1, s): what it did is done again, for its recording has no states."""
    import torch

    from caliper.rollout.collect_kitchen import play_one

    recording = play_one(env, "complete", list(env.envs[0].goal), seed, NOISE)
    actions = iter(torch.from_numpy(recording.actions))
    return _states(env, seed, lambda _: next(actions)[None])


def _door_states(env: Any, seed: int, policy: Path | None) -> Tensor:
    """The trained policy without noise opens the door, (t + 1, s)."""
    import torch

    from caliper.data.formats.adroit import TrainedPolicy, read_adroit

    if policy is None:
        raise SystemExit("the film of adroit_door needs the weights of a trained policy: --policy FILE.npz")
    found = read_adroit(policy, env.env_id, env.spec.proprio, env.action_dim)
    if not isinstance(found, TrainedPolicy):
        raise SystemExit(f"{policy} holds demonstrations; name a trained policy's weights: --policy FILE.npz")

    def act(obs: Any) -> Tensor:
        return torch.from_numpy(found.act(obs.proprio.double().numpy(), np.zeros((1, env.action_dim))))

    return _states(env, seed, act)


def _states(env: Any, seed: int, act: Any) -> Tensor:
    import torch

    from caliper.rollout.episodes import run_episodes

    (episode,) = run_episodes(env, [seed], act, lambda *_: env.get_state(), "play")
    return torch.stack([*episode.records, episode.final_state])


# ---- moving images


def animate(video: Path, out: Path, crop: Sequence[int] | None, width: int, fps: float) -> None:
    """A film as a WebP or GIF that plays by itself, made worse until it is small enough.

    Args:
        video: what `caliper render` or a run has filmed.
        out: the file to make, .webp or .gif.
        crop: left, top, width and height of the part to keep, pixels of the film; None keeps all of it.
        width: of the image, pixels; shrunk where the file would grow too large.
        fps: images per second, at most the film's.
    """
    frames, rate = _read(video)
    if crop is not None:
        left, top, wide, high = crop
        frames = frames[:, top : top + high, left : left + wide]
    step = max(1, round(rate / fps))
    images = [Image.fromarray(frame) for frame in [*frames[::step], frames[-1]]]
    _save_moving(images, round(1000 * step / rate), out, width, LARGEST_MOVING)


def _save_moving(images: Sequence[Image.Image], pause: int, out: Path, width: int, largest: int) -> None:
    """Images `pause` milliseconds apart, made worse until the file has at most `largest` bytes."""
    # The end is to be seen before it begins again.
    durations = [pause] * (len(images) - 1) + [1200]
    for shrink, quality in ((1.0, 75), (1.0, 55), (0.85, 50), (0.7, 45), (0.55, 40)):
        wide = round(width * shrink)
        side = (wide, round(wide * images[0].height / images[0].width))
        small = [image.resize(side, Image.Resampling.LANCZOS) for image in images]
        content = io.BytesIO()
        if out.suffix == ".gif":
            first, *rest = [image.quantize(64) for image in small]
            first.save(content, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
        else:
            first, *rest = small
            first.save(content, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0,
                       quality=quality, method=6)  # fmt: skip
        if content.tell() < largest:
            break
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content.getvalue())
    print(f"{out}: {len(small)} images of {side[0]} x {side[1]}, {content.tell() / 1000:.0f} kB")


def _read(video: Path) -> tuple[np.ndarray, float]:
    """All images of a film, uint8 (t, h, w, 3), and how many it shows per second."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True)
    said = done.stderr.decode(errors="replace")
    about = re.search(r" (\d+)x(\d+)[ ,].*?([\d.]+) fps", said)
    if done.returncode or about is None:
        raise SystemExit(f"{video} cannot be read: {said.strip().splitlines()[-1]}")
    width, height, rate = int(about[1]), int(about[2]), float(about[3])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), rate


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, dest="verb")
    tasks = verbs.add_parser("tasks", help="the images of the tasks' pages")
    tasks.add_argument("names", nargs="*", help="tasks; all of Caliper's own if none is named")
    verbs.add_parser("benchmarks", help="the image of gymnasium-robotics' page")
    films = verbs.add_parser("films", help="the moving images of gymnasium-robotics' page")
    films.add_argument("names", nargs="+", choices=sorted(FILMS))
    films.add_argument("--policy", type=Path, help="weights of a trained policy, for adroit_door")
    rollouts = verbs.add_parser("rollouts", help="the README's moving image, from a film")
    rollouts.add_argument("video", type=Path)
    rollouts.add_argument("--out", type=Path, default=MEDIA / "rollouts.webp")
    rollouts.add_argument("--crop", type=int, nargs=4, help="left, top, width and height of the part to keep")
    rollouts.add_argument("--width", type=int, default=640)
    rollouts.add_argument("--fps", type=float, default=10)
    given = parser.parse_args()
    if given.verb == "tasks":
        draw_tasks(given.names)
    elif given.verb == "benchmarks":
        draw_benchmarks()
    elif given.verb == "films":
        film_benchmarks(given.names, given.policy)
    else:
        animate(given.video, given.out, given.crop, given.width, given.fps)


if __name__ == "__main__":
    main()
