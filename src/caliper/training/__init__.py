"""A run of training: the trainer and its two phases, how updates are made, checkpoints, metrics, Ctrl-C."""
