"""The memory that MuJoCo Warp's envs take is what was said before."""

import mujoco_warp as mjw
import pytest
import warp as wp
from warp._src import context

from caliper.envs.engines.memory import env_bytes
from caliper.envs.sim import task_scene


@pytest.fixture
def counted(monkeypatch):
    """Bytes that Warp has now on the CPU, and the most that it had since they were asked for."""
    live, most = {}, [0]
    allocate, deallocate = (getattr(context.CpuDefaultAllocator, name) for name in ("allocate", "deallocate"))

    def allocate_and_count(self, size):
        pointer = allocate(self, size)
        live[pointer] = size
        most[0] = max(most[0], sum(live.values()))
        return pointer

    def deallocate_and_count(self, pointer, size):
        live.pop(pointer, None)
        deallocate(self, pointer, size)

    monkeypatch.setattr(context.CpuDefaultAllocator, "allocate", allocate_and_count)
    monkeypatch.setattr(context.CpuDefaultAllocator, "deallocate", deallocate_and_count)

    def count():
        now, before = sum(live.values()), most[0]
        most[0] = now
        return now, before

    return count


@pytest.mark.parametrize(
    ("task", "convex"), [("lift", 8), pytest.param("pick_place_can", 16, marks=pytest.mark.slow)]
)
def test_the_memory_of_a_env_is_foretold(counted, task, convex):
    model, num_envs, room = task_scene(task).model, 64, {"nconmax": 48, "njmax": 200, "nccdmax": convex}
    held, besides = env_bytes(model, 48, 200, convex)
    with wp.ScopedDevice("cpu"):
        put = mjw.put_model(model)
        counted()
        empty = counted()[0]
        data = mjw.make_data(model, nworld=num_envs, **room)
        made = counted()[0] - empty
        mjw.step1(put, data)
        mjw.step2(put, data)
        now, most = counted()
    assert made == pytest.approx(num_envs * held, rel=0.02)
    assert most - now == pytest.approx(num_envs * besides, rel=0.02)
