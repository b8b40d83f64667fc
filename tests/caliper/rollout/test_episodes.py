import pytest
import torch

from caliper.rollout.episodes import ActionQueue


def test_a_plan_of_one_action_is_the_policy():
    queue = ActionQueue(2, 1, 3, "cpu")
    for _ in range(3):
        decided = torch.randn(2, 3)
        assert torch.equal(queue.next(decided), decided)


def test_a_chunk_is_executed_to_its_end_unless_its_episode_ends():
    queue, twin = ActionQueue(2, 3, 1, "cpu"), ActionQueue(2, 3, 1, "cpu")
    taken = []
    for t in range(5):
        decided = torch.tensor([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]]) + 100 * t
        taken.append(queue.next(decided)[:, 0].tolist())
        if t == 1:
            queue.drop(torch.tensor([False, True]))
        twin.load_state_dict(queue.state_dict())
    # env 0 decides at 0 and 3, env 1 anew after its episode ended at 1
    assert taken == [[10, 20], [11, 21], [12, 220], [310, 221], [311, 222]]
    decided = torch.full((2, 3), 7.0)
    assert torch.equal(queue.next(decided), twin.next(decided))
    with pytest.raises(ValueError, match="queue of shape"):
        ActionQueue(3, 3, 1, "cpu").load_state_dict(queue.state_dict())
