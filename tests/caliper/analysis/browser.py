"""A headless Chromium, spoken to through a pipe (the DevTools protocol), so that no socket is opened here."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time

import pytest

PATIENCE = 60  # seconds for any answer, on a busy machine


class Browser:
    """One tab; a context manager. `problems` collects what the console and the log say."""

    def __init__(self, folder):
        program = next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        )
        if program is None:
            pytest.skip("no Chromium here; on Debian: apt-get install chromium")
        switches = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"]
        switches += ["disable-background-networking", "remote-debugging-pipe", f"user-data-dir={folder}"]
        self.command = [program, *(f"--{switch}" for switch in switches)]
        self.problems, self.events, self.buffer, self.count, self.session = [], [], b"", 0, None

    def __enter__(self):
        ends = []
        for _ in range(2):  # the browser reads from 3 and writes to 4: ours must be others
            ends += [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe()]
        its_in, self.out, self.into, its_out = ends
        null = os.open(os.devnull, os.O_RDWR)
        moves = [(os.POSIX_SPAWN_DUP2, a, b) for a, b in ((null, 1), (null, 2), (its_in, 3), (its_out, 4))]
        self.pid = os.posix_spawn(self.command[0], self.command, os.environ, file_actions=moves, setpgroup=0)
        for end in (its_in, its_out, null):
            os.close(end)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        os.killpg(self.pid, signal.SIGKILL)  # its own group
        os.waitpid(self.pid, 0)
        os.close(self.out)
        os.close(self.into)

    def call(self, method, **params):
        """Sends a command and waits for its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width, height=900):
        """Shows a file at a window size in CSS pixels, until all of it is there."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._receive()

    def ask(self, expression):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path):
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _receive(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self.into, 1 << 20)
            assert chunk, "the browser has closed"
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        self.events.append(message.get("method"))
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.problems.append(message["params"])
        return message
