import dataclasses
import fractions
import json
import typing

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import usae
from support.refusals import refuses
from usae import Recipe
from usae._core import resolved_recipe

FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
CHOICES = {
    name: typing.get_args(kind)
    for name, kind in typing.get_type_hints(Recipe).items()
    if typing.get_origin(kind) is typing.Literal
}


@st.composite
def recipes(draw):
    positive = st.floats(1e-12, 1)
    share = st.floats(0, 1, exclude_min=True)
    warmup = draw(st.integers(0, 10**6))
    numbers = {
        "name": st.text(max_size=5),
        "scale_epsilon": st.floats(0, 1),
        "statistics_tokens": st.none() | st.integers(1, 2**53),
        "aux_k": st.none() | st.integers(1, 10**6),
        "k_max": st.none() | st.integers(2, 10**6),
        "dead_share": share,
        "dead_tokens": st.none() | st.integers(0, 2**53),
        "batch_size": st.integers(1, 2**24),
        "learning_rate": st.none() | positive,
        "step_limit": st.none() | positive,
        "warmup_steps": st.just(warmup),
        "total_steps": st.none() | st.integers(max(warmup, 1), 2**53),
        "decay_share": st.floats(0, 1),
        "beta2": st.floats(0, 0.9999999),
        "epsilon": positive,
        "clip_norm": st.none() | positive,
        "merge_cosine": st.none() | share,
        "merge_every": st.integers(1, 2**53),
        "renormalize": st.booleans(),
        "aux_detach": st.booleans(),
        "prefixes": st.none() | st.sets(st.integers(1, 7)).map(lambda eighths: (*(n / 8 for n in sorted(eighths)), 1.0)),
    }
    choices = {name: st.sampled_from(values) for name, values in CHOICES.items()}
    return Recipe(**{name: draw(values) for name, values in (numbers | choices).items()})


@hypothesis.given(recipes())
def test_every_recipe_survives_json_bit_by_bit(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@hypothesis.given(recipes())
def test_the_core_takes_every_recipe(recipe):
    sae = usae.UniversalSAE(8, 2, recipe=recipe).initialize({"a": 3, "b": 5})
    derived = {field: getattr(sae.recipe_, field) for field in ("dead_tokens", "input_noise", "learning_rate", "step_limit")}
    assert sae.recipe_ == recipe.replace(**derived)
    given = {field: value for field in derived if (value := getattr(recipe, field)) is not None}
    assert given.items() <= derived.items()


def test_an_unknown_field_is_refused_and_the_right_one_suggested():
    for make in (Recipe.from_dict, lambda fields: Recipe().replace(**fields), lambda f: Recipe.from_json(json.dumps(f))):
        with refuses("recipe", remedy="'learning_rate'"):
            make({"learning_rat": 1e-3})


def test_text_that_is_no_json_object_is_refused():
    for text in ("", "{", "[]", "3", "nul", "[" * 100_000):
        with refuses("fields" if text in ("[]", "3") else "text"):
            Recipe.from_json(text)


@pytest.mark.parametrize("text", [3, None, {"k": 1}, ["{}"]])
def test_what_is_no_text_is_refused_as_json(text):
    with refuses("text", type(text).__name__, remedy="from_dict"):
        Recipe.from_json(text)


def test_json_that_readers_disagree_about_is_refused():
    with refuses("text", "text that is not JSON: the key 'loss'"):
        Recipe.from_json('{"loss": "l1", "loss": "mse"}')
    with refuses("text", "text that is not JSON: NaN is not JSON"):
        Recipe.from_json(b'{"epsilon": NaN}')


def test_a_recipe_cannot_be_changed_and_takes_no_positional_arguments():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().learning_rate = 1.0
    with pytest.raises(TypeError):
        Recipe("linear")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 3),
        ("encoder", "Linear"),
        ("encoder", 1),
        ("loss", None),
        ("update", ["all"]),
        ("renormalize", 1),
        ("aux_detach", "yes"),
        ("selection", "batch_topk"),
        ("k_max", 0),
        ("k_max", 2.0),
        ("scale_epsilon", -1e-9),
        ("scale_epsilon", float("nan")),
        ("statistics_tokens", 0),
        ("aux_k", 0),
        ("aux_k", 2.0),
        ("aux_coefficient", float("inf")),
        ("aux_coefficient", None),
        ("dead_share", 0),
        ("dead_share", 1.5),
        ("dead_tokens", -1),
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 2**24 + 1),
        ("batch_size", "2048"),
        ("learning_rate", -1e-3),
        ("learning_rate", "1e-3"),
        ("learning_rate", 10**400),
        ("warmup_steps", -1),
        ("warmup_steps", 1.5),
        ("total_steps", 0),
        ("decay_share", -0.1),
        ("beta1", 1.0),
        ("epsilon", -1e-8),
        ("weight_decay", 1j),
        ("clip_norm", 0.0),
        ("merge_cosine", 0.0),
        ("merge_cosine", 1.01),
        ("merge_every", 0),
        ("prefixes", ()),
        ("prefixes", 1.0),
        ("prefixes", (0.25, 0.5)),
        ("prefixes", (0.5, 0.25, 1)),
        ("prefixes", (0.25, 0.25, 1)),
        ("prefixes", (0, 1)),
        ("prefixes", (float("nan"), 1)),
        ("prefixes", ("0.5", 1)),
        ("prefixes", "1"),
        ("prefixes", [n / 17 for n in range(1, 18)]),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(field, value):
    with refuses(f"recipe: {field}", repr(value)):
        Recipe(**{field: value})


def test_a_warm_up_longer_than_the_run_is_refused():
    with refuses("recipe: warmup_steps", "20"):
        Recipe(warmup_steps=20, total_steps=10)


def test_fewer_for_a_token_than_for_all_on_average_are_refused():
    recipe = Recipe(selection="batchtopk", k_max=3)
    with refuses("recipe: k_max", "3"):
        usae.UniversalSAE(100, 4, recipe=recipe).initialize({"a": 3})
    usae.UniversalSAE(100, 4, recipe=recipe.replace(selection="topk")).initialize({"a": 3})


def test_prefixes_that_come_to_the_same_number_of_concepts_count_once():
    recipe = Recipe(prefixes=[0.5, 0.51, 1])  # a list, as JSON has it
    assert recipe.prefixes == (0.5, 0.51, 1.0)
    batch = {"a": np.random.default_rng(0).standard_normal((6, 3))}
    for n_concepts, expected in ((100, {50, 51, 100}), (10, {5, 10}), (1, {1})):
        sae = usae.UniversalSAE(n_concepts, 1, recipe=recipe).initialize({"a": 3})
        assert {sae.partial_fit(batch).prefix for _ in range(30)} == expected


def test_numbers_of_numpy_become_plain_ones():
    recipe = Recipe(batch_size=np.int64(64), learning_rate=np.float32(0.5), renormalize=np.bool_(False), dead_share=1)
    assert [type(recipe.to_dict()[name]) for name in ("batch_size", "learning_rate", "renormalize", "dead_share")] == [
        int,
        float,
        bool,
        float,
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint64, fractions.Fraction])
def test_numbers_of_every_type_are_compared_without_a_warning(trained, held_out, kind):
    assert usae.recipes.default(clip_norm=kind(1)).clip_norm == 1.0
    assert Recipe(learning_rate=kind(0)).learning_rate == 0.0
    assert fitted_recipe(epochs=kind(30)) == fitted_recipe(epochs=30.0)
    assert trained.evaluate(held_out, threshold=kind(1)).to_dict() == trained.evaluate(held_out, threshold=1.0).to_dict()
    if issubclass(kind, np.floating):
        for value in (kind("nan"), kind("inf"), kind(-1)):
            with refuses("recipe: clip_norm"):
                Recipe(clip_norm=value)
            with refuses("threshold"):
                trained.evaluate(held_out, threshold=value)
    elif issubclass(kind, np.integer):
        assert Recipe(batch_size=kind(7)).batch_size == 7


def test_numbers_too_large_for_a_float_are_refused(trained, held_out):
    for value in (10**400, -(10**400), fractions.Fraction(10**400)):
        with refuses("threshold"):
            trained.evaluate(held_out, threshold=value)
        with refuses("recipe: clip_norm"):
            Recipe(clip_norm=value)
    with refuses("recipe: dead_tokens", "9007199254740993"):
        Recipe(dead_tokens=2**53 + 1)  # which is 2**53 as a float


def test_the_published_recipe_is_that_of_the_published_code():
    # METHOD.md section 1: 30 epochs of ImageNet (1,281,167 images, 32 in a batch), one of them warm-up.
    recipe = usae.recipes.published()
    steps_per_epoch = -(-1_281_167 // 32)
    assert (recipe.total_steps, recipe.warmup_steps) == (30 * steps_per_epoch, steps_per_epoch)
    assert recipe.batch_size == 32 * 196
    assert recipe.statistics_tokens == 1000 * 196
    assert (recipe.encoder, recipe.loss, recipe.update, recipe.clock) == ("batchnorm", "l1", "encoder", "model")
    assert (recipe.aux, recipe.aux_coefficient, recipe.aux_scale, recipe.aux_detach) == ("unchosen", 0.1, "none", False)
    assert (recipe.learning_rate, recipe.warmup_learning_rate, recipe.final_learning_rate) == (3e-4, 1e-6, 1e-6)
    assert (recipe.weight_decay, recipe.clip_norm, recipe.schedule) == (1e-5, 1.0, "cosine")
    short = usae.recipes.published(total_steps=200, warmup_steps=20)
    assert short == recipe.replace(total_steps=200, warmup_steps=20)
    assert usae.recipes.published(total_steps=300).warmup_steps == 10


def test_the_default_recipe_can_be_varied():
    assert usae.recipes.default() == Recipe()
    assert usae.recipes.default(batch_size=7) == Recipe(batch_size=7)


DEFAULT = Recipe()


def fitted_recipe(recipe=DEFAULT, n_models=3, n_tokens=100_000, epochs=None, steps=None):
    return resolved_recipe.resolved_for_fit(recipe, n_models, [(n_models, n_tokens)], epochs, steps)


def test_fit_without_a_length_does_one_epoch_but_at_least_a_thousand_steps():
    one = Recipe(encoded_models="one")
    assert fitted_recipe(one, n_tokens=2048 * 1500 + 1).total_steps == 1501
    assert fitted_recipe(one, n_tokens=2048 * 10).total_steps == 1000
    assert fitted_recipe(n_tokens=2048 * 1500 + 1).total_steps == 3001  # of 2,048 encodings by two models
    assert fitted_recipe(n_tokens=2048 * 1500 + 1, n_models=1).total_steps == 1501


def test_epochs_are_rounded_up_to_whole_batches():
    recipe = Recipe(batch_size=100, encoded_models="one")
    assert fitted_recipe(recipe, n_tokens=1001, epochs=2).total_steps == 22
    assert fitted_recipe(recipe, n_tokens=1000, epochs=0.5).total_steps == 5
    assert fitted_recipe(recipe, n_tokens=1000, epochs=1e-9).total_steps == 1


def test_fewer_rows_than_a_batch_make_a_batch_of_all_rows():
    recipe = fitted_recipe(Recipe(encoded_models="one"), n_tokens=77, epochs=3)
    assert (recipe.batch_size, recipe.total_steps) == (77, 3)
    recipe = fitted_recipe(n_tokens=77, epochs=3)
    assert (recipe.batch_size, recipe.total_steps) == (2 * 77, 3)


def test_the_warm_up_takes_at_most_a_tenth_of_a_run_whose_length_the_recipe_leaves_open():
    assert fitted_recipe(steps=200).warmup_steps == 20
    assert fitted_recipe(steps=5000).warmup_steps == 100
    assert fitted_recipe(Recipe(total_steps=200)).warmup_steps == 100


def test_a_concept_is_dead_after_its_share_of_the_tokens_that_one_model_is_planned_to_encode():
    assert fitted_recipe(steps=3000).dead_tokens == round(0.05 * 3000 * 2048 / 3)
    assert fitted_recipe(Recipe(dead_tokens=5), steps=3000).dead_tokens == 5
    assert fitted_recipe(Recipe(dead_share=1e-9), steps=1).dead_tokens == 1  # 0 would mean never
    assert resolved_recipe.resolved(Recipe(), 3).dead_tokens == 1_000_000


def test_a_learning_rate_that_is_not_given_is_derived():
    """The core then gives each model the rate min(learning_rate, step_limit sqrt(effective dimensions) / width)."""

    def derived(**fields):
        recipe = fitted_recipe(Recipe(**fields))
        return recipe.learning_rate, recipe.step_limit

    assert derived() == derived(prefixes=None, prefix_loss="mean") == (7e-3, 0.15)
    assert derived(prefix_loss="mean") == (5e-3, 0.15)
    assert derived(step_limit=0.5) == (7e-3, 0.5)
    assert derived(learning_rate=1e-3) == (1e-3, None)  # that is the rate of every model
    assert derived(learning_rate=1e-3, step_limit=0.5) == (1e-3, 0.5)
    assert fitted_recipe(usae.recipes.published(total_steps=100)).step_limit is None


def test_lengths_that_contradict_each_other_are_refused():
    planned = Recipe(total_steps=500, encoded_models="one")
    assert fitted_recipe(planned).total_steps == 500
    assert fitted_recipe(planned, steps=500) == fitted_recipe(planned)
    with refuses("steps", "400"):
        fitted_recipe(planned, steps=400)
    with refuses("steps", "49"):
        fitted_recipe(planned, epochs=1)
    with refuses("epochs", "epochs=1 and steps=1"):
        fitted_recipe(epochs=1, steps=1)


@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan"), float("inf")])
def test_a_length_that_is_no_positive_number_is_refused(value):
    with refuses("epochs"):
        fitted_recipe(epochs=value)
    with refuses("steps"):
        fitted_recipe(steps=value)


def test_the_recipes_that_ship_are_what_their_names_say():
    assert usae.recipes.default().merge_cosine == 0.8
    assert usae.recipes.published().merge_cosine is None  # the published code merges nothing
    nested = usae.recipes.matryoshka(batch_size=7)
    assert nested == Recipe(name="matryoshka", prefix_loss="mean", batch_size=7)
    assert usae.recipes.agreeing(batch_size=7) == Recipe(name="agreeing", agreement=0.3, batch_size=7)
    assert nested.prefixes == usae.recipes.default().prefixes == (0.25, 0.5, 0.75, 1)
    assert usae.recipes.published().prefixes is None
    published = usae.recipes.published()
    assert (published.encoded_models, published.agreement, published.dictionary_norm) == ("one", 0.0, "unit")
