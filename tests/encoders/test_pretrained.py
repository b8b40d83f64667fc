"""Published weights: the names of their files, made here from networks with random weights."""

import copy
import hashlib
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from caliper.agents import build_agent
from caliper.encoders import architectures, build_encoder, weights
from caliper.encoders.architectures import footprint
from caliper.encoders.backbones import Backbone, check_file, fitting, make_backbone, of_images
from caliper.encoders.pretrained import as_saved, keeps_features, see
from caliper.errors import CaliperError
from caliper.types import Batch, Obs, ObsSpec

SPEC = ObsSpec(("front", "wrist"), 20, 7)
IMAGES = torch.linspace(-0.5, 0.5, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def observations(spec, b=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (b, len(spec.cameras), 3 * spec.stack, *spec.sizes[0])
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
    return Obs(pixels, torch.randn(b, spec.proprio * spec.stack, generator=g))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    net = get_model("resnet18", weights=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    return net.eval()


@pytest.fixture
def file(resnet, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    return path


def headless(net, images):
    """The library's own network, its last layer taken away, on images in [-0.5, 0.5]."""
    net = copy.deepcopy(net)
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        return net.eval()((images + 0.5 - MEAN) / STD)


def named_by_r3m(net):
    """As R3M's model.pt has them: a DataParallel of a network `convnet` beside a language model."""
    state = {f"module.convnet.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    return {
        "r3m": state
        | {"module.lang_enc.model.w": torch.ones(2), "module.lang_rew.pred.0.bias": torch.ones(3)}
    }


@pytest.mark.parametrize("kind", ["torch", "safetensors", "r3m", "trainer", "half"])
def test_features_are_those_of_the_librarys_own_network(resnet, tmp_path, kind):
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
    state = resnet.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    else:
        wrapped = {"state_dict": {f"backbone.{k}": v for k, v in state.items()}, "epoch": 3}
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        torch.save(
            {"torch": state, "r3m": named_by_r3m(resnet), "trainer": wrapped, "half": half}[kind], path
        )
    backbone = make_backbone("resnet18", str(path), None, None)
    assert backbone.dim == 512
    with torch.no_grad():
        features = backbone(IMAGES)
    tolerance = {"rtol": 0.02, "atol": 0.02} if kind == "half" else {}
    torch.testing.assert_close(features, headless(resnet, IMAGES), **tolerance)
    licence = check_file(path, "resnet18").origin.licence
    assert licence.startswith("MIT") if kind == "r3m" else licence.startswith("unknown")


@pytest.mark.slow
def test_of_all_architectures_the_right_one_is_found(resnet, tmp_path):
    torch.save(named_by_r3m(resnet), tmp_path / "model.pt")
    assert fitting(tmp_path / "model.pt") == ["resnet18"]


def test_another_size_is_brought_to_the_networks(resnet, file):
    backbone = make_backbone("resnet18", str(file), None, 64)
    larger = torch.nn.functional.interpolate(IMAGES, (64, 64), mode="bilinear")
    with torch.no_grad():
        torch.testing.assert_close(backbone(IMAGES), headless(resnet, larger))


def test_images_are_normalised_as_in_each_networks_own_training():
    with torch.device("meta"):
        means = {
            arch: architectures.headless(arch, 224).mean for arch in ("mobilenet_v2", "efficientnet_v2_l")
        }
    assert means == {"mobilenet_v2": (0.485, 0.456, 0.406), "efficientnet_v2_l": (0.5, 0.5, 0.5)}


def test_what_a_network_takes():
    found = footprint("resnet18", 32)
    assert found.weights == 11_176_512  # 11,689,512 with the last layer, 512 * 1000 + 1000
    assert found.largest == 64 * 16 * 16  # after the first convolution
    # First convolution, norm, ReLU; pooled. In each stage four convolutions, their norms, four ReLUs, and
    # from the second on one more convolution and norm. The features twice, for the last layer is nothing.
    stem = 3 * 64 * 16 * 16 + 64 * 8 * 8
    stages = [64 * 8 * 8 * 12, 128 * 4 * 4 * 14, 256 * 2 * 2 * 14, 512 * 1 * 1 * 14]
    assert found.activations == stem + sum(stages) + 2 * 512


def test_a_published_file_is_known_by_its_checksum(monkeypatch, file):
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    known = [("ResNet18_Weights.X", f"https://example.org/resnet18-{sha256[:8]}.pth", "BSD-3-Clause")]
    monkeypatch.setattr(weights, "published", lambda arch: known)
    checked = check_file(file, "resnet18")
    assert checked.sha256 == sha256 and checked.origin.licence == "BSD-3-Clause"
    assert "ResNet18_Weights.X" in str(checked) and sha256 in str(checked)


def test_torchvision_tells_what_it_has_published():
    assert any("resnet18-f37072fd.pth" in url for _, url, _ in weights.published("resnet18"))
    licences = {licence for _, _, licence in weights.published("vit_b_16")}
    assert any("SWAG" in licence for licence in licences) and len(licences) == 2
    assert weights.published("vit_small") == []


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("vit_b_32", "convnext_tiny")]


@pytest.mark.parametrize("arch", ["efficientnet_b0", "mobilenet_v2", *LARGE])
def test_other_architectures_of_torchvision(arch, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_file(get_model(arch, weights=None).state_dict(), path)
    backbone = make_backbone(arch, str(path), None, 64)
    with torch.no_grad():
        features = backbone(IMAGES)
    assert features.shape == (2, backbone.dim) and not torch.equal(features[0], features[1])
    assert check_file(path, arch).arch == arch


def test_another_architecture_is_refused_with_its_first_three_names(file, tmp_path):
    with pytest.raises(CaliperError, match=r"does not fit arch=resnet50") as caught:
        make_backbone("resnet50", str(file), None, 224)
    assert (
        "layer1.0.conv1.weight is (64, 64, 3, 3) in the file and (64, 64, 1, 1) in the architecture; "
        "layer1.0.conv3.weight is missing in the file and (256, 64, 1, 1) in the architecture; "
        "layer1.0.bn3.weight is missing in the file and (256,) in the architecture; and "
    ) in str(caught.value)
    with pytest.raises(
        CaliperError, match=r"layer1\.2\.conv1\.weight is missing.*resnet34|does not fit arch=resnet34"
    ):
        make_backbone("resnet34", str(file), None, 224)


class Bomb:
    def __reduce__(self):
        return print, ("the file's code ran",)


def test_files_that_are_no_weights(file, tmp_path, capsys, resnet):
    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps({"w": Bomb()}))
    with pytest.raises(CaliperError, match=r"evil.pt .*(run code|damaged)"):
        check_file(evil, "resnet18")
    torch.save({"w": Bomb()}, evil)
    with pytest.raises(CaliperError, match=r"evil.pt .*run code"):
        check_file(evil, "resnet18")
    assert "ran" not in capsys.readouterr().out
    with pytest.raises(CaliperError, match=r"none.pt cannot be read .*downloads no weights"):
        check_file(tmp_path / "none.pt", "resnet18")
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(file.read_bytes()[:5000])
        with pytest.raises(CaliperError, match=r"cut.* is damaged"):
            check_file(tmp_path / name, "resnet18")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CaliperError, match=r"empty.pt holds no weights by name"):
        check_file(tmp_path / "empty.pt", "resnet18")
    torch.save(
        resnet.state_dict() | {"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, tmp_path / "nan.pt"
    )
    with pytest.raises(CaliperError, match=r"nan.pt holds NaN .*conv1.weight"):
        check_file(tmp_path / "nan.pt", "resnet18")
    with pytest.raises(CaliperError, match=r"is another file .* than this run began with \(0{64}\)"):
        make_backbone("resnet18", str(file), "0" * 64, 224)


def test_mistakes_are_named(file):
    cfg = {"name": "pretrained", "weights": "random"}
    with pytest.raises(CaliperError, match=r"encoder.weights names no file.*downloads none.*random"):
        build_encoder({"name": "pretrained"}, SPEC)
    with pytest.raises(CaliperError, match=r"weights=random, but this run began with a file .*0000"):
        build_encoder({**cfg, "sha256": "0" * 64}, SPEC)
    with pytest.raises(CaliperError, match=r"encoder.arch=resnet19 is unknown.*resnet18"):
        build_encoder({**cfg, "arch": "resnet19"}, SPEC)
    with pytest.raises(CaliperError, match=r"encoder.arch=vit_b_16 does not take encoder.size=30 "):
        build_encoder({**cfg, "arch": "vit_b_16", "size": 30}, SPEC)
    with pytest.raises(CaliperError, match=r"encoder.size=None .*one size"):
        build_encoder({**cfg, "arch": "vit_b_16", "size": None}, SPEC)
    with pytest.raises(CaliperError, match="colours alone"):
        build_encoder(cfg, replace(SPEC, depth=True))


def test_frozen_weights_are_no_parameters_and_stay():
    spec = replace(SPEC, stack=2)
    encoder = build_encoder({"name": "pretrained", "weights": "random", "size": 32}, spec)
    names = {name.partition(".")[0] for name, _ in encoder.named_parameters()}
    assert names == {"project", "project_proprio"} and encoder.dim == 100
    encoder.train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder(observations(spec)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())  # batch statistics too
    assert any(k.startswith("frozen.net.bn1.running_mean") for k in before)


def test_kept_features_give_what_images_give():
    """Of several cameras of several sizes, and of stacked frames, in the right order."""
    spec = ObsSpec(("front", "wrist"), ((20, 24), (16, 16)), 3, stack=2)
    g = torch.Generator().manual_seed(0)
    images = {
        name: torch.randint(0, 256, (2, 1, 6, *plane.size), dtype=torch.uint8, generator=g)
        for name, plane in spec.planes.items()
    }
    obs = Obs.of({**images, "proprio": torch.randn(2, 6, generator=g)})
    cfg = {"name": "pretrained", "weights": "random", "size": 32}
    encoder = build_encoder(cfg, spec)
    features = see(encoder.frozen, obs, spec.planes)  # (b, v, k f)
    assert features.shape == (2, 2, 1024)
    with torch.no_grad():
        second = images["pixels_16x16"][:, 0, 3:] / 255 - 0.5
        torch.testing.assert_close(features[:, 1, 512:], encoder.frozen(second))
    kept = build_encoder(cfg, replace(spec, features=512))
    assert kept.frozen is None and sum(p.numel() for p in kept.buffers()) == 0
    kept.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("frozen.")})
    seen = Obs(
        torch.empty(2, 0, 3, 1, 1, dtype=torch.uint8), obs.proprio, {"features": features[..., None, None]}
    )
    torch.testing.assert_close(kept(seen), encoder(obs))
    began = cfg | {"weights": "f", "sha256": "0"}
    assert as_saved(began) == began
    for other in ({"frozen": False}, {"cached": False}):  # a checkpoint holds the network itself
        assert as_saved(began | other) == began | other | {"weights": "random", "sha256": None}
    assert keeps_features(cfg) and not keeps_features({**cfg, "frozen": False})
    assert not keeps_features({**cfg, "cached": False}) and not keeps_features({"name": "conv"})


def test_many_images_are_encoded_in_parts():
    backbone = make_backbone("resnet18", "random", None, 32).freeze()
    images = torch.randn(3, 2, 6, 20, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(of_images(backbone, images, most=5), of_images(backbone, images))


@pytest.mark.parametrize("frozen", [True, False])
def test_an_update_moves_what_it_should(frozen):
    cfg = {"name": "pretrained", "weights": "random", "size": 32, "frozen": frozen}
    agent = build_agent({"name": "sac", "critic_hidden": [16], "actor_hidden": [16]}, cfg, SPEC, 4, "cpu", 0)
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    g = torch.Generator().manual_seed(0)
    action, ones = torch.rand(2, 4, generator=g), torch.ones(2)
    agent.update(Batch(observations(SPEC), action, ones, observations(SPEC, seed=1), ones * 0, ones))
    moved = {k for k, v in agent.state_dict().items() if not torch.equal(v, before[k])}
    part = "frozen" if frozen else "body"
    inside = {f"{name}.encoder.{part}.net.conv1.weight" for name in ("actor", "critic", "target_critic")}
    assert inside <= before.keys()
    assert not inside & moved if frozen else inside <= moved
    assert "critic.encoder.project.net.0.weight" in moved
    assert not any("running" in name for name in moved)


def test_random_weights_are_the_same_every_time():
    torch.manual_seed(5)
    one, two = Backbone("resnet18"), Backbone("resnet18")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


# What follows needs timm.


def published_by_dinov2(timm, registers=0):
    """DINOv2's state dict, of 518 pixels, with a token for masked patches, from timm's network."""
    torch.manual_seed(0)
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    net = timm.create_model(name, pretrained=False, num_classes=0, img_size=518).eval()
    state = net.state_dict()
    if registers:
        state["register_tokens"] = state.pop("reg_token")
        position = torch.randn(1, 1, 384)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
    return net, state | {"mask_token": torch.zeros(1, 384)}


@pytest.mark.slow
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_by_its_own_names(tmp_path, registers):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    net, state = published_by_dinov2(timm, registers)
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(state, path)
    arch = "dinov2_vits14_reg" if registers else "dinov2_vits14"
    images = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(0)) - 0.5
    backbone = make_backbone(arch, str(path), None, 518)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), net((images + 0.5 - MEAN) / STD), rtol=1e-3, atol=1e-3)
        small = make_backbone(arch, str(path), None, 224)  # 37 x 37 patches brought to 16 x 16
        assert small.net.pos_embed.shape[1] == 256 + (registers == 0)
        # timm's own way from one to the other
        from timm.models.vision_transformer import checkpoint_filter_fn

        own = checkpoint_filter_fn(dict(state), small.net)
        torch.testing.assert_close(small.net.pos_embed.data, own["pos_embed"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(small.net.cls_token.data, own["cls_token"])
    checked = check_file(path, arch)
    assert checked.origin.licence == "Apache-2.0" and fitting(path) == [arch]


def test_features_are_as_many_as_timms_network_gives():
    pytest.importorskip("timm", reason="needs the extra timm")
    for arch in ("mobilenetv3_small_100", "vit_small_patch16_224.dino"):  # a layer after the pooling; a tag
        with torch.device("meta"):
            found = architectures.headless(arch, 64)
            assert found.net.eval()(torch.empty(1, 3, 64, 64)).shape == (1, found.dim)
    assert found.mean == (0.485, 0.456, 0.406)  # without the tag 0.5


@pytest.mark.slow
def test_a_small_transformer_of_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    path = tmp_path / "model.safetensors"
    net = timm.create_model("vit_small_patch16_224", pretrained=False).eval()
    save_file(net.state_dict(), path)
    backbone = make_backbone("vit_small", str(path), None, 224)
    images = torch.rand(1, 3, 224, 224) - 0.5
    with torch.no_grad():
        theirs = net.forward_head(net.forward_features(images / 0.5), pre_logits=True)
        torch.testing.assert_close(backbone(images), theirs)
    assert "vit_small" in fitting(path)
    with pytest.raises(CaliperError, match=r"does not fit arch=vit_tiny: cls_token is \(1, 1, 384\)"):
        make_backbone("vit_tiny", str(path), None, 224)
