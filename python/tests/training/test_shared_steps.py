"""Steps that several autoencoders share, in one process and without torch: what is told to whom, and what comes of it."""

import numpy as np
import pytest

from support.autoencoders import everything, planted
from support.gangs import RECIPES, Gang, copies, parts, share, state
from support.refusals import refuses
from usae._core.autoencoder import Autoencoder
from usae._training import shared_steps

pytestmark = pytest.mark.slow

CROSSES = {
    "default": set(),
    "unit rows": set(),
    "dead": {"residual means", "spreads"},
    "merging": {"tokens of merged duplicates"},
    "published": {"means", "covariance"},
    "batchtopk": {"upper halves", "lower halves", "ties", "residual means", "spreads"},
    "two": {"residual means", "spreads"},
    "all": {"means", "covariance", "upper halves", "lower halves", "ties", "residual means", "spreads"},
    "noise": {"means", "covariance"},
    "two published": {"means", "covariance"},
}
"""Besides gradients and the summary."""


def test_a_shared_step_that_nobody_recorded_is_in_the_history_all_the_same(monkeypatch):
    """As where Ctrl-C comes when it is done; here nobody records any."""
    saes = copies(RECIPES["default"], 2)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(Autoencoder, "recorded", Autoencoder.report)
            share(saes, parts(planted(200, seed=99), [120, 80]))
    for sae in saes:
        assert [entry["step"] for entry in sae.history_] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("encoder", [0, 1, 2])
def test_a_shared_step_is_a_step_on_the_rows_of_all(name, encoder):
    *saes, single = copies(RECIPES[name], 4)
    batch = planted(200, seed=99)
    _, gradients = single.gradients(batch, encoder=single.model_names_[encoder])
    outcomes = share(saes, parts(batch), encoder)
    expected = single.partial_fit(batch, encoder=single.model_names_[encoder])

    (report, exchanged), peers = outcomes[0]
    assert report.encoder == expected.encoder and report.step == expected.step == 3
    assert report.encoders == expected.encoders
    assert report.dead == expected.dead and (name not in ("dead", "batchtopk", "two", "all") or report.dead > 0)
    assert report.agreement == pytest.approx(expected.agreement, rel=1e-5)
    assert report.own_losses == pytest.approx(expected.own_losses, rel=1e-5)
    assert report.loss == pytest.approx(expected.loss, rel=1e-6) and report.l0 == pytest.approx(expected.l0, rel=1e-6)
    assert report.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5, nan_ok=True)
    for (other, _), _ in outcomes[1:]:
        assert (other.loss, other.l0, other.losses) == (report.loss, report.l0, report.losses)

    kinds = set(exchanged.names) - {n for n in exchanged.names if n.startswith("gradient")}
    assert kinds == {"summary"} | CROSSES[name]
    sums = peers.added[-len(exchanged.names) :]
    seen = 0
    for what, total in zip(exchanged.names, sums, strict=True):
        if what.startswith("gradient"):
            tensor, model = what.removeprefix("gradient of ").split(" of ")
            wanted = gradients[model][tensor].ravel()
            assert np.linalg.norm(total - wanted) < 1e-5 * np.linalg.norm(wanted), what
            seen += 1
    n = len(report.encoders)
    assert seen == n + (n if RECIPES[name].update == "encoder" else 3)
    for sae in saes:
        assert everything(sae)["parameters"] == everything(saes[0])["parameters"], "the same bits in all"
        for number in range(3):
            assert np.array_equal(
                sae._autoencoder.read(number, "silent_tokens"), single._autoencoder.read(number, "silent_tokens")
            )
            assert np.array_equal(sae._autoencoder.read(number, "counters"), single._autoencoder.read(number, "counters"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["dead", "batchtopk"])
def test_processes_teach_dead_concepts_by_the_tokens_that_one_process_would(name, masked):
    recipe = RECIPES[name].replace(prefixes=None)
    sizes = [3, 9, 31, 1, 47]  # beginning anywhere in eight rows
    *saes, single = copies(recipe, len(sizes) + 1)
    for number in range(4):
        batch = planted(sum(sizes), seed=200 + number)
        mask = np.random.default_rng(number).random(sum(sizes)) < 0.7 if masked else np.ones(sum(sizes), bool)
        mask[[0, -1, 43]] = True  # at least one token for each process
        for sae in (*saes, single):
            for model in range(3):
                sae._autoencoder.write(model, "silent_tokens", np.where(np.arange(48) % 3 == 0, 500, 0))
        kept = {model: x[mask] for model, x in batch.items()}
        encoder = single.model_names_[number % 3]
        _, gradients = single.gradients(kept, encoder=encoder)
        expected = single.partial_fit(kept, encoder=encoder)
        holed = {model: np.where(mask[:, None], x, np.nan).astype(x.dtype) for model, x in batch.items()}
        masks = [own[""] for own in parts({"": mask}, sizes)] if masked else None
        (report, exchanged), peers = share(saes, parts(holed, sizes), number % 3, masks=masks)[0]
        assert report.dead == expected.dead > 0
        assert report.auxiliary_loss == pytest.approx(expected.auxiliary_loss, rel=1e-5)
        sums = peers.added[-len(exchanged.names) :]
        for what, total in zip(exchanged.names, sums, strict=True):
            if what.startswith("gradient"):
                tensor, model = what.removeprefix("gradient of ").split(" of ")
                wanted = gradients[model][tensor].ravel()
                assert np.linalg.norm(total - wanted) < 1e-5 * np.linalg.norm(wanted), what
        for sae in saes:  # go on from the same bits: sums in another order differ by rounding
            for model in range(3):
                for tensor in single._autoencoder.parameter_names():
                    sae._autoencoder.write(model, tensor, single._autoencoder.read(model, tensor))


def test_everything_of_the_first_process_can_be_given_to_all():
    saes = copies(RECIPES["published"], 2, steps=3)
    for sae in saes[1:]:
        sae.initialize({name: x.shape[1] for name, x in planted(2, seed=0).items()})
    Gang(2).run(lambda peers: shared_steps.broadcast_state(saes[peers.rank]._autoencoder, peers))
    assert state(saes[0]) == state(saes[1]) and repr(saes[0].history_) == repr(saes[1].history_) and saes[1].n_steps_ == 3


def test_a_step_under_way_keeps_changes_out_until_it_ends(tmp_path):
    sae = copies(RECIPES["default"], 1)[0]
    core, batch = sae._autoencoder.core, planted(60, seed=4)
    before = state(sae)
    core.shared_begin([batch[name] for name in sae.model_names_], None, -1)
    for change in (
        lambda: sae.partial_fit(batch),
        lambda: sae.set_total_steps(1000),
        lambda: core.shared_begin([batch[name] for name in sae.model_names_], None, -1),
        lambda: sae._autoencoder.write(0, "scale", np.ones(12, np.float32)),
    ):
        with refuses("autoencoder", "one that was begun and has not ended"):
            change()
    sae.encode(batch["vit"], "vit")
    sae.save(tmp_path / "sae")
    core.shared_abandon()
    core.shared_abandon()
    assert state(sae) == before
    assert sae.partial_fit(batch).step == 3
