"""What was found, and how far to believe it: evaluation, examples, nulls, ceilings, consistency."""
