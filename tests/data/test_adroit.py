"""Adroit's files of plain arrays, against hand values; what is no such file is refused in a sentence."""

import numpy as np
import pytest

from caliper.data.formats.adroit import TrainedPolicy, read_adroit
from caliper.errors import CaliperError

DOOR = "AdroitHandDoor-v1"


def policy(width=3, out=2, **other):
    """In: (x - 1) / 2. One hidden unit that passes on its first entry, twice; out: 2 h + 0.25 and 0.5."""
    one = np.ones((1, 1))
    first = np.zeros((1, width))
    first[0, 0] = 1
    arrays = {"in_shift": np.ones(width), "in_scale": np.full(width, 2.0), "w0": first, "b0": np.zeros(1)}
    arrays |= {
        "w1": one,
        "b1": np.zeros(1),
        "w2": np.array([[2.0]] + [[0.0]] * (out - 1)),
        "b2": np.zeros(out),
    }
    arrays |= {"out_shift": np.array([0.25, 0.5] + [0.0] * (out - 2)), "out_scale": np.ones(out)}
    return arrays | {"log_std": np.full(out, np.log(0.1))} | other


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def test_a_policy_acts(tmp_path):
    found = read_adroit(save(tmp_path / "p.npz", policy()), DOOR, 3, 2)
    assert isinstance(found, TrainedPolicy)
    obs = np.array([[1.0, 9, 9], [1.4, 9, 9], [50.0, 9, 9]])
    acted = found.act(obs, np.array([[0.0, 0], [0, 1], [0, -1]]))
    # tanh(tanh(0.2)) = 0.19485; twice that and 0.25; the third is beyond 1 and is clipped
    np.testing.assert_allclose(acted, [[0.25, 0.5], [0.6397, 0.6], [1.0, 0.4]], atol=1e-4)


def demonstrations(*hinges, width=29):
    obs = [np.zeros((len(h), width)) for h in hinges]
    for rows, h in zip(obs, hinges, strict=True):
        rows[:, 28] = h
    whole = np.concatenate(obs)
    return {
        "lengths": np.array([len(h) for h in hinges]),
        "observations": whole,
        "actions": np.full((len(whole), 2), 1.25),
    }


def test_the_doors_demonstrations(tmp_path):
    """A step counts as success if it leads to an open door; the last action leads nowhere."""
    path = save(tmp_path / "d.npz", demonstrations([0, 1.3, 1.35, 1.2], [0, 1]))
    first, second = read_adroit(path, DOOR, 29, 2)
    assert first.rewards.tolist() == [0, 1, 0] and first.terminals.tolist() == [False, True, False]
    assert second.rewards.tolist() == [0] and len(second.obs) == 2
    assert (first.actions == 1).all() and len(first.obs) == 4


@pytest.mark.parametrize(
    "arrays, env_id, sizes, message",
    [
        (
            policy(),
            DOOR,
            (39, 28),
            "has observations and actions of 3 and 2 numbers, AdroitHandDoor-v1 of 39 and 28",
        ),
        (policy(b1=np.zeros(4)), DOOR, (3, 2), "is damaged: b1 don't fit"),
        (policy(w0=np.zeros(3)), DOOR, (3, 2), "is damaged"),
        (policy(log_std=np.array([0, np.nan])), DOOR, (3, 2), "log_std holds a value that is not finite"),
        ({"w0": np.zeros(3)}, DOOR, (3, 2), "holds neither demonstrations"),
        ({"w0": np.array([{}], object)}, DOOR, (3, 2), "is no .npz file of plain arrays"),
        (demonstrations([0, 1]), "AdroitHandPen-v1", (29, 2), "only the door's can be told"),
        (demonstrations([0, 1]) | {"lengths": np.array([3])}, DOOR, (29, 2), "lengths don't add up"),
        (demonstrations([0, 1, 1, 1, 1]) | {"lengths": [2.5, 2.5]}, DOOR, (29, 2), "lengths don't add up"),
    ],
)
def test_other_files_are_refused(arrays, env_id, sizes, message, tmp_path):
    with pytest.raises(CaliperError, match=message):
        read_adroit(save(tmp_path / "x.npz", arrays), env_id, *sizes)


def test_what_is_no_npz_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    for name, message in (("x.npz", "is no .npz file"), ("y.npz", "does not exist")):
        with pytest.raises(CaliperError, match=message):
            read_adroit(tmp_path / name, DOOR, 3, 2)
