"""Activations: arrays that users pass in, stores on disk, and batches of rows from either."""
