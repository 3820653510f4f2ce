"""Runs the command ``usae`` with hostile arguments and files: ``python python/fuzz/cli.py --seed 0 --cases 2000``.

A command that cannot do what it is asked ends with the exit code 2 and one line on stderr, never with a traceback. Cases run in
a child process with 2 GB of memory. The last line has the counts; the exit code is 1 if there was a fault.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pathlib
import random
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator

import arguments as command_line
import numpy as np
from processes import Case

MODELS = {"a": 5, "b": 6}


def cases_of(seed: int, first: int, last: int) -> Iterator[Case]:
    """Give cases: commands that follow from the seed and the number."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder)
        os.chdir(folder)
        sys.path.insert(0, name)
        for number in range(first, last):
            given = command(folder, random.Random(seed * 1_000_003 + number), number)
            yield number, " ".join(map(repr, given))[:400], functools.partial(case, given)


def prepare(folder: pathlib.Path) -> None:
    """Make activations, a store, an autoencoder, and files that are none of these."""
    import usae

    rng = np.random.default_rng(0)
    acts = {name: rng.standard_normal((40, width)).astype(np.float32) for name, width in MODELS.items()}
    for name, x in acts.items():
        np.save(folder / f"{name}.npy", x)
    recipe = usae.recipes.default(batch_size=16)
    sae = usae.UniversalSAE(8, 2, recipe=recipe).fit(acts, steps=2, progress=False)
    sae.save(folder / "model")
    sae.export(folder / "exported", "saelens", model="a")
    with usae.ActivationStore.create(folder / "store", grid=(2, 2), dtype="float32") as store:
        store.append({name: x.reshape(10, 4, -1) for name, x in acts.items()}, [f"{i}.png" for i in range(10)])
    (folder / "pictures").mkdir()
    (folder / "empty").mkdir()
    (folder / "pictures" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    whole = (folder / "a.npy").read_bytes()
    headers = [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 5)}", b"{'descr': 'O', 'shape': (1,)}",
        b"[" * 100,
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5)}",
        b"{'descr': [('a', '<f4')], 'fortran_order': 0, 'shape': ()}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5)}", b"__import__('os').abort()",
    ]  # fmt: skip
    bad = [b"", b"\x93NUMPY", b"PK\x03\x04", whole[:100], whole[:-7], b"\0" * 64, b"\x80\x04.", *(
        b"\x93NUMPY\x01\x00" + len(header.ljust(117) + b"\n").to_bytes(2, "little") + header.ljust(117) + b"\n" + bytes(40)
        for header in headers
    )]  # fmt: skip
    for number, content in enumerate(bad):
        (folder / f"bad{number}.npy").write_bytes(content)
    np.save(folder / "nan.npy", np.full((40, 5), np.nan, np.float32))
    np.save(folder / "text.npy", np.array([["a"]]))
    np.savez(folder / "several.npz", a=acts["a"], b=acts["b"])
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "usae.json").write_text('{"format": "usae"}')
    tables = ["", "[train]\n", "[train]\nacts = 'store'\noutput = 'from-file'\nsteps = 2\n", "[train\n", "\xff",
    "[train]\nsteps = []\n",
              "[train]\nacts = { a = 1 }\n", "[evaluate]\nmodel = 3\n", "[train]\nk = 1e400\n",
              "x = " + "[" * 3000]  # fmt: skip
    for number, text in enumerate(tables):
        (folder / f"run{number}.toml").write_bytes(text.encode("latin-1"))
    (folder / "networks.py").write_text(
        "import torch\ndef raises(): raise KeyError('x')\ndef leaves(): raise SystemExit\ndef number(): return 1\n"
        "class Odd(torch.nn.Module):\n    def forward(self, x): raise RuntimeError('a\\nb')\n"
    )


PLACES = [
    "", " ", ".", "..", "/", "/dev/null", "/dev/full", "/proc/self/mem", "nowhere", "nowhere/new", "a.npy/new", "empty",
    "model",
    "exported",
    "store", "pictures", "pipe", "dangling", "loop", "damaged", "several.npz", "caf\udce9", "x" * 300, "a\nb", "\x1b[2J",
    "a\0b",
    "nan.npy", "text.npy", *(f"bad{i}.npy" for i in range(14)), *(f"run{i}.toml" for i in range(10)),
]  # fmt: skip
WORDS = ["", "0", "-1", "1e400", "nan", "inf", "none", "1/0", "1,0", "9" * 400, "0x10", "true", "--", "-", "\udcff", "a=b",
"=", "\N{SNOWMAN}",
         "99999999999", "1.5", "default", "published"]  # fmt: skip
NETWORKS = ["demo", "a=timm:", "a=timm:nothing", "a=torchvision:nothing", "a=networks:raises", "a=networks:leaves",
"a=networks:number",
            "a=networks:Odd", "a=nowhere:x", "a=..:x", "a=os:getcwd", "a", "=x", "a=networks:", "a=\udcff:x"]  # fmt: skip


def command(folder: pathlib.Path, draw: random.Random, number: int) -> list[str]:
    """Return a command whose arguments were good before some of them were changed."""
    new = f"new{number}"
    good: dict[str, Callable[[], list[str]]] = {
        "train": lambda: ["--acts", "a=a.npy", "b=b.npy", "--output", new, "--n-concepts", "8", "--k", "2", "--steps", "2",
                          "--batch-size", "16"],
        "evaluate": lambda: ["--model", "model", "--acts", "a=a.npy", "b=b.npy", "--output", new],
        "extract": lambda: ["--images", "pictures", "--network", draw.choice(NETWORKS), "--output", new, "--grid", "2x2"],
        "maximize": lambda: ["--model", "model", "--concept", "1", "--network", draw.choice(NETWORKS), "--output", new,
        "--steps",
                             "1", "--views", "1"],
        "controls": lambda: ["--model", "model", "--acts", "a=a.npy", "b=b.npy", "--include", "tokens"],
        "consistency": lambda: ["--model", "model", "--other", draw.choice(["model", "a=model"]), "--threshold", "0.5"],
        "top-examples": lambda: ["--model", "model", "--acts", "store", "--concept", "1", "--n", "2", "--output", f"{new}.npz"],
        "explore": lambda: ["--model", "model", "--acts", "store", "--output", new, "--examples", "2"],
        "completion": lambda: ["bash"],
        "export": lambda: ["--model", "model", "--format", "saelens", "--encoder", "a", "--output", new],
        "import": lambda: ["--input", "exported", "--output", new],
        "info": lambda: ["--json"],
        "demo": lambda: ["--output", new, "--seed", "-1"],
    }  # fmt: skip
    name = draw.choice([*good, "train", "train", "evaluate"])
    arguments = good[name]()
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        place = draw.randrange(len(arguments)) if arguments else 0
        hostile = draw.choice([draw.choice(PLACES), f"a={draw.choice(PLACES)}", draw.choice(WORDS)])
        how = draw.randrange(6)
        if how < 3 and arguments and not arguments[place].startswith("--"):
            arguments[place] = hostile
        elif how == 3 and arguments:
            del arguments[place]
        elif how == 4:
            arguments += [draw.choice(FLAGS), hostile]
        else:
            arguments.insert(place, hostile)
    asks_for_hours = {"--total-steps", "--epochs", "--steps", "--threads", "--seeds", "--canvas", "--n-concepts", "--views"}
    for i, argument in enumerate(arguments[:-1]):
        if argument in asks_for_hours and arguments[i + 1] == "99999999999":
            arguments[i + 1] = "-5"
    return [name, *arguments]


FLAGS = [
    "--acts", "--validation", "--checkpoint", "--resume", "--checkpoint-minutes", "--config", "--json", "--recipe", "--name",
    "--prefixes", "--merge-cosine", "--learning-rate", "--threshold", "--layer", "--device", "--dtype", "--crop", "--images",
    "--joint",
    "--seeds", "--canvas", "--threads", "--seed", "--warmup-steps", "--total-steps", "--epochs", "--selection",
    "--shard-images",
    "--no-renormalize", "--help", "--version", "--nothing", "-h", "-x",
]  # fmt: skip


PROGRESS = re.compile(r"[a-z ]+: [a-z]+ [\d,]+( of [\d,]+)?, ")
"""A line of progress, such as "training: step 1 of 2, ..."."""


def case(arguments: list[str]) -> tuple[str, str]:
    """Run a command in this process. Returns "ok", "refused" or "fault", and words."""
    from usae import cli

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: object = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = "; ".join(f"{pathlib.Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:])
        return "fault", f"{type(error).__name__}: {str(error)[:200]!r} at {place}"
    lines = [line for line in err.getvalue().split("\n")[:-1] if not PROGRESS.match(line)]
    if code == 0:
        return "ok", ""
    if code != 2:
        return "fault", f"exit code {code}"
    if len(lines) != 1 or not lines[0].startswith("usae") or not lines[0].isprintable():
        return "fault", f"{len(lines)} lines on stderr: {err.getvalue()[:300]!r}"
    return "refused", ""


if __name__ == "__main__":
    sys.exit(command_line.main(__file__, __doc__, cases_of))
