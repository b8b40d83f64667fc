"""The scripts that record demonstrations: state machines for all envs at once."""
