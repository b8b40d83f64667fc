"""How long a policy takes for one action on a CPU: in each format, and asked over the policy server.

The network is the one that preset=pick_place_tray_demo trains, and the same with larger encoders, with first
weights: how long it takes does not depend on them. One thread; the formats take turns, so that what else the
machine does meets all of them. The server runs in a process of its own, at an address of this machine.

    python benchmarks/policy.py            # full, writes benchmarks/results/policy.json
    python benchmarks/policy.py --quick    # under 50 s, writes nothing
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import numpy as np
import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script
from websockets.sync.client import connect

import caliper
from caliper.config.build import make_agent
from caliper.config.compose import compose, to_yaml
from caliper.policies.export import export
from caliper.policies.opening import FORMATS
from caliper.policies.policy import noise
from caliper.policies.server import as_array, as_message, latencies
from caliper.training.checkpoint import save_checkpoint

ENCODERS = {"conv": [], "resnet18": ["encoder=resnet18"], "impala": ["encoder=impala"]}
ROUNDS, LOOKS, PORT = 8, 50, 18766


def numbers(seconds):
    """Median and 99th percentile in milliseconds."""
    return {
        "median_ms": round(1e3 * float(np.median(seconds)), 3),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 3),
        "actions": len(seconds),
    }


def exported(words, folder):
    """A policy's folder, with first weights."""
    config = compose(["preset=pick_place_tray_demo", "device=cpu", *words])
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    save_checkpoint(run, make_agent(config, "cpu").state_dict(), {})
    with contextlib.redirect_stdout(io.StringIO()) as said:
        out = export(run, config, folder / "policy")
    print(said.getvalue(), end="", flush=True)
    return out


def round_trips(out, looks):
    """Seconds from sending an observation to having the action, and those of them spent in the server."""
    command = [sys.executable, "-m", "caliper", "serve", str(out), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            while "ready" not in (line := server.stdout.readline()):
                if not line:
                    raise RuntimeError("the server has ended")
            policy = caliper.load_policy(out)
            pixels, proprio = (x[0].numpy() for x in noise(policy.spec, 1))
            whole, inside = [], []
            with connect(f"ws://127.0.0.1:{PORT}", compression=None) as connection:
                connection.recv()
                for _ in range(looks + 10):
                    start = time.perf_counter()
                    told = {"images": as_message(pixels), "proprio": as_message(proprio), "reset": True}
                    connection.send(msgpack.packb(told))
                    answer = msgpack.unpackb(connection.recv())
                    whole.append(time.perf_counter() - start)
                    inside.append(answer["seconds"])
            action = as_array(answer["action"], "the action")
            assert np.allclose(action, policy.act(pixels, proprio), atol=1e-6)
            return whole[10:], inside[10:]
        finally:
            server.terminate()


def main(quick):
    """Measures and reports."""
    torch.set_num_threads(1)
    rounds = 2 if quick else ROUNDS
    results, apart = {}, {}
    load = [os.getloadavg()[0]]
    for name, words in ENCODERS.items():
        if quick and name != "conv":
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = exported(words, Path(folder))
            card = caliper.load_policy(out).card
            apart[name] = {file: form["difference"] for file, form in card["formats"].items()}
            there = [form for form, file in FORMATS.items() if file in card["formats"]]
            policies = {form: caliper.load_policy(out, format=form, trusted=True) for form in there}
            taken = {form: [] for form in there}
            for _ in range(rounds):
                for form, policy in policies.items():
                    taken[form] += latencies(policy, LOOKS)
            results[name] = {form: numbers(seconds) for form, seconds in taken.items()}
            if name == "conv":
                whole, inside = round_trips(out, rounds * LOOKS)
                results[name]["server"] = numbers(whole) | {"of_it_inside_ms": numbers(inside)["median_ms"]}
        load.append(os.getloadavg()[0])
    version = re.match(r"\S+", torch.__version__)[0]
    ours, peer = results["conv"]["weights"]["median_ms"], results["conv"]["pt2"]["median_ms"]
    report(
        "policy",
        ours,
        peer,
        round(ours / peer, 2),
        "milliseconds per action, batch 1, one thread: Caliper's own network against torch.export's",
        ("torch", "numpy"),
        quick,
        torch=version,
        act=results,
        largest_difference=apart,
        images=card["observation"]["cameras"][0]["height"],
        cameras=len(card["observation"]["cameras"]),
        load_average=[round(x, 1) for x in load],
        nice=os.nice(0),
        note="other programs used the same two cores, see load_average; those with a larger nice gave way",
    )


if __name__ == "__main__":
    main(arguments(__doc__).quick)
