"""Encoders on several cameras, sizes, kinds of images and frames: by hand, and every one of them."""

import pytest
import torch

from caliper.encoders import ENCODERS, augment, build_encoder
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec

LENGTHS = {"conv_tiny": (16, 8)}  # of the images' and the proprioception's features
NAMES = [name for name in ENCODERS if name not in ("state", "pretrained")]  # no pixels; one camera each
ALL = ObsSpec(("front", "wrist"), 64, 7, depth=True, instances=3, stack=2)
MIXED = ObsSpec(("front", "wrist", "side"), ((64, 80), (48, 48), (64, 80)), 7, depth=True)


def random_obs(spec, b=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    tensors = {"proprio": torch.randn(b, spec.stack * spec.proprio, generator=g)}
    for name, plane in spec.planes.items():
        v, c, h, w = plane.shape
        shape = (b, v, spec.stack * c, h, w)
        if plane.kind == "depth":
            tensors[name] = 3 * torch.rand(shape, generator=g).half()
        else:
            top = 256 if plane.kind == "pixels" else spec.instances + 1
            tensors[name] = torch.randint(0, top, shape, generator=g, dtype=torch.uint8)
    return Obs.of(tensors)


def convolutions(encoder):
    """The first layer of each body."""
    bodies = [eye.body for eye in encoder.eyes] if hasattr(encoder, "eyes") else [encoder.body]
    return [next(m for m in body.modules() if isinstance(m, torch.nn.Conv2d)) for body in bodies]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("spec", "cameras", "inputs"),
    [
        (ALL, "stacked", [2 * 2 * (3 + 1 + 3)]),
        (ALL, "shared", [2 * (3 + 1 + 3)]),
        (MIXED, "separate", [3 + 1] * 3),
    ],
)
def test_every_channel_of_every_camera_is_used(name, spec, cameras, inputs):
    torch.manual_seed(0)
    encoder, obs = build_encoder({"name": name, "cameras": cameras}, spec), random_obs(spec)
    features = encoder(obs)
    assert features.shape == (2, encoder.dim) and torch.isfinite(features).all()
    eyes, (latent, proprio) = 1 if cameras == "stacked" else len(spec.cameras), LENGTHS.get(name, (50, 50))
    assert encoder.dim == eyes * latent + proprio
    features.square().sum().backward()
    gradients = [layer.weight.grad for layer in convolutions(encoder)]
    assert [g.shape[1] for g in gradients] == inputs
    assert all((g.abs().amax((0, 2, 3)) > 0).all() for g in gradients)
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_each_camera_has_its_own_part_of_the_features():
    """A change of one camera's image changes its features and no other's."""
    spec = ObsSpec(("front", "wrist"), 16, 7)
    obs = random_obs(spec)
    other = Obs(obs.pixels.clone(), obs.proprio)
    other.pixels[:, 1] = 255 - other.pixels[:, 1]
    for cameras in ("shared", "separate"):
        torch.manual_seed(0)
        encoder = build_encoder({"name": "conv_tiny", "cameras": cameras}, spec)
        same = encoder(obs) == encoder(other)
        assert same[:, :16].all() and same[:, 32:].all() and not same[:, 16:32].any()
    # One body sees both: the same image at the other camera gives the same features.
    shared = build_encoder({"name": "conv_tiny", "cameras": "shared"}, spec)
    swapped = shared(Obs(obs.pixels.flip(1), obs.proprio))
    torch.testing.assert_close(swapped[:, :16], shared(obs)[:, 16:32])


def test_depth_and_instances_as_numbers():
    """0 m, 1 m and 3 m are -0.5, 0 and 0.25; an instance is 0.5 in its channel and -0.5 in the others."""
    spec = ObsSpec(("front",), 9, 0, depth=True, instances=2)
    encoder = build_encoder({"name": "conv", "latent": None}, spec)
    seen = {}
    encoder.body = torch.nn.Identity()
    encoder.pool = torch.nn.Flatten()
    seen["pixels"] = torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8)
    seen["depth"] = torch.tensor([0.0, 1.0, 3.0, 3.0]).half().view(1, 1, 1, 2, 2)
    seen["segmentation"] = torch.tensor([0, 1, 2, 2], dtype=torch.uint8).view(1, 1, 1, 2, 2)
    obs = Obs.of({**seen, "proprio": torch.zeros(1, 0)})
    expected = [[-0.5] * 4] * 3 + [[-0.5, 0.0, 0.25, 0.25], [-0.5, 0.5, -0.5, -0.5], [-0.5, -0.5, 0.5, 0.5]]
    for given in (obs, augment(obs, 0, torch.Generator())):
        torch.testing.assert_close(encoder(given).view(6, 4), torch.tensor(expected))


def test_all_images_of_a_sample_are_shifted_together():
    spec = ObsSpec(("a", "b"), ((8, 10), (6, 6)), 1, depth=True, instances=4, stack=2)
    obs = random_obs(spec, 3)
    offsets = torch.tensor([[1, -2], [0, 0], [-2, 2]])
    shifted = augment(obs, 2, torch.Generator(), offsets)
    for name in ("segmentation", "segmentation_6x6", "depth", "depth_6x6"):
        old, new = obs.images[name], shifted.images[name]
        if name.startswith("depth"):
            old = old.float() / (1 + old.float()) - 0.5
        assert torch.allclose(new[0, :, :, :-1, 2:], old[0, :, :, 1:, :-2])
        assert torch.allclose(new[1], old[1])
        assert torch.allclose(new[2, :, :, 2:, :-2], old[2, :, :, :-2, 2:])
    assert torch.equal(shifted.proprio, obs.proprio)


def test_what_an_encoder_cannot_take_is_one_sentence():
    with pytest.raises(CaliperError, match=r"cameras=stacked .*64x80 and 48x48 .*encoder\.cameras=separate"):
        build_encoder({"name": "conv"}, MIXED)
    with pytest.raises(CaliperError, match=r"cameras=shared .*one size"):
        build_encoder({"name": "impala", "cameras": "shared"}, MIXED)
    with pytest.raises(CaliperError, match=r"'each'.*stacked, shared, separate"):
        build_encoder({"name": "conv", "cameras": "each"}, MIXED)
    small = ObsSpec(("a", "b"), ((64, 64), (8, 90)), 7)
    with pytest.raises(CaliperError, match=r"8x90 pixels are too small .*9x9"):
        build_encoder({"name": "conv", "cameras": "separate"}, small)


def test_a_stack_of_the_state_is_passed_on():
    encoder = build_encoder({"name": "state"}, ObsSpec((), 1, 5, stack=3))
    assert encoder.dim == 15
