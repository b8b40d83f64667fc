import pytest
import torch

from caliper.rollout.episodes import Plan


def test_a_plan_of_one_action_is_the_policy():
    plan = Plan(2, 1, 3, "cpu")
    for _ in range(3):
        decided = torch.randn(2, 3)
        assert torch.equal(plan.next(decided), decided)


def test_a_chunk_is_executed_to_its_end_unless_its_episode_ends():
    plan, twin = Plan(2, 3, 1, "cpu"), Plan(2, 3, 1, "cpu")
    taken = []
    for t in range(5):
        decided = torch.tensor([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]]) + 100 * t
        taken.append(plan.next(decided)[:, 0].tolist())
        if t == 1:
            plan.drop(torch.tensor([False, True]))
        twin.load_state_dict(plan.state_dict())
    # world 0 decides at 0 and 3, world 1 anew after its episode ended at 1
    assert taken == [[10, 20], [11, 21], [12, 220], [310, 221], [311, 222]]
    decided = torch.full((2, 3), 7.0)
    assert torch.equal(plan.next(decided), twin.next(decided))
    with pytest.raises(ValueError, match="plan of shape"):
        Plan(3, 3, 1, "cpu").load_state_dict(plan.state_dict())
