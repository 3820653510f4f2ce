"""The training loop, its checkpoints and signals, and steps of data-parallel training."""
