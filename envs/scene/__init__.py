"""A task's scene as one MuJoCo model: how it is built, how it may look, where an episode starts in it."""
