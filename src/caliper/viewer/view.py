"""`caliper view`: what to show, read from a command line."""

from __future__ import annotations

from pathlib import Path

from caliper.config.build import of_checkpoint, set_up_torch
from caliper.config.compose import compose
from caliper.config.validate import check, check_task
from caliper.errors import CaliperError
from caliper.training.devices import choose_devices

try:
    from caliper.viewer.page import Page
except ImportError as error:
    raise CaliperError(
        f"the viewer needs viser ({error}); install: pip install 'caliper-rl[view]'"
    ) from error

from caliper.api import Run, load_policy
from caliper.policies.policy import CARD
from caliper.tools.saved_run import load_agent
from caliper.viewer.demonstrations import Demonstrations
from caliper.viewer.exported import scene_config
from caliper.viewer.keys import moves
from caliper.viewer.live import Live, require_scene
from caliper.viewer.recorded import Recorded

HOST, PORT = "127.0.0.1", 8080
HORIZON = 1000  # control steps for a person, who is slower than an expert
USAGE = "caliper view RUN|OUT|FILE|task=lift [key=value ...] [--out FILE] [--port 8080] [--host 127.0.0.1]"


def view(words: list[str]) -> None:
    """Shows a page until Ctrl-C.

    Raises:
        CaliperError: an option or a file that will not do.
    """
    page = open_page(words)
    host, port = page.server.get_host(), page.server.get_port()
    if host not in (HOST, "localhost", "::1"):
        print(f"anybody who reaches {host}:{port} can move this: there is no password")
    print(f"ready at http://{host}:{port}; stop with Ctrl-C", flush=True)
    print(page.run(), flush=True)


def open_page(words: list[str]) -> Page:
    """The page that a command line asks for; its `run` or `tick` makes it go on."""
    options = {"--out": "", "--port": str(PORT), "--host": HOST}
    rest, words = [], [*words]
    while words:
        word = words.pop(0)
        if word in options and words:
            options[word] = words.pop(0)
        elif word.startswith("--"):
            raise CaliperError(f"{word} is not known or lacks its value; write: {USAGE}")
        else:
            rest.append(word)
    out, port, host = options["--out"], options["--port"], options["--host"]
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise CaliperError(f"--port {port} must be a number from 1 to 65535")
    if not rest:
        raise CaliperError(f"say what to show; write: {USAGE}")
    first = Path(rest[0])
    if out and "=" not in rest[0]:
        raise CaliperError(
            "--out takes demonstrations of the keyboard; write: caliper view task=lift --out FILE"
        )
    if first.is_file():
        return Page(Recorded(first, rest[1:]), first.name, host, int(port))
    if (first / CARD).is_file():
        policy = load_policy(first)
        config = scene_config(policy, first, rest[1:])
        config = choose_devices(config).applied(config)
        set_up_torch(config)
        return Page(Live(config, policy), first.name, host, int(port))
    if "=" not in rest[0] or first.is_dir():
        config = of_checkpoint(Run(first).config(*rest[1:]))
        check(config)
        config = choose_devices(config).applied(config)
        set_up_torch(config)
        agent, _ = load_agent(first, config)
        return Page(Live(config, agent), first.name, host, int(port))
    own = any(word.startswith("task.horizon=") for word in rest)
    config = compose([*rest, *([] if own else [f"task.horizon={HORIZON}"])])
    require_scene(config)
    check_task(config)
    config = choose_devices(config).applied(config)
    set_up_torch(config)
    moves(config.task.controller, config.task.robot)  # refuses what no keys can move, before all is loaded
    live = Live(config)
    saved = Demonstrations(Path(out or f"datasets/{config.task.name}_keyboard.hdf5"), config)
    return Page(live, f"{config.task.name}: {saved.path.name}", host, int(port), saved)
