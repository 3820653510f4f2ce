"""Readers of files that the published implementation writes: checkpoints and caches of activations."""
