"""Compares our metrics with those of overcomplete that have the same definition: python benchmarks/metrics.py.

It trains a small autoencoder of three models on synthetic activations and evaluates it with both. It ends with status 1 if a
number differs by more than the rounding of float32, in which overcomplete computes. See README.md.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from environments import python_of  # noqa: E402

TOLERANCE = 2e-5  # relative; sums of float32


def overcomplete_metrics() -> ModuleType:
    """Import the module of metrics alone, because the package imports torchvision."""
    library = python_of("overcomplete").parent.parent / "lib"
    file = next(library.glob("python*/site-packages/overcomplete/metrics.py"))
    spec = importlib.util.spec_from_file_location("overcomplete_metrics", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    theirs = overcomplete_metrics()
    truth = usae.synthetic.universal({"a": 48, "b": 64, "c": 96}, n_tokens=20_000, seed=0)
    sae = usae.UniversalSAE(256, 8, seed=0).fit(truth.acts, steps=200, progress=False)
    other = usae.UniversalSAE(256, 8, seed=1).fit(truth.acts, steps=200, progress=False)
    held_out = truth.sample(5000, 1).acts
    ev = sae.evaluate(held_out)
    consistency = usae.consistency(sae, {name: other.dictionary(name) for name in held_out})
    worst = 0.0

    def compare(what: str, ours: float, reference: float) -> None:
        nonlocal worst
        difference = abs(ours - reference) / max(1.0, abs(reference))
        worst = max(worst, difference)
        print(f"{what:<44} {ours:14.7f} {reference:14.7f} {difference:10.1e}")

    print(f"{'':<44} {'usae':>14} {'overcomplete':>14} {'apart':>10}")
    for i, name in enumerate(sae.model_names_):
        dense = torch.from_numpy(sae.encode(held_out[name], name).to_dense())
        compare(f"l0, {name}", ev.l0[i], float(theirs.l0(dense)) * dense.shape[1])
        compare(f"dead concepts, {name}", ev.dead[i].sum(), float(theirs.dead_codes(dense).sum()))
        energy = theirs.energy_of_codes(dense, torch.from_numpy(sae.dictionary(name)))
        compare(f"energy, sum over concepts, {name}", ev.energy[i].sum(), float((energy.double() ** 2).sum()))
        rows = torch.from_numpy(sae.dictionary(name)), torch.from_numpy(other.dictionary(name))
        compare(f"1 - mean matched cosine, {name}", 1 - consistency[name].mean, theirs.cosine_hungarian_loss(*rows) / 256)
        for j, target in enumerate(sae.model_names_):
            space = sae.parameters(target)
            x = torch.from_numpy((held_out[target] - space["mean"]) / space["scale"])
            x_hat = dense @ torch.from_numpy(sae.dictionary(target))
            compare(f"R2, one mean, {name} -> {target}", ev.r2_scalar_mean[i, j], float(theirs.r2_score(x, x_hat)))
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
