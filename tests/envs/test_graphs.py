"""Recorded work gives what the same work gives when it is queued kernel by kernel."""

import pytest
import torch
import warp as wp

from caliper.envs.graphs import TorchGraph, WarpGraph
from tests.envs.conftest import same_obs, worlds


@wp.kernel
def _add_while_small(x: wp.array[float], y: wp.array[float]):
    i = wp.tid()
    if x[i] < 2.5:
        x[i] = x[i] + y[i]  # type: ignore[index]  # Warp's own typing takes kernels for plain Python


def test_every_call_does_the_work_once():
    x, y = wp.zeros(3, dtype=float, device="cpu"), wp.array([1.0, 2.0, 0.5], dtype=float, device="cpu")
    graph = WarpGraph(
        lambda: wp.launch(_add_while_small, 3, inputs=[x, y], device="cpu"), wp.get_device("cpu")
    )
    seen = []
    for _ in range(4):
        graph()
        seen.append(x.numpy().tolist())
    assert seen == [[1, 2, 0.5], [2, 4, 1], [3, 4, 1.5], [3, 4, 2]]  # data decides, also in a replay


def test_a_replayed_control_step_equals_a_launched_one():
    env = worlds("lift", 2, sim="warp", size=16)
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

    graph = TorchGraph(work, torch.device(device))
    results = [graph() for _ in range(3)]
    assert [(a.tolist(), b.tolist()) for a, b in results] == [([10 * k] * 2, [k] * 2) for k in (1, 2, 3)]


@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_device():
    env = worlds("lift", 4, sim="warp", device="cuda", horizon=6)
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
