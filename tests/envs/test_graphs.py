"""Recorded work gives what the same work gives when it is queued kernel by kernel."""

import gc
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import warp as wp

from caliper.envs import graphs
from caliper.envs.graphs import TorchGraph, WarpGraph, uncollected, warp_device
from caliper.envs.render.trace import RayTracer
from caliper.envs.sim import SimEnv
from caliper.envs.tasks import TASKS
from tests.caliper.training.updates import Tape
from tests.envs.conftest import make_envs, random_actions, same_obs


@wp.kernel
def _add_while_small(x: wp.array[float], y: wp.array[float]):
    i = wp.tid()
    if x[i] < 2.5:
        x[i] = x[i] + y[i]  # type: ignore[index]  # Warp's own typing takes kernels for plain Python


def test_every_call_does_the_work_once():
    x, y = wp.zeros(3, dtype=float, device="cpu"), wp.array([1.0, 2.0, 0.5], dtype=float, device="cpu")
    graph, seen = WarpGraph(wp.get_device("cpu")), []
    for _ in range(4):
        graph(lambda: wp.launch(_add_while_small, 3, inputs=[x, y], device="cpu"))
        seen.append(x.numpy().tolist())
    assert seen == [[1, 2, 0.5], [2, 4, 1], [3, 4, 1.5], [3, 4, 2]]  # data decides, also in a replay


def test_a_replayed_control_step_equals_a_launched_one():
    env = make_envs("lift", 2, sim="warp", size=16)
    actions = 2 * torch.rand(4, 2, env.action_dim, generator=torch.Generator().manual_seed(1)) - 1
    start = env.state_dict()
    replayed = [env.step(a) for a in actions]
    env.load_state_dict(start)
    engine = env.engine
    for action, step in zip(actions, replayed, strict=True):
        env._action[:, :6], env._action[:, 6] = action[:, :-1], action[:, -1]
        with wp.ScopedDevice("cpu"):
            engine._run(env._substeps)
        assert same_obs(env.observe(), step.final_obs)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_results_are_not_written_over(device):
    count = torch.zeros(2, device=device)

    def work():
        count.add_(1)
        return count * 10, count.clone()

    graph = TorchGraph(torch.device(device))
    results = [graph(work) for _ in range(3)]
    assert [(a.tolist(), b.tolist()) for a, b in results] == [([10 * k] * 2, [k] * 2) for k in (1, 2, 3)]


def test_a_device_without_a_number_is_the_current_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(wp, "device_from_torch", str)
    assert [warp_device(torch.device(d)) for d in ("cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:1", "cpu"]


def test_work_is_done_and_recorded_where_it_belongs(monkeypatch):
    """Beside a GPU, whose Warp launches there unless told otherwise, for MuJoCo Warp names no device."""
    inside = []

    @contextmanager
    def told(device):
        inside.append(device.alias)
        yield
        inside.pop()

    monkeypatch.setattr(graphs, "scope", told)
    x, seen = wp.zeros(1, dtype=float, device="cpu"), []

    def work():
        seen.append(list(inside))
        wp.launch(_add_while_small, 1, inputs=[x, x], device="cpu")

    graph = WarpGraph(wp.get_device("cpu"))
    for _ in range(3):
        graph(work)
    assert seen == [["cpu"], ["cpu"]]


@pytest.mark.parametrize(
    ("kind", "device"),
    [
        (WarpGraph, "cpu"),
        pytest.param(WarpGraph, "cuda", marks=pytest.mark.gpu),
        pytest.param(TorchGraph, "cuda", marks=pytest.mark.gpu),
    ],
)
def test_no_garbage_is_collected_into_a_recording(kind, device):
    """An earlier environment's graphs, for one, which hang together in a ring."""
    collects = []

    def work():
        collects.append(gc.isenabled())
        return ()

    graph = kind(warp_device(torch.device(device)) if kind is WarpGraph else torch.device(device))
    for _ in range(3):
        graph(work)
    assert collects == [True, False] and gc.isenabled()


class Recorder:
    """CUDA's part of a `TorchGraph`, played on the CPU: what is entered, left and replayed, in order."""

    def __init__(self, monkeypatch):
        self.seen = []
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.graph)
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, **how: self.told(f"torch records, {how}"))
        monkeypatch.setattr(graphs, "warp_device", str)
        monkeypatch.setattr(graphs, "scope", lambda device: self.told(f"Warp on {device}"))
        monkeypatch.setattr(graphs, "stream", lambda device: f"stream of {device}")
        monkeypatch.setattr(wp, "ScopedCapture", self.warp_records)

    @contextmanager
    def told(self, what):
        self.seen.append(f"enter {what}")
        try:
            yield self
        finally:
            self.seen.append(f"leave {what}")

    def graph(self):
        return SimpleNamespace(replay=lambda: self.seen.append("replay"))

    def warp_records(self, stream, external):
        assert external  # the recording is torch's
        capture = self.told(f"Warp records on the {stream}")
        capture.graph = "kernels"
        return capture


def test_what_torch_records_on_cuda_in_which_order(monkeypatch):
    recorder = Recorder(monkeypatch)
    graph, out = TorchGraph(torch.device("cuda")), torch.zeros(1)

    def work():
        recorder.seen.append(f"work, garbage collected: {gc.isenabled()}")
        return (out,)

    graph(work)
    assert recorder.seen == ["enter Warp on cuda", "work, garbage collected: True", "leave Warp on cuda"]
    recorder.seen.clear()
    (result,) = graph(work)
    how = "{'capture_error_mode': 'thread_local'}"
    assert recorder.seen == [
        f"enter torch records, {how}",
        "enter Warp on cuda",
        "enter Warp records on the stream of cuda",
        "work, garbage collected: False",
        "leave Warp records on the stream of cuda",
        "leave Warp on cuda",
        f"leave torch records, {how}",
        "replay",
    ]
    out.fill_(7)  # as a replay would, into the recorded memory
    assert result == 0 and graph(work)[0] == 7
    assert recorder.seen[8:] == ["replay"] and gc.isenabled()


def test_a_recording_that_failed_is_made_again(monkeypatch):
    """And every call says why it fails, instead of replaying what never was."""
    recorder = Recorder(monkeypatch)
    graph, broken = TorchGraph(torch.device("cuda")), True

    def work():
        if broken:
            raise RuntimeError("operation not permitted when stream is capturing")
        return (torch.ones(1),)

    for _ in range(2):  # not even loaded
        with pytest.raises(RuntimeError, match="not permitted"):
            graph(work)
    broken = False
    graph(work)
    broken = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not permitted"):
            graph(work)
    assert "replay" not in recorder.seen and gc.isenabled()
    broken = False
    assert graph(work)[0] == 1 and recorder.seen[-1] == "replay"


def test_the_collector_is_left_as_it_was():
    with pytest.raises(RuntimeError, match="no"), uncollected():
        raise RuntimeError("no")
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("sim", "device"),
    [("batch", "cpu"), ("warp", "cpu"), pytest.param("warp", "cuda", marks=pytest.mark.gpu)],
)
def test_dropped_envs_are_gone_at_once(sim, device):
    """With memory and recordings, which would otherwise wait for the garbage collector."""
    env = SimEnv("lift", 2, sim=sim, device=device, size=16, threads=2)
    for action in random_actions(env, 3).to(device):
        env.step(action)
    parts = [weakref.ref(part) for part in (env, env.engine, *env._renderers.values())]
    gc.disable()
    try:
        del env
        assert [part() for part in parts] == [None, None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("task", TASKS)
def test_what_torch_records_could_be_recorded(task):
    """Nothing brings a value to the host or from there: outcome, reset, and the images' poses and bytes."""
    env = make_envs(task, 2, size=16)
    (chunk,) = RayTracer(env.engine, env.spec.cameras, 16)._chunks
    out, wanted = env.observe().pixels, torch.tensor([True, False])
    with Tape():
        env._judge(env._outcome)
        env._begin(env._begin_where_done)
        chunk.load(env.engine.pose_arrays(), wanted)
        chunk.unpack((out,), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("cameras", [(), ("agentview",)])
def test_a_step_does_not_wait_for_the_device(cameras):
    env = make_envs("lift", 4, sim="warp", device="cuda", horizon=6, cameras=cameras)
    action = torch.zeros(4, env.action_dim, device="cuda")
    for _ in range(4):
        env.step(action)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):  # over the end of an episode
            env.step(action)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    env.check()
    # That mode knows torch's waits alone. Behind a second's sleep, a step is back before the device is there.
    torch.cuda._sleep(2_000_000_000)
    asleep = torch.cuda.Event()
    asleep.record()
    env.step(action)
    assert not asleep.query()
    env.check()
    assert asleep.query()
