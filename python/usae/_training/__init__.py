"""The loop over steps, its checkpoints, signals while it runs, and steps that several processes share."""
