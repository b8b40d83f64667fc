import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from caliper.errors import CaliperError
from caliper.rollout import video
from caliper.rollout.video import GREEN, GREY, RED, VideoWriter, grid, write_video


def clip(t, h=32, w=48, value=None):
    if value is not None:
        return np.full((t, h, w, 3), value, np.uint8)
    return np.linspace(0, 255, t * h * w * 3).astype(np.uint8).reshape(t, h, w, 3)


def probe(path):
    """Codec, pixel format, size and frames as ffmpeg itself reports them."""
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    stream = re.search(r"Video: (\w+).*? (\w+)[(,].*?(\d+)x(\d+)", done.stderr)
    frames = re.findall(r"frame=\s*(\d+)", done.stderr)[-1]
    return stream[1], stream[2], int(stream[3]), int(stream[4]), int(frames)


def test_a_video_reads_back(tmp_path):
    path = write_video(tmp_path / "videos" / "a.mp4", clip(7), fps=20)
    assert probe(path) == ("h264", "yuv420p", 48, 32, 7)
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    decode = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    read = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, np.uint8)
    assert np.abs(read.reshape(7, 32, 48, 3).astype(int) - clip(7)).mean() < 6


def test_odd_sizes_are_padded_to_even(tmp_path):
    assert probe(write_video(tmp_path / "a.mp4", clip(3, 33, 47), fps=10)) == ("h264", "yuv420p", 48, 34, 3)


def test_a_failure_leaves_the_earlier_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", clip(3), fps=10)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), VideoWriter(path, 10) as writer:
        writer.write(clip(1)[0])
        raise ZeroDivisionError
    with pytest.raises(CaliperError, match=r"a\.mp4.*same|all frames must be"):
        write_video(path, [clip(1)[0], clip(1, 16, 16)[0]], fps=10)
    with pytest.raises(CaliperError, match="at least one frame"):
        write_video(path, [], fps=10)
    with pytest.raises(CaliperError, match="uint8"):
        write_video(path, clip(2).astype(np.float32), fps=10)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_missing_ffmpeg_says_the_fix(tmp_path, monkeypatch):
    def missing():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(video.imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(CaliperError, match="pip install"):
        write_video(tmp_path / "a.mp4", clip(2), fps=10)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_in_ffmpegs_words(tmp_path):
    # A full disk, as far as ffmpeg can tell.
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    writer._partial = tmp_path / "a.mp4.partial"
    with pytest.raises(CaliperError, match="No space left"), writer:
        writer._partial.symlink_to("/dev/full")
        for frame in np.random.default_rng(0).integers(0, 255, (40, 128, 128, 3), np.uint8):
            writer.write(frame)
    assert not list(tmp_path.iterdir())


def test_no_permission_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CaliperError, match="Cannot write"):
        write_video(tmp_path / "file" / "a.mp4", clip(2), fps=10)


def test_grid_holds_the_last_frame_and_colours_the_border():
    tiles = grid([clip(2, value=10), clip(5, value=20), clip(1, value=30)], success=[True, False, True])
    border = 2
    h, w = 32 + 2 * border, 48 + 2 * border
    assert tiles.shape == (5, 2 * h, 2 * w, 3)
    assert tuple(tiles[0, 0, 0]) == GREEN and tuple(tiles[4, 0, w]) == RED and tuple(tiles[3, h, 0]) == GREEN
    assert (tiles[4, border : h - border, border : w - border] == 10).all()
    assert (tiles[4, h + border : 2 * h - border, border : w - border] == 30).all()
    assert (tiles[:, h:, w:] == video.BACKGROUND).all()  # the empty fourth place


def test_grid_with_captions_and_columns():
    plain = grid([clip(2)] * 3, columns=3)
    assert plain.shape == (2, 36, 3 * 52, 3) and tuple(plain[0, 0, 0]) == GREY
    captioned = grid([clip(2)] * 3, columns=3, captions=["seed 1", "seed 2", "seed 3"])
    assert captioned.shape == (2, 36 + 12, 3 * 52, 3)
    assert (captioned[0, 36:] > 150).any() and (captioned[:, :36] == plain).all()
    with pytest.raises(CaliperError, match="one size"):
        grid([clip(2), clip(2, 16, 16)])
