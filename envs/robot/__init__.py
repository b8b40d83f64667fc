"""What a robot is and how actions reach it: its facts, the controllers and their kernels."""
