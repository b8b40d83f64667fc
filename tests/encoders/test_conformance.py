"""What every encoder must do, by name."""

import inspect
from importlib.resources import files

import pytest
import torch
from omegaconf import OmegaConf

from caliper.encoders import ENCODERS, build_encoder
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec

PIXEL_ENCODERS = [name for name in ENCODERS if name != "state"]
# What a name alone does not say; fine-tuned, for only then is there a gradient to look at.
NEEDED = {"pretrained": {"weights": "random", "frozen": False, "size": 32}}
ONE_BY_ONE = ["pretrained"]  # sees the cameras one after the other, each brought to the same size
SMALLEST = {"conv": 9, "conv_tiny": 5, "d4pg": 47, "nature": 44, "impala": 9, "resnet18": 17}


def random_obs(spec, b=2):
    shape = (b, len(spec.cameras), 3, spec.size, spec.size)
    return Obs(torch.randint(0, 256, shape, dtype=torch.uint8), torch.randn(b, spec.proprio))


def first_convolution(encoder):
    return next(module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d))


@pytest.mark.parametrize("cameras", [("front",), ("front", "wrist")])
@pytest.mark.parametrize("name", ENCODERS)
def test_features_and_gradients(name, cameras):
    torch.manual_seed(0)
    spec = ObsSpec(cameras, 64, 7)
    encoder = build_encoder({"name": name, **NEEDED.get(name, {})}, spec)
    features = encoder(random_obs(spec))
    assert features.shape == (2, encoder.dim) and features.dtype == torch.float32
    assert torch.isfinite(features).all() and not torch.equal(features[0], features[1])
    if name == "state":
        return
    features.square().sum().backward()
    for parameter in encoder.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    gradient = first_convolution(encoder).weight.grad  # (c, 3 v, h, w)
    assert gradient.shape[1] == 3 * (1 if name in ONE_BY_ONE else len(cameras))
    assert (gradient.abs().amax((0, 2, 3)) > 0).all()  # every channel of every camera is used


@pytest.mark.parametrize("name", PIXEL_ENCODERS)
def test_flat_features_and_no_proprioception(name):
    spec = ObsSpec(("front",), 64, 7)
    encoder = build_encoder({"name": name, "latent": None, "proprio": None, **NEEDED.get(name, {})}, spec)
    obs = random_obs(spec)
    features = encoder(obs)
    assert features.shape == (2, encoder.dim)
    assert torch.equal(features, encoder(Obs(obs.pixels, obs.proprio + 1)))


@pytest.mark.parametrize("name", [name for name in PIXEL_ENCODERS if name not in ONE_BY_ONE])
def test_too_small_an_image_is_refused_with_the_smallest_that_works(name):
    smallest = SMALLEST[name]
    with pytest.raises(CaliperError, match=rf"{name}.*{smallest - 1}x.*too small.*{smallest}x{smallest}"):
        build_encoder({"name": name}, ObsSpec(("front",), smallest - 1, 7))
    spec = ObsSpec(("front",), smallest, 7)
    assert torch.isfinite(build_encoder({"name": name}, spec)(random_obs(spec))).all()


@pytest.mark.parametrize("name", ENCODERS)
def test_config_is_the_signature(name):
    """The YAML file of an encoder holds every option, at its default."""
    text = files("caliper.configs").joinpath("encoder", f"{name}.yaml").read_text()
    loaded = OmegaConf.to_container(OmegaConf.create(text))
    assert loaded.pop("name") == name
    signature = inspect.signature(ENCODERS[name]).parameters
    defaults = {key: p.default for key, p in signature.items() if key != "spec"}
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in loaded.items()} == defaults


def test_every_config_names_an_encoder():
    found = {path.name for path in files("caliper.configs").joinpath("encoder").iterdir()}
    names = {name for name in found if name[0] != "_"}  # _own.yaml is for those from outside
    assert names == {f"{name}.yaml" for name in ENCODERS}


def test_images_of_any_memory_layout_give_the_same_features():
    spec = ObsSpec(("front",), 16, 0)
    encoder, obs = build_encoder({"name": "conv_tiny"}, spec), random_obs(spec)
    strided = obs.pixels.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    before = strided.clone()
    torch.testing.assert_close(encoder(Obs(strided, obs.proprio)), encoder(obs))
    assert torch.equal(strided, before)  # the buffer's images are left alone


def test_mistakes_are_named():
    spec = ObsSpec(("front",), 64, 7)
    with pytest.raises(CaliperError, match=r"encoder.name=vit is unknown.*conv.*resnet18"):
        build_encoder({"name": "vit"}, spec)
    with pytest.raises(CaliperError, match=r"conv .*'wdth'.*channels"):
        build_encoder({"name": "conv", "wdth": 3}, spec)
    with pytest.raises(CaliperError, match="one entry per layer"):
        build_encoder({"name": "conv", "channels": [8]}, spec)
    with pytest.raises(CaliperError, match=r"no camera"):
        build_encoder({"name": "conv"}, ObsSpec((), 64, 7))
    with pytest.raises(CaliperError, match=r"no image up to 1024x1024 .*strides, padding"):
        build_encoder({"name": "conv", "strides": [0, 2, 2, 1]}, spec)
    with pytest.raises(CaliperError, match="latent=-1 makes no sense"):
        build_encoder({"name": "conv", "latent": -1}, spec)
