"""What a run has come to, as checksums that two runs can be compared by."""

import csv

import numpy as np
import torch

from caliper.data.formats.checksum import digest
from caliper.training.checkpoint import load_checkpoint

CLOCKS = ("wall_s", "cpu_s")


def tensors(weights, state):
    """A checkpoint as one checksum."""
    facts = []

    def walk(value, where):
        if isinstance(value, torch.Tensor):
            raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            facts.append([where, str(value.dtype), list(value.shape), digest({}, {"x": raw})])
        elif isinstance(value, dict):
            for key in value:
                walk(value[key], f"{where}.{key}")
        elif isinstance(value, list | tuple):
            for i, entry in enumerate(value):
                walk(entry, f"{where}[{i}]")
        else:
            facts.append([where, repr(value)])

    walk(weights, "weights")
    walk(state, "state")
    return digest({"facts": facts})


def run(folder):
    """All that a run ends with, but for its clocks: a checksum each of checkpoint, metrics, evaluations."""
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    evaluations = {}
    for path in sorted(folder.glob("evaluations/*/evaluation.json")):
        arrays = {}
        if (beside := path.with_name("calibration.npz")).exists():
            with np.load(beside) as file:
                arrays = dict(file)
        evaluations[path.parent.name] = digest({"record": path.read_text(encoding="utf-8")}, arrays)
    weights, state = load_checkpoint(folder)
    return {
        # How many rows metrics.csv has is told beside them: it may have lost some, and the run is the same.
        "checkpoint": tensors(weights, {key: value for key, value in state.items() if key != "rows"}),
        "metrics": digest({"rows": rows, "counted": state["rows"]}),
        "evaluations": digest(evaluations),
    }
