"""Print the table of docs/install.md: what an empty environment downloads, and how long it takes until the tutorial has run.

make wheel && python tools/measure_install.py dist/usae-*.whl
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import environments


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the Python of the environment")
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        downloads, script = folder / "downloads", environments.tutorial(folder)
        begin = time.perf_counter()
        python = environments.create(arguments.python, folder / "environment")
        made = time.perf_counter() - begin
        command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--only-binary", ":all:"]
        command += ["--no-cache-dir", "--dest", downloads, f"{wheel}[plot]"]
        downloaded = seconds(lambda: subprocess.run(command, check=True))
        offline = ["--no-index", "--find-links", str(downloads)]
        installed = seconds(lambda: environments.install(python, [f"{wheel}[plot]"], *offline))
        clean = {"HOME": temporary, "PATH": os.defpath, "MPLBACKEND": "agg"}
        ran = seconds(
            lambda: subprocess.run([python, "-I", script], check=True, cwd=folder, env=clean, stdout=subprocess.DEVNULL)
        )
        sizes = {file.name: file.stat().st_size / 1e6 for file in downloads.iterdir()}

    print("| step | seconds | size |")
    print("|---|---:|---|")
    print(f"| new environment | {made:.0f} | |")
    print(f"| downloads, {len(sizes)} wheels | {downloaded:.0f} | {sum(sizes.values()):.0f} MB |")
    print(f"| installing them without a network | {installed:.0f} | |")
    print(f"| the tutorial as a script | {ran:.0f} | |")
    largest = sorted(sizes, key=lambda name: -sizes[name])[:6]
    print("\nThe largest: " + ", ".join(f"{name.split('-')[0]} {sizes[name]:.0f} MB" for name in largest) + ".")


if __name__ == "__main__":
    main()
