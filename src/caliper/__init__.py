"""Caliper: calibrated Q-learning from pixels for robot manipulation, offline then online."""

__version__ = "0.1.0"
