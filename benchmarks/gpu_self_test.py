"""The self-test of `caliper doctor` on a GPU, or on Warp's CPU device, as lines and as one of JSON.

What it finds of a GPU is kept as the doctor keeps it, for runs that say sim=auto.

python benchmarks/gpu_self_test.py --device cuda
"""

import json
import sys
import time
from dataclasses import asdict

from _common import gpu_parser  # type: ignore[import-not-found]  # beside this script

from caliper.training.devices import remember
from caliper.training.self_test import self_test


def main():
    args = gpu_parser(__doc__.splitlines()[0]).parse_args()
    start, findings, found = time.perf_counter(), [], []
    for finding in self_test(args.device):
        fix = f" -> {finding.fix}" if finding.fix else ""
        print(f"{finding.name:10}{finding.said}{fix}", flush=True)
        found.append(finding)
        findings.append(asdict(finding) | {"after seconds": round(time.perf_counter() - start, 1)})
    if args.device != "cpu":
        remember(found, args.device)
    well = all(finding["fix"] is None for finding in findings)
    print(json.dumps({"name": "gpu_self_test", "device": args.device, "well": well, "parts": findings}))
    sys.exit(not well)


if __name__ == "__main__":
    main()
