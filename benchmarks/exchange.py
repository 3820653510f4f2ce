"""Holds exports and imports against the libraries themselves: ``python benchmarks/exchange.py [--no-install] [LIBRARY ...]``.

Each library loads what `UniversalSAE.export` wrote for the cases of tools/exchange_table.py, and encodes and decodes; and usae
imports what the library saved of its own. Prints both tables, and writes results/exchange.md. It exits with 1 if a number is
wrong.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import environments
import numpy as np

import usae

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import exchange_table  # noqa: E402

WORKER = ROOT / "benchmarks" / "workers" / "exchange_library.py"
RESULTS = ROOT / "benchmarks" / "results" / "exchange.md"
ENVIRONMENTS = {
    "saelens": "sae_lens",
    "sparsify": "sparsify",
    "visaebench": "visaebench",
    "dictionary_learning": "dictionary_learning",
    "overcomplete": "overcomplete",
}

HEAD = "| library | what | same concepts | codes | reconstructions | |\n|---|---|---:|---:|---:|---|"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=[], metavar="LIBRARY", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--no-install", action="store_true", help="leave out libraries that are not installed")
    options = parser.parse_args()
    ours, theirs, notes, wrong = [], [], [], False
    for format in options.libraries or ENVIRONMENTS:
        try:
            python = environments.python_of(ENVIRONMENTS[format], install=not options.no_install)
        except environments.NotInstalled as reason:
            notes.append(f"{format} could not be asked: {reason}")
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            cases = export(format, folder)
            told = run(python, format, folder)
            notes.append(f"{format} {told['version']} (torch {told['torch']})")
            rows = [compare_export(format, folder, number, case) for number, case in cases]
            imports = [compare_import(format, path) for path in sorted((folder / "theirs").glob("*.npz"))]
        ours += [row for row, _ in rows]
        theirs += [row for row, _ in imports]
        wrong = wrong or any(bad for _, bad in rows + imports)
    text = "\n\n".join(
        [
            "# Exports and imports beside the libraries",
            f"Made by `python benchmarks/exchange.py` with usae {usae.__version__}, {', '.join(notes)}. Differences are the "
            "largest of tokens with the same concepts, as shares of the largest code and activation.",
            "## Exports of usae, loaded by the library\n\n" + "\n".join([HEAD, *ours]),
            "## Saves of the library, imported by usae\n\n" + "\n".join([HEAD, *theirs]),
        ]
    )
    print(text)
    if not options.libraries:
        RESULTS.write_text(text + "\n", encoding="utf-8")
    return int(wrong)


def export(format: str, folder: pathlib.Path) -> list[tuple[int, exchange_table.Case]]:
    """Write each case that the format can hold, and the list of jobs. Returns the cases."""
    cases, jobs = [], []
    for number, case in enumerate(exchange_table.CASES):
        path = folder / str(number)
        try:
            exchange_table.trained(case).export(path, format, model="a", target=case.target, unit_rows=case.unit_rows)
        except usae.InvalidInputError:
            continue
        np.save(folder / f"{number}.x.npy", exchange_table.activations(case.one_width)["a"])
        jobs.append({"path": str(path), "x": str(folder / f"{number}.x.npy"), "out": str(folder / f"{number}.npz")})
        cases.append((number, case))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    return cases


def run(python: pathlib.Path, format: str, folder: pathlib.Path) -> dict:
    done = subprocess.run([python, WORKER, format, folder], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{format}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare_export(format: str, folder: pathlib.Path, number: int, case: exchange_table.Case) -> tuple[str, bool]:
    sae, target = exchange_table.trained(case), case.target or "a"
    with np.load(folder / f"{number}.npz") as found:
        scaled = case.unit_rows and format != "overcomplete"
        x = np.load(folder / f"{number}.x.npy")
        result = exchange_table.compared(sae, x, "a", target, found["codes"], found["values"], scaled)
    return row(format, case.title, result.rows, result.codes, result.values, result.words)


def compare_import(format: str, file: pathlib.Path) -> tuple[str, bool]:
    path = file.with_suffix("")
    with np.load(file) as found:
        x, codes, values = found["x"], found["codes"], found["values"]
    sae = usae.import_sae(path / "state.pt" if format == "overcomplete" else path, k=4)
    names = sae.model_names_
    own = sae.encode(x, names[0])
    dense = own.to_dense()
    differs = (dense > 0) != (codes > 0)
    same = ~(differs & (np.maximum(dense, codes) > 1e-6 * codes.max())).any(1)  # a ReLU of what rounds to 0
    factor = 1.0
    if np.abs(dense - codes)[same].max() > 1e-4 * codes.max():  # codes times norms of rows, where these differ
        factor = dense.max(0) / np.maximum(codes.max(0), 1e-20)
    difference = float(np.abs(dense - codes * factor)[same].max() / dense.max())
    decoded = float(np.abs(sae.decode(own, names[-1]) - values)[same].max() / np.abs(values).max())
    good = same.all() and max(difference, decoded) < 1e-5
    words = ("exact" if np.ndim(factor) == 0 else "exact, codes times norms") if good else "wrong"
    return row(format, path.name, float(same.mean()), difference, decoded, words)


def row(format: str, what: str, rows: float, codes: float, values: float, words: str) -> tuple[str, bool]:
    return f"| {format} | {what} | {rows:.4f} | {codes:.0e} | {values:.0e} | {words} |", not words.startswith("exact")


if __name__ == "__main__":
    sys.exit(main())
