"""The page in headless Chromium: it opens, keys move the arm, an episode is kept."""

import shutil
import threading
import time

import numpy as np
import pytest

from caliper.data.robomimic import read_dataset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
LONG = 120_000  # ms: WebGL is drawn by the CPU

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture
def opened():
    """Opens a page and its server; yields a function that does so."""
    pytest.importorskip("viser")
    sync_api = pytest.importorskip("playwright.sync_api")
    from caliper.viewer.view import open_page

    going, stop, threads, pages = [], threading.Event(), [], []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE)

        def start(*words):
            page = open_page([*words, "threads=1"])
            pages.append(page)

            def run():
                while not stop.is_set():
                    time.sleep(page.tick())

            threads.append(threading.Thread(target=run))
            threads[-1].start()
            tab = browser.new_page(viewport={"width": 1000, "height": 700})
            tab.goto(f"http://127.0.0.1:{page.server.get_port()}", timeout=LONG)
            tab.get_by_text("What the policy sees").wait_for(timeout=LONG)
            going.append(tab)
            return page, tab

        yield start
        stop.set()
        for thread in threads:
            thread.join()
        for page in pages:
            page.server.stop()
        browser.close()


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore")  # viser's threads and sockets
def test_keys_move_the_arm_and_an_episode_is_kept_and_replayed(opened, tmp_path):
    path = tmp_path / "demo.hdf5"
    page, tab = opened("task=lift", "task.size=32", "--out", str(path), "--port", "8431")
    tab.locator("img").first.wait_for(timeout=LONG)  # what the policy sees
    begun = page.shown.state.copy()
    for count, key in enumerate("oooi", 1):
        tab.keyboard.press(key)
        until(lambda count=count: len(page.shown) == count)
    sim = page.shown.env.env
    assert sim.grip_pos[0, 2] < 1.0 and not np.array_equal(page.shown.state, begun)
    tab.get_by_text("going on").wait_for(timeout=LONG)
    ended = page.shown.state.copy()
    tab.keyboard.press("Enter")
    until(lambda: path.exists() and len(page.shown) == 0)
    (episode,) = read_dataset(path).episodes
    assert len(episode) == 4 and (episode.final_state == ended).all()
    assert (episode.actions[:3, 2] == -1).all() and episode.actions[3, 0] == 1

    leafed, tab = opened(str(path), "task.size=32", "--port", "8432")
    tab.get_by_text("of 4").wait_for(timeout=LONG)
    tab.keyboard.press("p")
    until(lambda: leafed.shown.frame == 4)
    assert (leafed.shown.state == ended).all()
