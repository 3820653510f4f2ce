"""The Swift core together with the names of its models: training steps, evaluation, and tensors by name."""
