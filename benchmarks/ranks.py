"""Updates per second of two ranks over gloo against one process with both their batches, in turns.

Cal-QL on two 64x64 cameras, encoder `conv`, 10 sampled actions; one thread of torch's for each process. Per
round, in two processes:

    one        the first process makes updates of b transitions, the second waits
    together   each makes updates of b / 2, and gradients are averaged, as in `torchrun -m caliper train`
    apart      each makes updates of b / 2 and nothing is sent: what two ranks would do without communication

The share of communication is what `together` takes beyond `apart`; the share of waiting is the part of an
update in which a rank only waits for gradients; `bare_ms` is what sending the same bytes takes by itself.

The prediction for GPUs is arithmetic, not a measurement: see `predict`.

    python benchmarks/ranks.py            # writes benchmarks/results/ranks.json
    python benchmarks/ranks.py --quick    # under 50 s, writes nothing
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from _common import RESULTS, parser, report  # type: ignore[import-not-found]  # beside this script

from caliper.config.build import make_agent, obs_spec
from caliper.config.compose import compose
from caliper.training.together import GradientAverage, run_ranks
from caliper.types import Batch, Obs

ACTIONS = 4
# GB/s in one direction that a GPU has towards the others, and seconds from one to the next. From data sheets:
# NVLink 4 has 18 links of 25 GB/s; PCIe 5 x16 has 63 GB/s; the rest are the nominal rates of the networks.
LINKS = {
    "NVLink 4, within a node": (450.0, 3e-6),
    "PCIe 5 x16, within a node": (63.0, 5e-6),
    "InfiniBand NDR, 400 Gbit/s per GPU": (50.0, 5e-6),
    "Ethernet, 25 Gbit/s per GPU": (3.125, 30e-6),
    "Ethernet, 1 Gbit/s per GPU": (0.125, 50e-6),
}


class Timed(GradientAverage):
    """Notes how long it waits."""

    waited = 0.0

    def finish(self):
        start = time.perf_counter()
        super().finish()
        self.waited += time.perf_counter() - start


def batch(b, spec, seed):
    """Random transitions."""
    g = torch.Generator().manual_seed(seed)

    def obs():
        shape = (b, *spec.planes["pixels"].shape)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
        return Obs(pixels, torch.randn(b, spec.proprio, generator=g))

    action = 2 * torch.rand(b, ACTIONS, generator=g) - 1
    zeros = torch.zeros(b)
    return Batch(obs(), action, zeros, obs(), zeros, zeros)


def worker(path, b, rounds, updates):
    """One of the two processes; the first writes what was measured."""
    torch.set_num_threads(1)
    config = compose(["task=lift", "device=cpu", "threads=1"])
    spec = obs_spec(config)
    with run_ranks() as ranks:
        agents = {name: make_agent(config, "cpu") for name in ("one", "together", "apart")}
        average = Timed(agents["together"].optimizers.values(), ranks.count)
        batches = {"one": batch(b, spec, 0)}
        batches |= dict.fromkeys(("together", "apart"), batch(b // ranks.count, spec, ranks.place.rank))
        seconds, waits = {name: [] for name in agents}, []
        sent = 0
        for i in range(rounds + 1):  # the first one warms up
            for name in agents if i % 2 else reversed(agents):
                average.waited, before = 0.0, average.sent
                ranks.wait()
                start = time.perf_counter()
                if name != "one" or ranks.first:
                    for _ in range(updates):
                        agents[name].update(batches[name])
                ranks.wait()  # the slower of the two counts
                took = time.perf_counter() - start
                if i:
                    seconds[name].append(took / updates)
                if i and name == "together":
                    waits.append(average.waited / took)
                    sent = (average.sent - before) // updates
        numbers, bare = torch.zeros(sent // 4), []
        for _ in range(4 * rounds):
            start = time.perf_counter()
            dist.all_reduce(numbers)
            bare.append(1e3 * (time.perf_counter() - start))
        found = {"seconds": seconds, "waiting": waits, "bytes": sent, "bare_ms": statistics.median(bare)}
        found["buckets"] = sum(map(len, average._rows))
        if ranks.first:
            Path(path).write_text(json.dumps(found))


def predict(sent, buckets, gpu):
    """Updates per second and efficiency on GPUs, for what is sent and an update that was measured on one.

    Each GPU keeps the batch that was measured, so that n of them learn from n batches at once. A ring sends
    2 (n - 1) / n of the bytes over each link, in 2 (n - 1) steps for each bucket; nothing of it is hidden
    behind the backward pass. No other cost of several GPUs is counted: waiting for the slowest rank, slower
    clocks, NCCL's own kernels. So the numbers are what the links allow, not what a run will reach.
    """
    table = []
    for link, (gigabytes, latency) in LINKS.items():
        for n in (2, 4, 8):
            seconds = 2 * (n - 1) / n * sent / (gigabytes * 1e9) + buckets * 2 * (n - 1) * latency
            rows = {"link": link, "gpus": n, "communication_ms": 1e3 * seconds}
            for case, rate in gpu.items():
                rows[case] = {
                    "updates_per_second": 1 / (1 / rate + seconds),
                    "efficiency": 1 / (1 + rate * seconds),
                }
            table.append(rows)
    return table


def main():
    """Measures and reports."""
    shared = parser(__doc__.splitlines()[0])
    shared.add_argument("--worker", help="file for what the first of the two processes finds")
    shared.add_argument("--batch", type=int, default=256, help="of both ranks together")
    asked = shared.parse_args()
    rounds, updates = (2, 1) if asked.quick else (9, 2)
    if asked.worker:
        worker(asked.worker, asked.batch, rounds, updates)
        return
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "found.json"
        words = ["--worker", str(path), "--batch", str(asked.batch), *["--quick"] * asked.quick]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--local-addr"]
        subprocess.run([*launch, "127.0.0.1", __file__, *words], check=True)
        found = json.loads(path.read_text())
    seconds = found["seconds"]
    rates = {name: 1 / statistics.median(times) for name, times in seconds.items()}
    rounds_of = list(zip(seconds["one"], seconds["together"], seconds["apart"], strict=True))
    gpu = json.loads((RESULTS / "learner_gpu.json").read_text())
    measured = {case: row["eager"] for case, row in gpu["cases"].items() if case == "conv_float32"}
    report(
        "ranks",
        rates["together"],
        rates["one"],
        statistics.median(one / together for one, together, _ in rounds_of),
        "updates per second",
        ("torch",),
        asked.quick,
        meaning="two ranks over gloo (ours) against one process with the batch of both (peer)",
        batch=asked.batch,
        updates_per_second=rates,
        share_of_communication=statistics.median(1 - apart / both for _, both, apart in rounds_of),
        share_of_waiting=statistics.median(found["waiting"]),
        seconds=seconds,
        bytes_per_update=found["bytes"],
        buckets=found["buckets"],
        bare_ms=found["bare_ms"],
        load=os.getloadavg()[0],
        predicted={
            "assumes": " ".join(predict.__doc__.split()),
            "of": f"{gpu['device']}, learner=eager, batch {gpu['batch']} per GPU; measured by learner_gpu.py",
            "links_gb_per_second_and_seconds": LINKS,
            "table": predict(found["bytes"], found["buckets"], measured),
        },
    )


if __name__ == "__main__":
    main()
