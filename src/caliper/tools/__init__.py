"""The verbs of the command line that are not training: collect, replay, inspect, sweep, doctor and others."""
