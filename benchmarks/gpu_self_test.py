"""The self-test of `caliper doctor` on a GPU, or on Warp's CPU device, as lines and as one of JSON.

python benchmarks/gpu_self_test.py --device cuda
"""

import json
import sys
import time
from dataclasses import asdict

from _common import gpu_parser  # type: ignore[import-not-found]  # beside this script

from caliper.training.self_test import self_test


def main():
    args = gpu_parser(__doc__.splitlines()[0]).parse_args()
    start, findings = time.perf_counter(), []
    for finding in self_test(args.device):
        mend = f" -> {finding.mend}" if finding.mend else ""
        print(f"{finding.name:10}{finding.said}{mend}", flush=True)
        findings.append(asdict(finding) | {"after seconds": round(time.perf_counter() - start, 1)})
    well = all(finding["mend"] is None for finding in findings)
    print(json.dumps({"name": "gpu_self_test", "device": args.device, "well": well, "parts": findings}))
    sys.exit(not well)


if __name__ == "__main__":
    main()
