"""Metrics that others published, on usae's codes and on those of other libraries: python benchmarks/independent.py.

VISAEBench computes them: localisation, unexplained variance, preservation, sparse probing, monosemanticity, absorption. Its
seventh metric needs downloads. Autoencoders of usae, SAELens, dictionary_learning and overcomplete are trained on the same
tokens, with as many concepts, as many of them in a token, and as many steps, with three seeds; those of libraries are imported
by usae, and all reach VISAEBench as exports. What is trained is kept in --folder, so that a run that was stopped continues.
docs/yardstick.md says what came of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

import environments  # noqa: E402
from report import replace_file  # noqa: E402
from study import yardstick_table  # noqa: E402
from study.labelled import PARTNERS, SIZES, Labelled, load  # noqa: E402
from study.yardstick import LIBRARIES, Autoencoders, Compared, Training  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
METRICS = ROOT / "benchmarks" / "workers" / "independent_metrics.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default=",".join(SIZES), help=f"some of {','.join(SIZES)}")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help=f"some of {','.join(LIBRARIES)}")
    parser.add_argument("--networks", help="some of the networks; all of them are in the universal autoencoder. Default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few crops and steps, to see that it works")
    parser.add_argument("--no-install", action="store_true", help="stop where a library is not installed")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "independent", help="where trained autoencoders are kept"
    )
    options = parser.parse_args()
    training = Training(steps=40, warmup=5) if options.quick else Training()
    install = not options.no_install
    evaluator = environments.python_of("visaebench", install=install)
    pythons = {library: environments.python_of(library, install=install) for library in options.libraries.split(",")}
    worlds, imports = {}, {}
    for title in options.worlds.split(","):
        size = SIZES[title].quick() if options.quick else SIZES[title]
        folder = options.folder / (f"{title}, quick" if options.quick else title)
        world = load(title, size, folder)
        networks = [name for name in world.train if options.networks is None or name in options.networks.split(",")]
        lines = lines_of(Autoencoders(world, size, training, folder, networks), pythons, options.seeds)
        imports |= {f"{library}/{title}": compared for library, compared in imports_of(folder, pythons).items()}
        worlds[title] = {
            "size": dataclasses.asdict(size),
            "labels": {
                what: {value: values.count(value) for value in sorted(set(values))}
                for what, values in (("classes", world.classes), ("kinds", world.kinds))
            },
            "networks": {name: evaluated(world, name, lines[name], evaluator, folder) for name in lines},
        }
    data = {
        "command": f"python benchmarks/independent.py {shlex.join(sys.argv[1:])}".rstrip(),
        "usae": usae.__version__,
        "training": dataclasses.asdict(training),
        "recipes": {"default": dataclasses.asdict(usae.recipes.default(batch_size=training.batch))},
        "seeds": options.seeds,
        "imports": imports,
        "worlds": worlds,
    }
    name = "independent-quick" if options.quick else "independent"
    replace_file(RESULTS / f"{name}.json", json.dumps(data, indent=1) + "\n")
    text = yardstick_table.page(data)
    replace_file(RESULTS / f"{name}.md", text)
    print(text)


def lines_of(autoencoders: Autoencoders, pythons: dict[str, Path], seeds: int) -> dict[str, list[Compared]]:
    """Train what is not trained yet. Returns the lines of each network, in the order of the table."""
    lines: dict[str, list[Compared]] = {name: [] for name in autoencoders.networks}
    found = [line for seed in range(seeds) for line in autoencoders.ours(seed)]
    for library, python in pythons.items():
        found += autoencoders.of_library(library, python, seeds)
    found += [line for seed in range(seeds) for line in autoencoders.others(seed)]
    for name, line in found:
        lines[name].append(line)
    return lines


def imports_of(folder: Path, libraries: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return how all imports of a library differ from it: the worst of each number."""
    result = {}
    for library in libraries:
        found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{library} at *, */import.json"))]
        told = json.loads(next(folder.glob(f"*/{library} at *, */told.json")).read_text())
        result[library] = {key: max(each[key] for each in found) for key in ("codes", "reconstructions")}
        result[library] |= {"same concepts": min(each["same concepts"] for each in found), "autoencoders": len(found)}
        result[library] |= {"version": told["version"], "torch": told["torch"]}
    return result


def evaluated(world: Labelled, name: str, lines: list[Compared], python: Path, folder: Path) -> list[dict[str, Any]]:
    """Let VISAEBench compute what is not computed yet for one network. Returns a record for each line."""
    results = folder / name / "metrics"
    results.mkdir(exist_ok=True)
    jobs = [
        {"what": line.what, "path": str(line.path), "codes": line.codes, "seed": line.seed}
        | {"out": str(results / f"{line.method}, {line.seed}.json")}
        for line in lines
    ]
    work = {
        "held_out": str(folder / f"held_out.{name}.npy"),
        "pool": str(folder / f"pooled.{PARTNERS[name]}.npy"),
        "grid": world.grid,
        "labels": {what: np.unique(getattr(world, what), return_inverse=True)[1].tolist() for what in yardstick_table.LABELS},
        "jobs": [job for line, job in zip(lines, jobs, strict=True) if not is_measured(line, Path(job["out"]))],
    }
    if work["jobs"]:
        file = folder / name / "metrics.json"
        file.write_text(json.dumps(work))
        subprocess.run([python, METRICS, file], check=True)
    return [
        {"method": line.method, "seed": line.seed, "rate": line.rate} | json.loads(Path(job["out"]).read_text())
        for line, job in zip(lines, jobs, strict=True)
    ]


def is_measured(line: Compared, out: Path) -> bool:
    """Whether what was computed is of this autoencoder, and not of one that was there before it was trained again."""
    recipe = line.path and line.path / "recipe.json"
    return out.exists() and not (recipe and recipe.exists() and recipe.stat().st_mtime > out.stat().st_mtime)


if __name__ == "__main__":
    main()
