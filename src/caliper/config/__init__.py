"""A run's configuration: its schema, how a command line makes one, what is refused, what is built from it."""
