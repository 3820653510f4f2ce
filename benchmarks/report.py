"""Results as JSON and as Markdown tables, with the command, the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from client import OPENBLAS_VARIABLES, ROOT


def machine() -> dict[str, Any]:
    """Describe the computer, without its name."""
    facts: dict[str, Any] = {"system": f"{platform.system()} {platform.release()}", "architecture": platform.machine()}
    facts["processor"] = platform.processor() or platform.machine()
    facts["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
        known = [fields.get(key, "").strip() for key in ("model name", "cpu family", "model", "stepping")]
        facts["processor"] = "{} (family {}, model {}, stepping {})".format(*known)
        interesting = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
        facts["instructions"] = [flag for flag in interesting if flag in fields.get("flags", "").split()]
        lines = Path("/proc/meminfo").read_text().splitlines()
        facts["memory_gib"] = round(int(next(line for line in lines if line.startswith("MemTotal")).split()[1]) / 2**20, 1)
    except (OSError, StopIteration):
        pass
    facts["caches"] = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            facts["caches"][f"L{level}"] = size
    return facts


def revision() -> str:
    """Return the commit that is measured, with + if files have been changed since."""
    try:
        git = ["git", "-C", os.fspath(ROOT)]
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


class Report:
    """One report: tables of text for people, and `data` for programs."""

    def __init__(self, table: str, title: str, threads: int, quick: bool):
        self.table, self.title, self.quick = table, title, quick
        self.sections: list[str] = []
        self.data: dict[str, Any] = {
            "table": table,
            "quick": quick,
            "threads": threads,
            "command": f"python benchmarks/run.py {shlex.join(sys.argv[1:])}",
            "revision": revision(),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "environment": {
                name: os.environ.get(name, "not set") + " (unset for all workers)" * (name in os.environ)
                for name in OPENBLAS_VARIABLES
            },
            "load_before": _load(),
            "versions": {},
            "targets": [],
        }

    def rows(self, heading: list[str], rows: list[list[Any]]) -> None:
        """Add a table. Numbers are written to three significant figures."""
        lines = ["| " + " | ".join(heading) + " |", "|" + "|".join(["---"] + ["---:"] * (len(heading) - 1)) + "|"]
        lines += ["| " + " | ".join(_word(cell) for cell in row) + " |" for row in rows]
        self.sections.append("\n".join(lines))

    def words(self, text: str) -> None:
        """Add a paragraph."""
        self.sections.append(text)

    def target(self, name: str, value: float | None, at_least: float | None = None, at_most: float | None = None) -> None:
        """Add a row to the final table of targets. Quick sizes are too small to be compared with targets."""
        met = None
        if value is not None and not self.quick:
            met = bool((at_least is None or value >= at_least) and (at_most is None or value <= at_most))
        self.data["targets"].append({"name": name, "value": value, "at_least": at_least, "at_most": at_most, "met": met})

    def write(self, folder: Path) -> None:
        """Write the report to `folder`, and print the Markdown."""
        self.data["load_after"] = _load()
        if self.data["targets"]:
            heading = ["target", "asked for", "measured", "met"]
            self.rows(heading, [_target_row(target) for target in self.data["targets"]])
        text = "\n\n".join([f"# {self.title}", *self.sections, self._facts()]) + "\n"
        name = f"{self.table}-quick" if self.quick else self.table
        replace_file(folder / f"{name}.json", json.dumps(self.data, indent=1) + "\n")
        replace_file(folder / f"{name}.md", text)
        print(text)

    def _facts(self) -> str:
        data, computer = self.data, self.data["machine"]
        caches = ", ".join(f"{level} {size}" for level, size in computer["caches"].items())
        lines = [
            f"`{data['command']}`, revision {data['revision']}, {data['date']}",
            f"{computer['processor']}, {computer['cores']} cores, {', '.join(computer.get('instructions', []))}; "
            f"caches {caches}; {computer.get('memory_gib', '?')} GiB; {computer['system']}; {data['threads']} threads",
            "; ".join(f"{name} {setting}" for name, setting in data["environment"].items()),
            f"load average {data['load_before']} before and {data['load_after']} after (more than there are threads means "
            f"that others were using the machine)",
        ]
        if "limits" in data:
            limits = data["limits"]
            n_tokens, width, n_concepts = limits["size"]
            lines.append(
                f"limits: float32 product [{n_tokens}, {width}] x [{width}, {n_concepts}] {limits['product_flops'] / 1e9:.0f} "
                f"GFLOP/s ({limits['fastest']}), copy {limits['copy_bytes'] / 1e9:.1f} GB/s"
            )
        lines += [f"{name}: {_versions(facts)}" for name, facts in data["versions"].items()]
        return "\n".join(f"* {line}" for line in lines)


def _target_row(target: dict[str, Any]) -> list[Any]:
    asked = f"at least {target['at_least']:g}" if target["at_least"] is not None else f"at most {target['at_most']:g}"
    value = "not measured" if target["value"] is None else target["value"]
    return [target["name"], asked, value, {True: "yes", False: "**no**", None: "-"}[target["met"]]]


def _versions(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if isinstance(value, (str, int)))


def _word(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def replace_file(path: Path, text: str) -> None:
    """Replace a file atomically. Its folder is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
