"""The learning results: the numbers and curves of finished runs as one file of benchmarks/results.

A FOLDER is one that `caliper compare` or `sweep` made; its runs have the names that these give them. Several
folders are put together, such as that of a method which takes a key of its own.

    python benchmarks/learning.py NAME FOLDER.. --command COMMAND.. [--note NOTE]

Writes benchmarks/results/learning_NAME.json, and prints a table of the folders' variants. With --add the
file keeps what else it holds, such as the seeds of another day.
"""

import argparse
import datetime
import json
import math
from pathlib import Path

from _common import RESULTS  # type: ignore[import-not-found]  # beside this script

from caliper.analysis.run_data import read_run
from caliper.analysis.run_table import numbers, record, runs_of, text_table
from caliper.analysis.variant import gather, without_intervals
from caliper.utils.files import replacing

EVERYWHERE = ("task", "encoder", "hardware", "versions")  # told once, where all runs share it
MORE = ("regret", "dip", "cpu_minutes")  # columns of the table that a run's own record leaves out


def collected(name, folders, commands, note="", old=None):
    """The result, and the folders' variants as a table.

    Args:
        old: a result whose other runs it keeps.

    Raises:
        CaliperError: a folder is not of runs.
        ValueError: there are no runs in it, or one of them is not finished.
    """
    named = [pair for folder in folders for pair in runs_of(folder)]
    if not named:
        where = ", ".join(map(str, folders))
        raise ValueError(f"no runs in {where}; name a folder that caliper compare made")
    found = [(variant, read_run(path)) for variant, path in named]
    waiting = [run.folder for _, run in found if not run.complete]
    if waiting:
        raise ValueError(f"{waiting[0]} is not finished; give its comparison's command again")
    old = old or {"commands": [], "runs": []}
    runs = [
        {"variant": run["variant"], **{k: old[k] for k in EVERYWHERE if k in old}, **run}
        for run in old["runs"]
    ]
    for variant, run in found:
        known = numbers(run)
        runs.append({"variant": variant, **record(run), **{key: rounded(known[key]) for key in MORE}})
    runs = list({(run["variant"], run["seed"]): run for run in runs}.values())
    shared = {key: runs[0][key] for key in EVERYWHERE if all(run[key] == runs[0][key] for run in runs)}
    result = {
        "name": f"learning_{name}",
        "commands": list(dict.fromkeys([*old["commands"], *commands])),
        **shared,
        "date": datetime.date.today().isoformat(),
        **({"note": note} if note else {}),
        "columns of evaluations": ["phase", "updates offline or env steps online", "success", "episodes"],
        "runs": [{key: value for key, value in run.items() if key not in shared} for run in runs],
    }
    return result, text_table(without_intervals([variant.row() for variant in gather(named, found)]))


def rounded(value):
    """A number as JSON has it: null for what there is not, such as the regret of a clone."""
    return round(value, 4) if math.isfinite(value) else None


def compact(result):
    """JSON with a line for each run, that a change of one shows as one."""
    *head, last = json.dumps({**result, "runs": []}, indent=1, allow_nan=False).rsplit("[]", 1)
    lines = ",\n  ".join(json.dumps(run, allow_nan=False) for run in result["runs"])
    return f"{head[0]}[\n  {lines}\n ]{last}\n"


def main():
    """Writes the result of the folders that the command line names."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("name")
    words.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    words.add_argument("--command", action="append", required=True, help="what made a folder; once for each")
    words.add_argument("--note", default="")
    words.add_argument("--add", action="store_true", help="keep the other runs that the file has")
    given = words.parse_args()
    path = RESULTS / f"learning_{given.name}.json"
    old = json.loads(path.read_text()) if given.add else None
    result, table = collected(given.name, given.folders, given.command, given.note, old)
    with replacing(path) as partial:
        partial.write_text(compact(result))
    print(table)


if __name__ == "__main__":
    main()
