"""The policy server, over a socket of this machine: the policy's actions, and a sentence for nonsense."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

msgpack = pytest.importorskip("msgpack")
pytest.importorskip("websockets")

import websockets.sync.client  # noqa: E402  # after the skip
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.server import unix_serve  # noqa: E402

import caliper  # noqa: E402
from caliper.cli import main  # noqa: E402
from caliper.errors import CaliperError  # noqa: E402
from caliper.policies.policy import Policy, noise  # noqa: E402
from caliper.policies.server import answers, as_array, as_message, settings  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "policies.md"
CLIENT = PAGE.read_text(encoding="utf-8").split("```python\n# needs a server")[1].split("```")[0]


@pytest.fixture(scope="module")
def policy(finished):
    return caliper.load_run(finished.folder).policy()


@pytest.fixture
def serving(tmp_path):
    """Serves a policy at a local socket; gives what connects to it."""
    servers = []

    def start(policy):
        path = str(tmp_path / "socket")
        server = unix_serve(answers(policy), path, **settings(policy.spec))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        connect = websockets.sync.client.connect  # before a test puts what is returned in its place
        return lambda *_, **keys: connect("ws://here/", unix=True, path=path, **{"compression": None} | keys)

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()


def ask(connection, **told):
    connection.send(msgpack.packb(told))
    return msgpack.unpackb(connection.recv())


def test_the_client_of_the_page_plays_the_policy_s_episode(policy, serving, monkeypatch, capsys):
    monkeypatch.setattr(websockets.sync.client, "connect", serving(policy))
    assert len([line for line in CLIENT.splitlines() if line.strip()]) <= 33
    scope = {"__name__": "client"}
    exec(compile("#" + CLIENT, "client", "exec"), scope)
    assert capsys.readouterr().out == "not solved\n"  # six steps lift nothing
    env = caliper.make_env("lift", cameras=policy.spec.cameras, size=16, task=scope["control"])
    obs, ended, steps = env.reset(), False, 0
    policy.reset()
    while not ended:
        step = env.step(policy.act(obs.pixels, obs.proprio))
        obs, ended, steps = step.obs, bool(step.terminated | step.truncated), steps + 1
    assert steps == 6 and torch.equal(env.final_state, scope["env"].final_state)


def test_each_connection_has_a_chunk_of_its_own(policy, serving):
    card = dict(policy.card) | {"action": {"length": 1, "chunk": 2}}
    looks = []

    def network(pixels, proprio):
        looks.append(proprio)
        return torch.tensor([[10.0 * len(looks), 10.0 * len(looks) + 1]])

    connect = serving(Policy(card, network))
    pixels, proprio = (as_message(x[0].numpy()) for x in noise(policy.spec, 1))
    with connect() as one, connect() as other:
        assert msgpack.unpackb(one.recv())["task"] == "lift" and other.recv()
        taken = [
            float(as_array(ask(connection, images=pixels, proprio=proprio, reset=reset)["action"], "")[0])
            for connection, reset in (
                (one, True),
                (other, True),
                (one, False),
                (other, False),
                (one, True),
                (one, True),
            )
        ]
    assert taken == [10, 20, 11, 21, 30, 40]


def test_what_does_not_fit_is_answered_with_a_sentence(policy, serving):
    pixels, proprio = (x[0].numpy() for x in noise(policy.spec, 1))
    good = {"images": as_message(pixels), "proprio": as_message(proprio)}
    hwc = as_message(np.ascontiguousarray(np.moveaxis(pixels, 1, -1)))
    wrong = {
        "channels (HWC)": good | {"images": hwc},
        "the type is float32": good | {"images": as_message(pixels.astype(np.float32)[:, :, :8])},
        "proprio is no array": {"images": good["images"]},
        "dtype is 'object'": good | {"proprio": good["proprio"] | {"dtype": "object"}},
        "44 bytes, and data has 4": good | {"proprio": good["proprio"] | {"data": b"1234"}},
        "must be a list of numbers": good | {"proprio": good["proprio"] | {"shape": [-1]}},
        "shape must be a list": good | {"proprio": good["proprio"] | {"shape": [0, 1 << 62], "data": b""}},
        "the message has 'code'": good | {"code": "import os"},
        "images are of there; this policy takes": good | {"images": {"there": good["images"]}},
    }
    wrong["the type is float32"] = good | {"images": as_message((pixels / 255).astype(np.float32))}
    with serving(policy)() as connection:
        connection.recv()
        for words, told in wrong.items():
            assert words in ask(connection, **told)["error"]
        for nonsense in (b"\xc1", b"\x93\x01\x02", "text", msgpack.packb([1])):
            connection.send(nonsense)
            assert "the message is" in msgpack.unpackb(connection.recv())["error"]
        answer = ask(connection, **good, reset=True)  # and it is still there
        policy.reset()
        assert np.array_equal(as_array(answer["action"], ""), policy.act(pixels, proprio))
        by_name = {name: as_message(image) for name, image in zip(policy.spec.cameras, pixels, strict=True)}
        assert ask(connection, images=by_name, proprio=good["proprio"])["action"] == answer["action"]


def test_a_card_that_no_message_can_carry_is_refused(policy):
    with pytest.raises(CaliperError, match="the policy's card cannot be sent"):
        answers(Policy(dict(policy.card) | {"seed": 1 << 80}, policy.network))


def test_neither_pages_nor_floods_get_in(policy, serving):
    connect = serving(policy)
    with pytest.raises(InvalidStatus), connect(origin="https://example.org"):
        pass
    with connect() as connection:
        connection.recv()
        connection.send(bytes(settings(policy.spec)["max_size"] + 1))
        with pytest.raises(ConnectionClosed):
            connection.recv()


def test_the_command_is_read(finished, capsys):
    for words, said in (
        (["serve"], "name one policy's folder"),
        (["serve", str(finished.folder), "--port", "many"], "--port many must be a number"),
        (["serve", str(finished.folder / "videos")], "is not a policy's folder"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_serves_a_port_of_this_machine(finished, tmp_path):
    """In other processes, for these tests open no port."""
    out = caliper.load_run(finished.folder).export(tmp_path / "out")
    command = [sys.executable, "-m", "caliper", "serve", str(out), "--port", "18765"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = [server.stdout.readline() for _ in range(2)]
            assert "99th percentile" in said[0] and said[1].startswith("ready at ws://127.0.0.1:18765")
            done = subprocess.run(
                [sys.executable, "-c", "#" + CLIENT.replace("8765", "18765")],
                capture_output=True,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            assert done.stdout == "not solved\n", done.stderr
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
