"""`caliper export`: a run's policy as a folder that other programs can use.

OUT/weights.safetensors    what `caliper.load_policy(OUT)` puts into Caliper's own network
OUT/policy.pt2             the network of torch.export, for programs of C++ or without Caliper
OUT/policy.onnx            the same for ONNX runtimes, where onnx and onnxscript are installed
OUT/policy.json, README.md the card, for programs and for people
OUT/encoder.py, agent.py    the code of an encoder or agent from outside; opening the weights runs it
OUT/video.mp4, curve.png   of the run, if it has them
OUT/manifest.json          every file's SHA-256
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.export import Dim, ExportedProgram

from caliper.config.build import make_agent, obs_spec, of_checkpoint
from caliper.config.schema import RunConfig
from caliper.errors import CaliperError
from caliper.parts import KINDS, find
from caliper.policies.card import card, readme
from caliper.policies.greedy import Greedy, keep_acting, load_weights
from caliper.policies.opening import FORMATS, ONNX, PROGRAM, WEIGHTS, open_policy
from caliper.policies.policy import CARD, Network, Policy, noise, spec_of
from caliper.training.checkpoint import load_checkpoint
from caliper.types import ObsSpec
from caliper.utils.files import leads_out, new_folder, replacing
from caliper.utils.foreign import write_json
from caliper.utils.manifest import NAME as MANIFEST
from caliper.utils.manifest import write_manifest

TRIED = 16  # observations on which the formats are compared
# Title and name of what is copied from the run's folder, and where that is.
PICTURES = (("Film", "video.mp4", "videos/rollouts.mp4"), ("Curve", "curve.png", "plots/learning_curve.png"))
MOST_APART = 1e-3  # of an action: two formats farther apart are not the same policy


def policy_of(folder: Path, config: RunConfig, device: torch.device | str = "cpu") -> Policy:
    """The policy of a run's newest checkpoint.

    Raises:
        CaliperError: there is no checkpoint, or it is damaged, or of another network.
    """
    weights, _ = load_checkpoint(folder)
    agent = make_agent(of_checkpoint(config), "cpu", obs_spec(config))
    # A frozen encoder whose features the run kept is in no checkpoint: its weights come from its file.
    weights = {name: w for name, w in agent.state_dict().items() if ".frozen." in name} | weights
    load_weights(agent, weights, f"the checkpoint of {folder}")
    content = card(config, agent, folder)
    keep_acting(agent)
    agent = agent.to(device).eval().requires_grad_(False)
    return Policy(content, Greedy(agent, tuple(spec_of(content).planes)), device)


def export(folder: Path, config: RunConfig, out: Path) -> Path:
    """Writes a run's policy as a folder, compares the formats, and prints how far they are apart.

    A form of torch or ONNX that can't be written, or gives other actions, is left out,
    which is said. All compute in float32, whatever precision the training had.

    Args:
        folder: of the run.
        config: of the run.
        out: a folder that does not exist, or is empty; it appears whole or not at all.

    Returns:
        `out`.

    Raises:
        CaliperError: `out` holds something, the run has no checkpoint, or the disk fails.
    """
    with new_folder(out, "the policy") as partial:
        policy = policy_of(folder, replace(config, agent=dict(config.agent) | {"precision": "float32"}))
        own = {kind: word for kind in KINDS if (word := getattr(config.parts, kind)) is not None}
        _write(policy, folder, partial, own)
    print(f"policy: {out}")
    return out


def _write(policy: Policy, run: Path, out: Path, parts: Mapping[str, str]) -> None:
    network, content = policy.network, dict(policy.card) | {"formats": {}}
    assert isinstance(network, Greedy)
    weights = {
        name: value.detach().clone().contiguous() for name, value in network.agent.state_dict().items()
    }
    (out / WEIGHTS).write_bytes(save(weights))  # `save_file` would let nobody else read it
    for kind, word in parts.items():
        shutil.copyfile(find(kind, word).path, out / f"{kind}.py")
    _write_program(network, policy.spec, out)
    pictures = {}
    for title, name, source in PICTURES:
        if (run / source).is_file() and not leads_out(run / source, run):
            shutil.copyfile(run / source, out / name)
            pictures[title] = name
    for name in FORMATS:
        if not (out / FORMATS[name]).exists():
            continue
        # Read back as anybody would, before the card can say how far apart they are.
        _write_card(content, pictures, out)
        difference = apart(policy.network, open_policy(out, name, trusted=True).network, policy.spec)
        said = f"{FORMATS[name]}: an action differs by {difference:.2g} at most"
        if not difference <= MOST_APART:
            if name == "weights":
                raise CaliperError(f"{said} from the run's policy; nothing is kept")
            # A traced program draws random numbers of its own where the agent draws the same every time.
            print(
                f"{said}, too much to be the same policy; left out (an agent that chooses among random "
                "draws, such as qtopt, qc or agent.best_of above 1, has no such form)"
            )
            (out / FORMATS[name]).unlink()
            continue
        print(said)
        content["formats"][FORMATS[name]] = {"difference": difference}
    _write_card(content, pictures, out)


def _write_card(content: dict[str, Any], pictures: dict[str, str], out: Path) -> None:
    write_json(out / CARD, content)
    with replacing(out / "README.md") as partial:
        partial.write_text(readme(content, pictures), encoding="utf-8")
    (out / MANIFEST).unlink(missing_ok=True)
    write_manifest(out, None)


def apart(ours: Network, theirs: Network, spec: ObsSpec) -> float:
    """The largest difference of an entry of an action, on observations of noise, one at a time."""
    seen = noise(spec, TRIED)
    with torch.no_grad():
        ones = [[tensor[i : i + 1] for tensor in seen] for i in range(TRIED)]
        pairs = [(ours(*one), theirs(*one)) for one in ones]
    return max(float((a - b).abs().max()) for a, b in pairs)


def _write_program(network: Greedy, spec: ObsSpec, out: Path) -> None:
    """Writes policy.pt2 and, where the packages are there, policy.onnx; says what can't be written."""
    # torch writes its progress to both streams, and warns of its own deprecations.
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _exported(network, spec)
            torch.export.save(program, out / PROGRAM)
            torch.export.load(out / PROGRAM).module()(*noise(spec, 1))
    except Exception as error:  # torch raises whatever its tracing ends in
        (out / PROGRAM).unlink(missing_ok=True)
        print(f"{PROGRAM}, {ONNX}: none, torch can't trace this agent ({_first_line(error)})")
        return
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        print(f"{ONNX}: none, without {', '.join(missing)}: pip install 'caliper-rl[onnx]'")
        return
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(program, dynamo=True, verbose=False, input_names=list(network.names))
            assert written is not None
            written.save(out / ONNX, external_data=False)
    except Exception as error:  # as above
        (out / ONNX).unlink(missing_ok=True)
        print(f"{ONNX}: none, torch can't write this agent as ONNX ({_first_line(error)})")


def _exported(network: Greedy, spec: ObsSpec) -> ExportedProgram:
    """The network for any number of observations, or for one if torch can't see that the number is free."""
    n = Dim("n")
    with torch.no_grad():
        try:
            shapes = (tuple({0: n} for _ in network.names),)
            return torch.export.export(network, noise(spec, 2), dynamic_shapes=shapes)
        except torch._dynamo.exc.UserError:
            return torch.export.export(network, noise(spec, 1))


def _first_line(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch writes in colours
    return f"{type(error).__name__}: {plain.partition(chr(10))[0]}"[:200]
