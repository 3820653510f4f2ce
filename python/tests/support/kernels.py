"""The instruction sets that the kernels are compiled for, from the table in Package.swift."""

import pathlib
import re

_TABLE = (pathlib.Path(__file__).resolve().parents[3] / "Package.swift").read_text(encoding="utf-8").partition("\n]\n")[0]

INSTRUCTION_SETS = dict(re.findall(r'name: "(\w+)".*?defines: "(.*?)"', _TABLE, re.DOTALL))
"""What the sources of each are told, by its name at run time."""

SCREENING_KERNELS = [name for name, defines in INSTRUCTION_SETS.items() if re.search("VNNI|DOTPROD", defines)]
"""Those that multiply int8 fast, so that encoders screen."""
