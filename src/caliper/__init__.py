"""Caliper: calibrated Q-learning from pixels for robot manipulation, offline then online."""

from caliper.registration import announce

__version__ = "0.1.0"

announce()
