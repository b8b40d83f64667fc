"""What `faults.py` is made of: files spoiled and read again, runs killed, stopped, starved and watched."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # for the tests' folder, whose small runs these are
