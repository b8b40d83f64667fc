r"""Recordings of every family: how exactly their actions are reproduced, how fast their images are drawn.

First a table, one row per file of a folder. In the file's own model, under the controller that `import`
finds to have made it: the arm's error after single recorded steps, and open loop from the first state. Where
the task has a scene here: the same in that scene under the translated actions, and how many demonstrations
the translated and the untranslated actions solve open loop, of those that the recorded states solve.

Then images per second of two cameras from one file of robomimic's, every demo drawn by both sides in turn on
one core: Caliper draws the imported states as `caliper replay` does, and the real robomimic 0.3.0 extracts
them with its `dataset_states_to_obs`, in an environment of its own:

    python3.11 -m venv peer
    peer/bin/pip install "numpy<2" mujoco==2.3.7 h5py scipy numba pillow imageio imageio-ffmpeg tqdm \
        termcolor psutil six matplotlib opencv-python-headless torch torchvision
    peer/bin/pip install --no-deps robosuite==1.4.1 robomimic==0.3.0
    apt-get install libosmesa6

Neither side's start, compilation or writing is counted. Both sides' images of the same states must be alike,
or the numbers are refused. The headline is the median over the demos of the ratio of CPU seconds.

    python benchmarks/import.py [FOLDER] --robomimic peer/bin/python  # writes results/import.json
    python benchmarks/import.py --quick                                    # no robomimic, writes nothing
"""

import argparse
import dataclasses
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import mujoco
import numpy as np
from _common import parser, report  # type: ignore[import-not-found]  # beside this script

from caliper.data.formats.recordings import open_recording
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError
from caliper.importing.controller import Hidden, read_settings
from caliper.importing.demo import Options
from caliper.importing.dialect import control_freq, first_sight, measure, one_step_errors, usual_way
from caliper.importing.importer import import_recording
from caliper.importing.model.compiled import physics_model
from caliper.rollout.open_loop import replay_actions
from caliper.rollout.replay import rendered

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "recordings"
CAMERAS, SIZE, NUM_ENVS = ("agentview", "robot0_eye_in_hand"), 84, 16
DEMOS, STEPS = 3, 400  # of a file, in its own model
ALIKE = 0.8  # median correlation of both sides' images of a demo; of two cameras' it is about 0.2


def recordings(folder, unpacked):
    """The recordings of a folder, by name; packed ones are unpacked, with the model beside them."""
    for packed in sorted(folder.glob("*.hdf5.gz")):
        name = packed.name.removesuffix(".hdf5.gz")
        path = unpacked / name / "demo.hdf5"
        (path.parent / "models").mkdir(parents=True)
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        if (model := folder / f"{name}.xml.gz").exists():
            (path.parent / "models" / "model_1.xml").write_bytes(gzip.decompress(model.read_bytes()))
        yield name, path
    for path in sorted(folder.rglob("*.hdf5")):
        yield str(path.relative_to(folder).with_suffix("")), path


def in_its_own_model(recording, demos, steps):
    """The controller found, and the arm's errors after one step and open loop, rad; or why there are none."""
    try:
        settings = read_settings(recording.settings.get("controller_configs"))
        pairs = [(physics_model(d.model), d) for d in recording.demos[:demos] if d.model]
        freq = control_freq(pairs[0][1].states)
        usual = usual_way(pairs, settings, freq, recording.version)
    except CaliperError as error:
        return {"own": str(error)}
    single, ends, found = [], [], set()
    for model, demo in pairs:
        reading = measure(model, settings, demo, freq, usual)
        found.add(f"{reading.way.dialect.name}, {reading.way.posture}")
        rows = range(min(steps, len(demo.actions) - 1))
        single.append(one_step_errors(reading.controller, demo, reading.history, rows))
        ends.append(open_loop(reading.controller, demo, rows))
    errors = np.concatenate(single)
    return {
        "controller": sorted(found),
        "own_one_step_median": float(np.median(errors)),
        "own_one_step_worst": float(errors.max()),
        "own_open_loop_after_20": max(float(e[:20].max()) for e in ends),
        "own_open_loop_worst": max(float(e.max()) for e in ends),
    }


def open_loop(controller, demo, steps):
    """The arms' largest joint error after each action, from the first state under the actions alone, rad."""
    data, rest = mujoco.MjData(controller.model), controller.at_rest(demo.states[0])
    arms = np.concatenate([arm.qpos for arm in controller.arms])
    hidden = [
        Hidden(h.closing.copy(), h.turn.copy()) for h in controller.history(demo.states, demo.actions)[0]
    ]
    controller.put(data, demo.states[0])
    errors = []
    for t in steps:
        seen = first_sight(controller, demo, t)
        goals = controller.goals(rest if seen is not None else data, demo.actions[t], hidden)
        controller.step(data, demo.actions[t], hidden, seen)
        for before, goal in zip(hidden, goals, strict=True):
            before.turn = goal.turn
            before.closing = controller.closed(before.closing, goal.grip, controller.substeps)
        errors.append(np.abs(data.qpos[arms] - demo.states[t + 1, 1 + arms]).max())
    return np.array(errors)


def in_the_scene(recording, folder):
    """Errors of the translated actions in the task's scene, and what actions alone solve; or why not."""
    out = folder / "imported.hdf5"
    try:
        import_recording(recording.path, out, Options(skip_bad=True, keep_length=True), lambda _: None)
    except CaliperError as error:
        return {"scene": str(error).removeprefix(str(recording.path)).lstrip(": ")}
    dataset = read_dataset(out)
    with h5py.File(out) as file:
        facts = [json.loads(file["data"][demo].attrs["imported"]) for demo in dataset.demos]
    raw = {demo.name: demo.actions for demo in recording.demos}
    row = {
        "scene": dataset.meta.task,
        "imported": f"{len(facts)} of {len(recording.demos)}",
        "one_step_median": float(np.median([f["arm_error"] for f in facts])),
        "one_step_worst_demo": max(f["arm_error"] for f in facts),
        "object_one_step_median_mm": 1e3 * float(np.median([f["object_error"] for f in facts])),
    }
    ways = {"translated": dataset}
    if raw[facts[0]["name"]].shape[1] == dataset.meta.action_dim:
        untranslated = [
            dataclasses.replace(e, actions=np.clip(raw[f["name"]][: len(e)], -1, 1).astype(np.float32))
            for e, f in zip(dataset.episodes, facts, strict=True)
        ]
        ways["untranslated"] = dataclasses.replace(dataset, episodes=untranslated)
    solved = [f["solved_at"] is not None for f in facts]
    row["recorded"] = f"{sum(solved)} of {len(facts)}"
    for name, taken in ways.items():
        runs = list(replay_actions(taken))
        done = [r.solved for r, s in zip(runs, solved, strict=True) if s]
        exact = sum(r.solved == f["solved_at"] for r, f in zip(runs, facts, strict=True) if r.solved)
        row[name] = f"{sum(d is not None for d in done)} of {sum(solved)}"
        row[f"{name}_at_the_recorded_step"] = f"{exact} of {sum(solved)}"
        row[f"{name}_open_loop_median"] = float(np.median([r.arm.max() for r in runs]))
    return row


class Robomimic:
    """The real robomimic, in an interpreter of its own, on this process's core."""

    def __init__(self, python, path, folder):
        words = [python, str(Path(__file__).with_name("_robomimic.py")), str(path), str(folder), str(SIZE)]
        self.folder = folder
        self.process = subprocess.Popen(
            [*words, *CAMERAS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "osmesa"), "OMP_NUM_THREADS": "1"},
        )
        self.version = self.answer()["robosuite"]

    def answer(self):
        if not (line := self.process.stdout.readline()):
            sys.exit("robomimic has ended; its interpreter is made as the top of benchmarks/import.py says")
        return json.loads(line)

    def draw(self, name):
        """Number of images, (wall, CPU) seconds, and the images (t, v, h, w, 3) of a demo."""
        print(name, file=self.process.stdin, flush=True)
        answer = self.answer()
        return answer["images"], np.array(answer["seconds"]), np.load(self.folder / f"{name}.npy")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours_drawn(env, dataset, number):
    """The same of an imported demo, drawn by Caliper."""
    one = dataclasses.replace(dataset, episodes=[dataset.episodes[number]], demos=[dataset.demos[number]])
    wall, cpu = time.perf_counter(), time.process_time()
    ((_, obs),) = rendered(env, one)
    images = obs.pixels.permute(0, 1, 3, 4, 2).numpy()
    return (
        images.shape[0] * images.shape[1],
        np.array([time.perf_counter() - wall, time.process_time() - cpu]),
        images,
    )


def images_per_second(recording, python, folder, count):
    """Both sides' images per (wall, CPU) second, demos in turn; checks that they show the same."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    out = folder / "drawn.hdf5"
    import_recording(recording.path, out, Options(keep_length=True), lambda _: None)
    dataset = read_dataset(out)
    meta = dataset.meta
    with h5py.File(out) as file:
        names = [json.loads(file["data"][demo].attrs["imported"])["name"] for demo in dataset.demos]
    env = SimEnv(
        meta.task,
        NUM_ENVS,
        cameras=CAMERAS,
        size=SIZE,
        controller=meta.controller,
        control_freq=meta.control_freq,
    )
    ours_drawn(env, dataset, len(names) - 1)  # kernels compile here
    peer = Robomimic(python, recording.path, folder)
    rates, alike = [], []
    for i, name in enumerate(names[:count]):
        theirs, their_seconds, their_images = peer.draw(name)
        ours, our_seconds, our_images = ours_drawn(env, dataset, i)
        both = min(len(their_images), len(our_images))
        for v in range(len(CAMERAS)):
            a, b = our_images[:both, v].astype(float), their_images[:both, v].astype(float)
            each = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
            alike.append(np.median(each))  # close to an object, colours and shadows of one frame may differ
        assert min(alike) > ALIKE, f"both sides' images of the same states differ: correlations of {alike}"
        rates.append((ours / our_seconds, theirs / their_seconds))
    peer.close()
    return np.array(rates), float(min(alike)), peer.version  # rates: (demos, (ours, peer), (wall, CPU))


def main():
    command = parser(__doc__)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "folder", nargs="?", type=Path, default=FIXTURES, help="of recordings; default: the tests'"
    )
    command.add_argument(
        "--robomimic", metavar="PYTHON", help="interpreter that has robomimic; see the top of this script"
    )
    args = command.parse_args()
    rows, drawn = {}, None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, path in recordings(args.folder, folder):
            if args.quick and name not in ("robosuite141_lift", "mimicgen_square_d0"):
                continue
            recording = open_recording(path)
            row = {"family": recording.family, "env": recording.env_name}
            row |= in_its_own_model(recording, 1 if args.quick else DEMOS, 40 if args.quick else STEPS)
            row |= in_the_scene(recording, folder)
            rows[name] = row
            print(name, json.dumps(row), flush=True)
            if drawn is None and recording.family == "robomimic":
                drawn = name, recording
        if args.robomimic is None:
            print("no images are drawn, and nothing is written, without --robomimic PYTHON; see --help")
            return
        if drawn is None or shutil.which(args.robomimic) is None:
            sys.exit(f"no file of robomimic in {args.folder}, or no interpreter {args.robomimic}")
        rates, alike, robosuite = images_per_second(drawn[1], args.robomimic, folder, 3)
    ratios = rates[:, 0] / rates[:, 1]  # (demos, (wall, CPU))
    report(
        "import",
        ours=round(statistics.median(rates[:, 0, 1]), 1),
        peer=round(statistics.median(rates[:, 1, 1]), 2),
        ratio=round(statistics.median(ratios[:, 1]), 1),
        unit=f"{SIZE}x{SIZE} images per CPU second from one recording, two cameras, one core",
        packages=("mujoco", "robosuite", "torch", "numpy"),
        quick=args.quick,
        drawn=drawn[0],
        demos=len(rates),
        clock_ratio=round(statistics.median(ratios[:, 0]), 1),
        ratios_of_each_demo=[[round(float(x), 1) for x in pair] for pair in ratios],
        likeness=round(alike, 3),
        peers_versions={"robomimic": "0.3.0", "robosuite": robosuite},
        load=round(os.getloadavg()[0], 1),
        files=rows,
    )


if __name__ == "__main__":
    main()
