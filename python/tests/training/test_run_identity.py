"""Another run than the one in the folder is refused."""

import numpy as np
import pytest

import usae
from support.refusals import refuses
from support.runs import RECIPES, STEPS, Crash, crash, names, new

CHANGES = {
    "seed": (lambda sae, acts, options: sae.set_params(seed=4), "seed", "4"),
    "n_concepts": (lambda sae, acts, options: sae.set_params(n_concepts=25), "n_concepts", "25"),
    "k": (lambda sae, acts, options: sae.set_params(k=2), "k", "2"),
    "recipe": (
        lambda sae, acts, options: sae.set_params(recipe=RECIPES["default"].replace(beta1=0.8)),
        "recipe.beta1",
        "0.8",
    ),
    "steps": (lambda sae, acts, options: options.update(steps=31), "steps", "31"),
    "a model's name": (
        lambda sae, acts, options: acts.update(clip=acts.pop("vit")),
        "models",
        "['dinov2', 'siglip', 'clip']",
    ),
    "order of models": (
        lambda sae, acts, options: acts.update(dinov2=acts.pop("dinov2")),
        "models",
        "['siglip', 'vit', 'dinov2']",
    ),
    "rows": (
        lambda sae, acts, options: acts.update({name: x[1:] for name, x in acts.items()}),
        "acts['dinov2']: rows",
        "599",
    ),
    "columns": (lambda sae, acts, options: acts.update(vit=acts["vit"][:, 1:]), "acts['vit']: columns", "16"),
    "elements": (
        lambda sae, acts, options: acts.update(vit=acts["vit"].astype(np.float64)),
        "acts['vit']: elements",
        "'float64'",
    ),
    "values": (lambda sae, acts, options: acts.update(vit=2 * acts["vit"]), "acts['vit']: values of rows", ""),
    "validation": (lambda sae, acts, options: options.pop("validation"), "validation", "'not given'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_run_is_refused_by_its_first_difference_and_nothing_changes(acts, held_out, tmp_path, change):
    acts, options = dict(acts), {"steps": STEPS, "validation": dict(held_out), "checkpoint": tmp_path / "run"}
    with pytest.raises(Crash):
        new().fit(acts, callbacks=[crash(5)], **options)
    before = names(tmp_path / "run")
    sae, (make, argument, got) = new(), CHANGES[change]
    make(sae, acts, options)
    if "validation" in options:  # of the same models
        options["validation"] = {name: held_out.get(name, held_out["vit"])[:, : x.shape[1]] for name, x in acts.items()}
    with refuses(f"resume: {argument}", got) as caught:
        sae.fit(acts, resume=True, **options)
    assert str(tmp_path / "run") in str(caught.value)
    assert names(tmp_path / "run") == before and not hasattr(sae, "history_")


def test_a_store_of_other_files_is_refused(acts, tmp_path):
    stores = {}
    for factor in (1, 2):
        with usae.ActivationStore.create(tmp_path / str(factor), dtype="float32") as stores[factor]:
            stores[factor].append({name: factor * x for name, x in acts.items()})
    new().fit(stores[1], steps=5, checkpoint=tmp_path / "run")
    for other, argument in (
        (stores[2], "resume: acts['dinov2']: files"),
        (acts, "resume: acts['dinov2']: values of rows"),
    ):
        with refuses(argument):
            new().fit(other, steps=5, checkpoint=tmp_path / "run", resume=True)


def test_a_stream_that_begins_otherwise_is_refused_and_so_is_another_method_or_buffer(acts, tmp_path):
    stream = [acts]
    new().fit_stream(stream, steps=5, buffer_tokens=200, checkpoint=tmp_path / "run")
    other = [{name: x[::-1] for name, x in acts.items()}]
    options = {"steps": 5, "checkpoint": tmp_path / "run", "resume": True}
    with refuses("resume: batches[0]['dinov2']: values of first rows"):
        new().fit_stream(other, buffer_tokens=200, **options)
    with refuses("resume: batches[0]['dinov2']: first rows", "600"):
        new().fit_stream(stream, buffer_tokens=200_000, **options)
    with refuses("resume: method", "'fit'"):
        new().fit(acts, **options)
