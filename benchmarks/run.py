"""Measures one table: python benchmarks/run.py {step,single,encode,limits,scaling,distributed} [--quick]. See README.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import environments  # noqa: E402
from report import Report  # noqa: E402
from settings import Run  # noqa: E402

TABLES = ("step", "single", "encode", "limits", "scaling", "distributed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that it works; the numbers mean nothing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    known = ",".join(environments.REQUIREMENTS)
    parser.add_argument("--rivals", default=known, help=f"rivals of single and encode, some of {known}, or nothing")
    parser.add_argument("--no-install", action="store_true", help="skip rivals whose environment does not exist yet")
    arguments = parser.parse_args()
    rivals = [name for name in arguments.rivals.split(",") if name]
    for name in rivals:
        if name not in environments.REQUIREMENTS:
            parser.error(f"--rivals: unknown {name!r}; there are {known}")
    table = importlib.import_module(f"tables.{arguments.table}")
    report = Report(arguments.table, table.TITLE, arguments.threads, arguments.quick)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(arguments.quick, arguments.threads, Path(folder), rivals, not arguments.no_install)
        table.measure(run, report)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
