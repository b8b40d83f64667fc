"""Simulation: robosuite's scenes on batched MuJoCo, with cameras. Knows nothing of learning."""

import warp as wp

# A library prints no banner and no compile times; `caliper doctor` tells what Warp found.
wp.config.log_level = wp.LOG_ERROR
