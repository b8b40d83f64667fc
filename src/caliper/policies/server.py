"""`caliper serve`: a policy for programs that ask it over a websocket, a message of msgpack for each action.

The server begins with what policy.json says. Then, once a control step,

    client  {"images": array, or {name: array}, "proprio": array, "reset": true where an episode begins}
    server  {"action": array, "seconds": what the answer took here}, or {"error": a sentence}

where an array is {"dtype": "uint8", "shape": [2, 3, 84, 84], "data": bytes in C order}, and names are those
that `Policy.act` takes. Each connection is an episode of its own. There is no password and no encryption:
whoever reaches the port can ask, and no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from caliper.errors import CaliperError
from caliper.policies.policy import Policy, noise
from caliper.types import ObsSpec

try:
    import msgpack
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve as listen
except ImportError as error:
    raise CaliperError(
        f"a policy server needs websockets and msgpack ({error}); install: pip install 'caliper-rl[serve]'"
    ) from error

if TYPE_CHECKING:
    from websockets.sync.server import ServerConnection

HOST, PORT = "127.0.0.1", 8765
TYPES = ("uint8", "float16", "float32", "float64")
LOOKS = 100  # of noise, whose latency is told at the start


def serve(policy: Policy, host: str = HOST, port: int = PORT) -> None:
    """Answers until Ctrl-C.

    Args:
        policy: to be asked.
        host: the address to listen at; the default can be reached from this machine only.
        port: of it.

    Raises:
        CaliperError: the address can't be taken.
    """
    taken = latencies(policy, LOOKS)
    print(
        f"one action at a time takes {1e3 * float(np.median(taken)):.2f} ms (99th percentile "
        f"{1e3 * float(np.percentile(taken, 99)):.2f} ms) on {policy.device}"
    )
    try:
        server = listen(answers(policy), host, port, **settings(policy.spec))
    except OSError as error:
        raise CaliperError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; try --port"
        ) from error
    with server:
        if host not in (HOST, "localhost", "::1"):
            print(f"anybody who reaches {host}:{port} can ask this policy: there is no password")
        print(f"ready at ws://{host}:{port}; stop with Ctrl-C", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def settings(spec: ObsSpec) -> dict[str, Any]:
    """How a server of websockets listens: to messages of a few observations, and to no web page."""
    return {
        "max_size": largest(spec),
        "compression": None,  # costs more time than the bytes
        "origins": [None],  # a page in a browser names where it is from; programs don't
    }


def largest(spec: ObsSpec) -> int:
    """Bytes that a message may have: twice an observation with depth in float64, and some for the names."""
    sizes = [(prod(plane.shape), 8 if plane.kind == "depth" else 1) for plane in spec.planes.values()]
    return 2 * (sum(count * width for count, width in sizes) + 8 * spec.proprio) + (64 << 10)


def answers(policy: Policy) -> Callable[[ServerConnection], None]:
    """What is done with a connection.

    Raises:
        CaliperError: the policy's card has something that no message can carry.
    """
    one_at_a_time = threading.Lock()
    try:
        card = msgpack.packb(dict(policy.card))
    except Exception as error:  # msgpack has no larger integers than 64 bits, for one
        raise CaliperError(f"the policy's card cannot be sent ({error}); export it again") from error

    def handle(connection: ServerConnection) -> None:
        # What is left of a chunk is the connection's, and so is what it has seen.
        own = Policy(policy.card, policy.network, policy.device)
        with suppress(ConnectionClosed):
            connection.send(card)
            for message in connection:
                try:
                    with one_at_a_time:
                        answer = _answer(own, message)
                except CaliperError as error:
                    answer = {"error": str(error)}
                connection.send(msgpack.packb(answer))

    return handle


def _answer(policy: Policy, message: str | bytes) -> dict[str, Any]:
    start = time.perf_counter()
    told = _unpacked(message, largest(policy.spec))
    if told.get("reset"):
        policy.reset()
    images = told.get("images")
    if isinstance(images, dict) and "data" not in images:
        images = {name: as_array(array, f"the image of {name}") for name, array in images.items()}
    elif images is not None:
        images = as_array(images, "images")
    action = policy.act(images, as_array(told.get("proprio"), "proprio"))
    return {"action": as_message(action), "seconds": time.perf_counter() - start}


def _unpacked(message: str | bytes, most: int) -> dict[str, Any]:
    if isinstance(message, str):
        raise CaliperError("the message is text; send a map of msgpack, as bytes")
    try:
        told = msgpack.unpackb(
            message, max_bin_len=most, max_str_len=1000, max_array_len=100, max_map_len=100, max_ext_len=0
        )
    except Exception as error:  # msgpack passes on whatever the bytes lead it to
        first = (str(error) or repr(error)).splitlines()[0]
        raise CaliperError(f"the message is not a map of msgpack ({first})") from error
    if not isinstance(told, dict) or not all(isinstance(key, str) for key in told):
        raise CaliperError("the message is not a map of msgpack with images, proprio and reset")
    if foreign := [key for key in told if key not in ("images", "proprio", "reset")]:
        raise CaliperError(f"the message has '{foreign[0]}'; it takes images, proprio and reset")
    return told


def as_array(told: Any, name: str) -> NDArray[Any]:
    """An array of a message.

    Raises:
        CaliperError: it is none, or its bytes are not as many as type and shape say.
    """
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data"}:
        raise CaliperError(f"{name} is no array: it must be a map of dtype, shape and data")
    kind, shape, data = told["dtype"], told["shape"], told["data"]
    if kind not in TYPES:
        raise CaliperError(f"{name}: dtype is {kind!r:.40}; choose one of {', '.join(TYPES)}")
    # Limited each: of no entries, as (0, 1 << 62), an array may still be too large for NumPy.
    right = isinstance(shape, list) and len(shape) <= 5 and all(type(x) is int for x in shape)
    right = right and all(0 <= x < 1 << 31 for x in shape)
    if not right or not isinstance(data, bytes):
        raise CaliperError(f"{name}: shape must be a list of numbers and data bytes")
    if (want := prod(shape) * np.dtype(kind).itemsize) != len(data):
        raise CaliperError(
            f"{name}: {kind} of shape {tuple(shape)} are {want} bytes, and data has {len(data)}"
        )
    return np.frombuffer(data, kind).reshape(shape).copy()


def as_message(array: NDArray[Any]) -> dict[str, Any]:
    """An array as a message carries it."""
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": array.tobytes()}


def latencies(policy: Policy, count: int) -> list[float]:
    """Seconds of each of `count` looks at noise, one at a time, after a few that are not counted."""
    taken = []
    *planes, proprio = (tensor[0].numpy() for tensor in noise(policy.spec.single, 1))
    images = dict(zip(policy.spec.planes, planes, strict=True)) if policy.views else None
    for _ in range(count + 10):
        policy.reset()
        start = time.perf_counter()
        policy.act(images, proprio)
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        taken.append(time.perf_counter() - start)
    policy.reset()
    return taken[10:]
