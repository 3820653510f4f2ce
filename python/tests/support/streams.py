"""Batches that come one after the other."""


def cut(acts, size):
    n = len(next(iter(acts.values())))
    return [{name: x[start : start + size] for name, x in acts.items()} for start in range(0, n, size)]
