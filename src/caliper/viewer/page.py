"""The page in the browser: the free view, the policy's images, a plot, and what can be pressed."""

from __future__ import annotations

import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from math import ceil
from typing import Any

import mujoco
import numpy as np
import torch
import viser
from numpy.typing import NDArray

from caliper.config.build import COLLECT_STRIDE
from caliper.errors import CaliperError
from caliper.viewer.demonstrations import Demonstrations
from caliper.viewer.keys import GRIPPER, GRIPPER_SECONDS, PRESS_SECONDS, Move, moves
from caliper.viewer.live import Live
from caliper.viewer.recorded import Recorded
from caliper.viewer.shapes import Poses, meshes

VIEWS = "showcase", "agentview"  # the camera from which the free view starts: the first that is there
SIDE, PANEL = 240, 300  # of an image in the page at most, and width of the images' window, pixels
HOLD_SECONDS = 2.0  # how long an ended episode stays before the next begins
MOST_WAITING = 2  # presses of keys that wait their turn: a held key must not move the arm after it is let go
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
Q_COLOUR, RETURN_COLOUR = "#2563eb", "#d97706"


class Page:
    """A server of one page; whoever opens it sees the same.

    What is pressed in the browser is put into a queue and done by `tick`, in the thread that calls it: the
    simulation is touched by no other.

    Attributes:
        server: viser's.
    """

    def __init__(
        self, shown: Live | Recorded, title: str, host: str, port: int, saved: Demonstrations | None = None
    ) -> None:
        """Opens the port and sends the scene.

        Args:
            shown: what happens.
            title: of the page.
            host: address to listen at.
            port: of it; the next free one is taken where it is not.
            saved: where demonstrations go; with it, the keyboard moves the arm.

        Raises:
            CaliperError: this machine has no such address.
        """
        _require_own(host)
        self.shown, self._saved = shown, saved
        self._todo: queue.Queue[Callable[[], None]] = queue.Queue()
        self._presses: list[list[torch.Tensor]] = []  # actions of each press of a key that waits
        self._poses = Poses(shown.model)
        self._ended = 0.0
        self._closing = -1.0  # what the gripper is told: it starts open
        with redirect_stdout(StringIO()):  # its own announcement; the command has one
            self.server = viser.ViserServer(host, port, label=title, verbose=False)
        self._scene()
        self._controls(title)
        if saved is not None:  # each start once, also in a file that was begun another day
            self._restart(saved.next_episode)
        self._show()

    def tick(self) -> float:
        """Does what was pressed, lets the episode go on, and shows it.

        Returns:
            Seconds until the next call, so that the simulation runs at its own speed.
        """
        begun = time.monotonic()
        while not self._todo.empty():
            try:
                self._todo.get()()
            except CaliperError as error:
                self._say(str(error))
        if self._go_on():
            self._show()
        speed = float(self._speed.value) if self._saved is None else 1.0
        return max(0.001, begun + 1 / (self.shown.config.task.control_freq * speed) - time.monotonic())

    def run(self) -> str:
        """Ticks until Ctrl-C or another signal to stop, which waits for the end of a step or of a write.

        Returns:
            What to tell whoever stopped it. A demonstration under way was saved: it may be the best of all.

        Raises:
            CaliperError: that one could not be written, or the physics cannot go on.
        """
        told = threading.Event()
        before = {number: signal.signal(number, lambda *_: told.set()) for number in SIGNALS}
        try:
            while not told.wait(self.tick()):
                pass
            return self._leave()
        finally:
            with redirect_stdout(StringIO()):
                self.server.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _leave(self) -> str:
        saved, shown = self._saved, self.shown
        if saved is None:
            return "stopped"
        under_way = isinstance(shown, Live) and len(shown) > 0 and not shown.diverged
        if isinstance(shown, Live) and under_way:
            saved.add(shown.recorded())
        if not saved.episodes:
            return "stopped; no demonstration was made"
        also = ", the one under way too" if under_way else ""
        return f"stopped; demonstrations in {saved.path}: {len(saved.episodes)}{also}"

    def _go_on(self) -> bool:
        """Makes a step if one is due; returns whether anything changed."""
        shown = self.shown
        if isinstance(shown, Recorded):
            if self._paused or shown.frame == len(shown):
                return False
            self._frame.value = shown.frame + 1  # whose callback does not see what the program sets
            shown.go(shown.episode, shown.frame + 1)
            return True
        if self._saved is not None:
            if not self._presses or shown.outcome:
                self._presses.clear()
                return False
            shown.advance(self._presses[0].pop(0))
            if not self._presses[0]:
                self._presses.pop(0)
            return True
        if self._paused:
            return False
        if not shown.outcome:
            shown.advance()
            self._ended = time.monotonic()
            return True
        if time.monotonic() - self._ended < HOLD_SECONDS:
            return False
        self._restart(shown.episode + 1)
        return True

    def _scene(self) -> None:
        server, model = self.server, self.shown.model
        server.scene.set_up_direction("+z")
        server.gui.configure_theme(control_layout="floating", show_logo=False, show_share_button=False)
        self._bodies = [
            server.scene.add_frame(f"/bodies/{body}", show_axes=False) for body in range(model.nbody)
        ]
        for i, ((body, _), mesh) in enumerate(meshes(model).items()):
            server.scene.add_mesh_trimesh(f"/bodies/{body}/{i}", mesh)
        names = [model.camera(i).name for i in range(model.ncam)]
        if named := [name for name in VIEWS if name in names]:
            camera = model.camera(named[0])
            position = np.array(camera.pos)
            turned = np.zeros(3)
            mujoco.mju_rotVecQuat(turned, np.array([0.0, 0.0, -1.0]), np.array(camera.quat))
            server.initial_camera.position = position
            server.initial_camera.look_at = position + 0.8 * turned
            server.initial_camera.up = (0.0, 0.0, 1.0)
            server.initial_camera.fov = float(np.deg2rad(model.cam_fovy[camera.id]))

    def _controls(self, title: str) -> None:
        gui, shown = self.server.gui, self.shown
        gui.set_panel_label(title)
        self._told = gui.add_markdown("")
        self._paused = self._saved is None and isinstance(shown, Recorded)
        if isinstance(shown, Recorded):
            self._leaf(shown)
        else:
            self._episode = gui.add_number(
                "Episode", 0, min=0, max=COLLECT_STRIDE - 1, step=1, hint="its seed follows from it"
            )
            self._episode.on_update(self._by_hand(lambda: self._restart(self._episode.value)))
        if self._saved is None:
            self._speed = gui.add_dropdown("Speed", ("0.25", "0.5", "1", "2", "4"), initial_value="1")
            self._pause = gui.add_button("Play" if self._paused else "Pause", hint="P")
            self._pause.on_click(lambda _: self._do(self._toggle))
            gui.add_command("Pause or play", hotkey="P").on_trigger(lambda _: self._do(self._toggle))
            step = gui.add_button("Step", hint="B")
            step.on_click(lambda _: self._do(self._step))
            gui.add_command("One control step", hotkey="B").on_trigger(lambda _: self._do(self._step))
        if isinstance(shown, Live) and self._saved is None:
            again = gui.add_button("Next episode", hint="N")
            again.on_click(lambda _: self._do(lambda: self._restart(shown.episode + 1)))
            gui.add_command("Next episode", hotkey="N").on_trigger(
                lambda _: self._do(lambda: self._restart(shown.episode + 1))
            )
        if self._saved is not None:
            self._hands(self._saved)
        self._pictures()

    def _leaf(self, shown: Recorded) -> None:
        gui, count = self.server.gui, len(shown.dataset.episodes)
        self._episode = gui.add_number("Episode", 0, min=0, max=count - 1, step=1)
        self._frame = gui.add_slider("Frame", 0, len(shown), 1, 0)

        def turn() -> None:
            shown.go(int(self._episode.value), 0)
            self._frame.max, self._frame.value = len(shown), 0
            self._show()

        def move() -> None:
            shown.go(shown.episode, int(self._frame.value))
            self._show()

        self._episode.on_update(self._by_hand(turn))
        self._frame.on_update(self._by_hand(move))

    def _hands(self, saved: Demonstrations) -> None:
        gui, task = self.server.gui, self.shown.config.task
        self._reach = gui.add_slider("Reach", 0.1, 1.0, 0.1, 1.0, hint="how far a press of a key moves")
        steps = ceil(PRESS_SECONDS * task.control_freq)
        rows = ["| key | moves |", "|---|---|"]
        for move in moves(task.controller, task.robot):
            words = f"{'Shift+' if move.shift else ''}{move.key}"
            rows.append(f"| `{words}` | {move.words} |")
            command = gui.add_command(
                f"Move: {move.words}", hotkey=move.key, modifier="shift" if move.shift else None
            )
            command.on_trigger(lambda _, move=move: self._do(lambda: self._press(move, steps)))
        rows.append(f"| `{GRIPPER}` | close or open the gripper |")
        gui.add_command("Close or open the gripper", hotkey=GRIPPER).on_trigger(
            lambda _: self._do(lambda: self._grip(ceil(GRIPPER_SECONDS * task.control_freq)))
        )
        for label, hotkey, work in (
            ("Save demonstration", "enter", lambda: self._save(saved)),
            ("Discard and start again", "backspace", lambda: self._restart(self.shown.episode)),
        ):
            gui.add_button(label, hint=hotkey.capitalize()).on_click(lambda _, work=work: self._do(work))
            gui.add_command(label, hotkey=hotkey).on_trigger(lambda _, work=work: self._do(work))
        gui.add_markdown("\n".join(rows))

    def _pictures(self) -> None:
        gui = self.server.gui
        panel = gui.add_panel()
        panel.float(x=15, y=15, width=PANEL)
        with panel.add_tab("What the policy sees"):
            self._cameras = {
                name: gui.add_image(_enlarged(image), label=name, format="png")
                for name, image in self.shown.images().items()
            }
            self._plot = self._chart() if self._saved is None else None

    def _chart(self) -> viser.GuiUplotHandle:
        names = ("step", "Q", "return") if isinstance(self.shown, Live) else ("step", "return")
        colours = {"Q": Q_COLOUR, "return": RETURN_COLOUR}
        series = tuple(
            {"label": name} | ({"stroke": colours[name], "width": 2} if name in colours else {})
            for name in names
        )
        scales: dict[str, Any] = {"x": {"time": False}}
        return self.server.gui.add_uplot(
            (np.zeros(1),) * len(names), series, scales=scales, aspect=1.6, padding=(12, 12, 0, 0)
        )

    def _do(self, work: Callable[[], None]) -> None:
        self._todo.put(work)

    def _by_hand(self, work: Callable[[], None]) -> Callable[[viser.GuiEvent[Any]], None]:
        """A callback that does `work` where somebody set the value, and nothing where the program did."""
        return lambda event: self._do(work) if event.client else None

    def _press(self, move: Move, steps: int) -> None:
        action = self._still()
        action[move.entry] = move.sign * float(self._reach.value)
        if len(self._presses) < MOST_WAITING:
            self._presses.append([action] * steps)

    def _grip(self, steps: int) -> None:
        if len(self._presses) < MOST_WAITING:
            self._closing = -self._closing
            self._presses.append([self._still()] * steps)

    def _still(self) -> torch.Tensor:
        assert isinstance(self.shown, Live)
        action = torch.zeros(self.shown.env.action_dim)
        action[-1] = self._closing
        return action

    def _toggle(self) -> None:
        self._paused = not self._paused
        if not self._paused and isinstance(self.shown, Recorded) and self.shown.frame == len(self.shown):
            self.shown.go(self.shown.episode, 0)
        self._pause.label = "Play" if self._paused else "Pause"

    def _step(self) -> None:
        if not self._paused:
            self._toggle()
        if isinstance(self.shown, Recorded):
            self.shown.go(self.shown.episode, self.shown.frame + 1)
            self._frame.value = self.shown.frame
        else:
            self.shown.advance()
        self._show()

    def _restart(self, episode: int) -> None:
        assert isinstance(self.shown, Live)
        self._presses.clear()
        self._closing = -1.0
        self.shown.restart(int(episode))
        self._episode.value = int(episode)
        self._show()

    def _save(self, saved: Demonstrations) -> None:
        assert isinstance(self.shown, Live)
        saved.add(self.shown.recorded())
        self._restart(self.shown.episode + 1)
        self._say(f"saved: {len(saved.episodes)} in {saved.path}")

    def _say(self, words: str) -> None:
        for client in self.server.get_clients().values():
            client.add_notification(words, "", auto_close_seconds=4.0)

    def _show(self) -> None:
        shown = self.shown
        positions, turns = self._poses.of(shown.state)
        with self.server.atomic():
            for frame, position, turn in zip(self._bodies, positions, turns, strict=True):
                frame.position, frame.wxyz = position, turn
            for name, image in shown.images().items():
                self._cameras[name].image = _enlarged(image)
            if self._plot is not None:
                self._plot.data = self._lines()
        at = shown.frame if isinstance(shown, Recorded) else len(shown)
        of = (
            f" of {len(shown)}" if isinstance(shown, Recorded) else f" of at most {shown.config.task.horizon}"
        )
        told = f"step **{at}**{of} · {shown.outcome or 'going on'}"
        if self._saved is not None:
            if shown.outcome:
                told += ": Enter saves it, Backspace starts again"
            told += f"\n\n**{len(self._saved.episodes)}** saved in {self._saved.path.name}"
        self._told.content = told

    def _lines(self) -> tuple[NDArray[np.float64], ...]:
        shown, t = self.shown, max(1, len(self.shown))
        steps, unknown = np.arange(t, dtype=float), np.full(t, np.nan)
        returns = shown.returns() if len(shown) else unknown
        if isinstance(shown, Recorded):
            return steps, returns
        return steps, np.array(shown.q) if len(shown.q) == t else unknown, returns


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small image (h, w, 3) with each pixel several times as wide and high."""
    times = max(1, SIDE // max(image.shape[:2]))
    return image.repeat(times, 0).repeat(times, 1)


def _require_own(host: str) -> None:
    """Refuses an address that is not this machine's, at which viser would try a thousand ports."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.bind(address)
    except OSError as error:
        raise CaliperError(
            f"--host {host} is no address of this machine ({error.strerror}); leave it out for this machine "
            "alone, or say 0.0.0.0 for all of its addresses"
        ) from error
