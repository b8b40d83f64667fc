"""Hydra configuration: train.yaml and one folder per group."""
