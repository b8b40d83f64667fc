"""H.264 videos that every player opens, through the ffmpeg that imageio-ffmpeg brings along."""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from caliper.errors import CaliperError
from caliper.utils.files import cannot_write, commit, partial_name

Frames = NDArray[np.uint8]

# Okabe and Ito's green and vermilion: told apart with any colour vision. Grey where the outcome is unknown.
GREEN, RED, GREY = (0, 158, 115), (213, 94, 0), (150, 150, 150)
BACKGROUND = 24


class VideoWriter:
    """Writes frames as they come; the file takes its name only when it is complete.

    A context manager. Leaving it by an exception leaves no file and keeps an earlier one.

    Args:
        path: the .mp4 to write.
        fps: frames per second.

    Raises:
        CaliperError: ffmpeg is missing or fails, or the file cannot be written.
    """

    def __init__(self, path: Path | str, fps: float) -> None:
        self.path, self.fps = Path(path), fps
        self._partial = partial_name(self.path)
        self._shape: tuple[int, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VideoWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.unlink(missing_ok=True)  # it may be a link, see `replacing`
        except OSError as error:
            raise cannot_write(self.path, error.strerror) from error
        self._messages = tempfile.TemporaryFile()
        return self

    def write(self, frame: Frames) -> None:
        """Appends one frame, uint8 (h, w, 3). All frames of a video have the same size."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise CaliperError(
                f"{self.path}: a frame must be uint8 (h, w, 3), not {frame.dtype} {frame.shape}."
            )
        if self._process is None:
            self._shape = frame.shape
            self._process = self._start()
        if frame.shape != self._shape:
            raise CaliperError(f"{self.path}: all frames must be {self._shape}, and one is {frame.shape}.")
        # 4:2:0 colour needs even sides; repeating the last row or column shows no seam.
        even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(even.tobytes())
        except OSError as error:  # ffmpeg has left; its own words say why
            raise self._failure() from error

    def _start(self) -> subprocess.Popen[bytes]:
        height, width = (side + side % 2 for side in self._shape[:2])
        source = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            f"{self.fps}",
            "-i",
            "-",
        ]
        target = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart"]
        try:
            return subprocess.Popen(
                [
                    imageio_ffmpeg.get_ffmpeg_exe(),
                    "-v",
                    "error",
                    "-y",
                    *source,
                    *target,
                    "-f",
                    "mp4",
                    self._partial,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
            )
        except (RuntimeError, OSError) as error:
            raise CaliperError(
                "No ffmpeg to write videos with: run `pip install 'imageio[ffmpeg]'`, or turn videos off."
            ) from error

    def _failure(self) -> CaliperError:
        self._finish()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        # "[out#0/mp4 @ 0x55] Could not write header: No space left on device": the first line is the cause.
        return cannot_write(self.path, lines[0].split("] ")[-1] if lines else "ffmpeg stopped without a word")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            complete = self._finish()
            if error is not None:
                return
            if self._process is None:
                raise CaliperError(f"{self.path}: a video needs at least one frame.")
            if not complete:
                raise self._failure()
            try:
                commit(self._partial, self.path)
            except OSError as failure:
                raise cannot_write(self.path, failure.strerror) from failure
        finally:
            self._messages.close()
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _finish(self) -> bool:
        """Lets ffmpeg write its index and end; whether it was content."""
        if self._process is None:
            return False
        assert self._process.stdin is not None
        with suppress(OSError):  # the exit status says the same
            self._process.stdin.close()
        return self._process.wait() == 0


def write_video(path: Path | str, frames: Iterable[Frames], fps: float) -> Path:
    """Writes frames, uint8 (t, h, w, 3) or an iterable of (h, w, 3), as H.264 yuv420p.

    Raises:
        CaliperError: see `VideoWriter`.
    """
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
    return Path(path)


def grid(
    clips: Sequence[Frames],
    success: Sequence[bool] | None = None,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    hold: int = 0,
) -> Frames:
    """Tiles episodes into one clip; shorter ones stay on their last frame.

    Args:
        clips: uint8 (t, h, w, 3) each; lengths may differ, sizes may not.
        success: outcome of each episode, shown as a green or red border; grey without.
        captions: one short line under each episode.
        columns: number of columns; as square as possible without.
        hold: for how many frames more the longest stays on its last one.

    Returns:
        uint8 (max t + hold, h', w', 3).
    """
    if not clips or len({clip.shape[1:] for clip in clips}) != 1:
        raise CaliperError(
            f"A grid needs clips of one size, not {sorted({clip.shape[1:] for clip in clips})}."
        )
    height, width = clips[0].shape[1:3]
    border = max(2, width // 48)
    strip = max(12, height // 12) if captions is not None else 0
    columns = min(len(clips), columns or math.ceil(math.sqrt(len(clips))))
    rows = math.ceil(len(clips) / columns)
    length = max(len(clip) for clip in clips) + hold
    size = (height + 2 * border + strip, width + 2 * border)
    tiles = np.full((rows * columns, length, *size, 3), BACKGROUND, dtype=np.uint8)
    for i, (tile, clip) in enumerate(zip(tiles, clips, strict=False)):
        tile[:, : height + 2 * border] = GREY if success is None else GREEN if success[i] else RED
        inner = tile[:, border : border + height, border : border + width]
        inner[: len(clip)], inner[len(clip) :] = clip, clip[-1]
        if captions is not None:
            tile[:, height + 2 * border :] = _caption(captions[i], size[1], strip)
    return rearrange(tiles, "(rows columns) t h w c -> t (rows h) (columns w) c", rows=rows)


def _caption(text: str, width: int, height: int) -> Frames:
    """One line of light text on the grid's background, uint8 (h, w, 3)."""
    image = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    font = ImageFont.load_default(size=height * 0.75)
    ImageDraw.Draw(image).text((width // 2, height // 2), text, fill=(235, 235, 235), font=font, anchor="mm")
    return np.asarray(image)
