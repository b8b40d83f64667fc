"""On which tasks the script works with which robot: success and length of its episodes without noise.

Each with the controller, frequency and horizon of the task's own configuration, as `caliper collect
task=TASK robot=ROBOT` has them. The file is written after each cell.

    python benchmarks/robots.py                       # full, writes benchmarks/results/robots.json
    python benchmarks/robots.py --only ur5e kinova3   # these alone; the other rows stay
    python benchmarks/robots.py --tasks lift stack    # every robot on these
    python benchmarks/robots.py --quick               # one robot on one task, writes nothing
"""

import json
import statistics
import sys

import torch
from _common import RESULTS, hardware, parser, report  # type: ignore[import-not-found]  # beside this script
from tasks import ROOT, script  # type: ignore[import-not-found]

sys.path.insert(0, str(ROOT))  # for the tests' folder

NOTE = (
    "Entries without hardware of their own were measured on an AMD EPYC or an Intel Xeon, 2 cores each, "
    "which of them is not recorded; the hardware below is that of the latest entry."
)


def main():
    command = parser(__doc__.splitlines()[0])
    command.add_argument("--only", nargs="+", help="robots to measure; the others' rows stay")
    command.add_argument("--tasks", nargs="+", help="these alone; the others' entries stay")
    args = command.parse_args()
    from caliper.envs.scene.scenes import ROBOTS
    from caliper.envs.tasks import TASKS

    torch.set_num_threads(1)
    robots, tasks = args.only or list(ROBOTS), args.tasks or list(TASKS)
    if args.quick:
        robots, tasks = ["panda"], ["lift"]
    path = RESULTS / "robots.json"
    some = args.only or args.tasks
    rows = json.loads(path.read_text())["robots"] if some and path.exists() else {}
    for robot in robots:
        row = rows.setdefault(robot, {})
        for task in tasks:
            share, lengths = script(task, 25 if args.quick else 100, robot)
            row[task] = {
                "success": share,
                "steps_median": statistics.median(lengths) if lengths else None,
                "steps_max": max(lengths, default=None),
                "hardware": hardware(),  # of this entry: others may be of another machine
            }
            print(robot, task, row[task], flush=True)
            report(
                "robots",
                ours=None,
                peer=None,
                ratio=None,
                unit="share of 100 episodes of the script without noise that succeed",
                packages=("mujoco", "robosuite", "torch"),
                quick=args.quick,
                note=NOTE,
                robots=rows,
            )


if __name__ == "__main__":
    main()
