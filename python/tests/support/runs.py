"""Runs with checkpoints, and how they end."""

import pathlib

import usae
from support.autoencoders import RECIPE
from support.folders import files

STEPS = 30
RECIPES = {
    # As older versions have it.
    "default": RECIPE.replace(dead_tokens=50, agreement=0.0, agreement_scale=None, dictionary_norm="unit"),
    "published": usae.recipes.published(total_steps=STEPS, warmup_steps=4).replace(batch_size=100),
    "matryoshka": usae.recipes.matryoshka(batch_size=128),
    "batchtopk": RECIPE.replace(dead_tokens=50, selection="batchtopk", encoder="batchnorm"),
    "merging": RECIPE.replace(warmup_steps=0, merge_cosine=0.5, merge_every=1),
    "noise": RECIPE.replace(input_noise=0.5, dead_tokens=50),
    "two": RECIPE.replace(
        encoded_models="two", agreement=0.1, same_model_weight=3.0, dead_tokens=50, prefixes=(0.5, 1), prefix_loss="drawn"
    ),
}


class Crash(Exception):
    pass


def crash(at):
    def callback(report):
        if report.step == at:
            raise Crash

    return callback


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def steps_kept(folder):
    return [int(name.removeprefix("step-")) for name in names(folder) if name.startswith("step-")]


def new(recipe="default", **options):
    return usae.UniversalSAE(24, 3, **{"recipe": RECIPES[recipe], "seed": 3} | options)


def saved(sae, folder):
    sae.save(folder, training_state=True)
    return files(folder)


class Counted:
    """Batches that can be gone through again, tell how far one went, and may do something on the way."""

    def __init__(self, acts, at=None, do=None):
        self.acts, self.at, self.do, self.taken = acts, at, do, 0

    def __iter__(self):
        while True:
            self.taken += 1
            if self.taken == self.at:
                self.do()
            yield self.acts
