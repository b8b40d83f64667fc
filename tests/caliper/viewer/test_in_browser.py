"""The page in headless Chromium: it opens, keys move the arm, an episode is kept and shown again."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from caliper.data.formats.robomimic import read_dataset
from caliper.tools.inspect_dataset import replayed_lines
from tests.caliper.analysis.browser import Browser

DRAWN_BY_THE_CPU = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 120  # s: the free view, too, is drawn by the CPU

pytestmark = pytest.mark.slow


class Tab(Browser):
    """A browser that draws in three dimensions, at an address instead of a file."""

    def __init__(self, folder):
        super().__init__(folder)
        self.command = [word for word in self.command if word != "--disable-gpu"] + DRAWN_BY_THE_CPU

    def visit(self, address):
        size = {"width": 1000, "height": 700, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=address)

    def until(self, true):
        """Waits for a JavaScript expression."""
        end = time.monotonic() + PATIENCE
        while not self.ask(true):
            assert time.monotonic() < end, (true, self.ask("document.body?.innerText"))
            time.sleep(0.2)

    def shows(self, words):
        self.until(f"document.body?.innerText.includes({words!r})")

    def press(self, key, code, number):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number)

    def letter(self, key):
        self.press(key, f"Key{key.upper()}", ord(key.upper()))


@pytest.fixture
def view():
    """Runs the command, in another process, for these tests open no port; yields what starts it."""
    pytest.importorskip("viser", reason="needs the extra view: pip install 'caliper-rl[view]'")
    started = []

    def start(*words):
        command = [sys.executable, "-m", "caliper", "view", *words, "threads=1"]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        said = started[-1].stdout.readline()
        return started[-1], re.fullmatch(r"ready at (http://127.0.0.1:\d+); stop with Ctrl-C\n", said)[1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def stopped(process):
    """Ends it as Ctrl-C does; what it says then."""
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return said


def test_keys_move_the_arm_and_an_episode_is_kept_and_shown_again(view, tmp_path):
    path = tmp_path / "demo.hdf5"
    with Tab(tmp_path / "profile") as tab:
        process, address = view("task=lift", "task.size=32", "--out", str(path), "--port", "18431")
        tab.visit(address)
        tab.shows("step 0 of at most 1000")
        tab.until("[...document.images].filter(i => i.naturalWidth >= 32).length >= 2")  # what a policy sees
        for count, key in enumerate("oooi", 1):
            tab.letter(key)
            tab.shows(f"step {count} of at most 1000")
        tab.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as image:
            free = np.asarray(image.convert("RGB"))[100:600, 350:650]  # of the window, between the panels
        assert free.std((0, 1)).min() > 5  # something is drawn there
        tab.press("Enter", "Enter", 13)
        tab.shows("1 saved in demo.hdf5")
        tab.letter("o")
        tab.shows("step 1 of at most 1000")
        assert stopped(process) == f"stopped; demonstrations in {path}: 2, the one under way too\n"

        episode, under_way = read_dataset(path).episodes
        assert len(episode) == 4 and len(under_way) == 1
        assert (episode.actions[:3, 2] == -1).all() and episode.actions[3, 0] == 1
        assert list(replayed_lines(path))[-1].startswith("  2 of 2 demos follow their recorded states")

        process, address = view(str(path), "task.size=32", "--port", "18431")
        tab.visit(address)
        tab.shows("step 0 of 4")
        tab.letter("p")
        tab.shows("step 4 of 4")
        assert stopped(process) == "stopped\n"
