"""Files of other code: checkpoints and caches of the published implementation."""
