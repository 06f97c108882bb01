"""The training loop, checkpoints, resume and devices."""
