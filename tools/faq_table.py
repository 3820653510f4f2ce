"""Print the table of docs/faq.md: other numbers of concepts, active concepts and steps, on the package's small networks."""

from __future__ import annotations

import numpy as np

import usae

CHOICES = ((128, 12, 500), (256, 6, 500), (256, 12, 500), (256, 24, 500), (512, 12, 500), (256, 12, 1000), (256, 12, 2000))


def row(n_concepts: int, k: int, steps: int) -> str:
    train, held_out = usae.demo.activations()
    ev = usae.UniversalSAE(n_concepts, k, seed=0).fit(train, steps=steps, progress=False).evaluate(held_out)
    same = np.eye(len(ev.r2), dtype=bool)
    shares = " | ".join(f"{ev.r2[which].mean():.3f}".removeprefix("0") for which in (same, ~same))
    return f"| {n_concepts} | {k} | {steps} | {shares} | {ev.universal().sum()} | {(ev.firing_counts == 0).all(0).sum()} |"


if __name__ == "__main__":
    print("| n_concepts | k | steps | R2 same model | R2 other models | universal concepts | dead in all models |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for choice in CHOICES:
        print(row(*choice))
