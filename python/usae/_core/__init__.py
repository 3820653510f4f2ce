"""The Swift core with the names of its models: one step, evaluation, tensors by name."""
