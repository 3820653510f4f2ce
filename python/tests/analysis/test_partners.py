import json

import numpy as np
import pytest

import usae
from support.autoencoders import WIDTHS, identity_sae
from support.refusals import refuses
from support.stores import written
from usae.analysis import partners

NAMES = tuple(WIDTHS)


def of_codes(**codes):
    """The partners of concepts with these codes, float [n_tokens, m]: dimensions are concepts."""
    codes = {name: np.asarray(x, np.float32) for name, x in codes.items()}
    m = next(iter(codes.values())).shape[1]
    return identity_sae(m, list(codes), m).evaluate(codes, partners=True).partners


def dense_correlations(codes, other):
    """NaN where one of the two does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(codes.T.astype(float), other.T.astype(float))[: codes.shape[1], codes.shape[1] :]


def check_against_dense(found, codes):
    names = list(codes)
    for i, j in np.ndindex(len(names), len(names)):
        if i == j:
            assert np.isnan(found.rank[i, j]).all() and np.isnan(found.correlation[i, j]).all()
            assert (found.index[i, j] == -1).all()
            continue
        dense = dense_correlations(codes[names[i]], codes[names[j]])
        for c, row in enumerate(dense):
            known = ~np.isnan(row)
            if not known.any():
                assert np.isnan(found.rank[i, j, c]) and np.isnan(found.correlation[i, j, c]) and found.index[i, j, c] == -1
                continue
            assert found.correlation[i, j, c] == pytest.approx(np.nanmax(row), abs=1e-9)
            assert row[found.index[i, j, c]] == pytest.approx(np.nanmax(row), abs=1e-9)
            better = (row[known] > row[c] + 1e-9).sum() if known[c] else known.sum()
            assert found.rank[i, j, c] == 1 + better


def test_ranks_and_partners_are_those_of_dense_correlations(trained, held_out):
    few = {name: x[:30] for name, x in held_out.items()}
    found = trained.evaluate(few, partners=True).partners
    codes = {name: trained.encode(few[name], name).to_dense() for name in NAMES}
    assert any((x.sum(0) == 0).any() for x in codes.values())  # there are dead concepts
    check_against_dense(found, codes)
    alive = [x.std(0) > 0 for x in codes.values()]
    dense = dense_correlations(codes["vit"], codes["siglip"])
    best = np.nanmax(dense[alive[2]], axis=1)
    weights = codes["vit"].sum(0, dtype=float)[alive[2]]
    assert found.mppc[2, 1] == pytest.approx(best.mean()) and found.wmppc[2, 1] == pytest.approx(
        np.average(best, weights=weights)
    )
    assert found.share()[2, 1] == pytest.approx((found.rank[2, 1][alive[2]] == 1).mean())
    assert found.share(10)[2, 1] >= found.share(3)[2, 1] >= found.share()[2, 1]
    weighted = np.average(found.rank[2, 1][alive[2]] == 1, weights=weights)
    assert found.share(weighted=True)[2, 1] == pytest.approx(weighted)


def test_permuted_indices_are_found():
    random = np.random.default_rng(0)
    codes = np.where(random.random((300, 9)) < 0.3, random.random((300, 9)), 0)
    order = np.array([1, 2, 0, 3, 4, 5, 8, 7, 6])
    found = of_codes(a=codes, b=codes[:, order])
    assert found.index[1, 0].tolist() == order.tolist() and found.index[0, 1].tolist() == np.argsort(order).tolist()
    same = order == np.arange(9)
    assert np.array_equal(found.rank[0, 1] == 1, same) and np.all(found.rank[0, 1, ~same] > 1)
    assert found.share()[0, 1] == pytest.approx(same.mean()) and np.allclose(found.correlation[0, 1], 1)


def test_equal_correlations_do_not_count_as_better_and_go_to_the_lower_index():
    one = np.array([1, 0, 1, 0, 0, 0], np.float32)
    other = np.array([0, 1, 1, 0, 0, 1], np.float32)
    found = of_codes(a=np.stack([one, other, one], 1), b=np.stack([one, other, one], 1))
    assert found.rank[0, 1].tolist() == [1, 1, 1] and found.index[0, 1].tolist() == [0, 1, 0]


def test_an_index_that_is_dead_in_the_other_model_comes_after_all_that_are_not():
    random = np.random.default_rng(0)
    codes = np.where(random.random((200, 5)) < 0.4, 1, 0)
    dead = codes * [1, 1, 0, 1, 1]
    found = of_codes(a=codes, b=dead)
    assert found.rank[0, 1, 2] == 5 and found.index[0, 1, 2] != 2
    assert np.isnan(found.rank[1, 0, 2]) and found.index[1, 0, 2] == -1
    nothing = of_codes(a=codes, b=np.zeros_like(codes))
    assert np.isnan(nothing.rank).all() and np.isnan(nothing.mppc).all() and np.isnan(nothing.share()).all()
    json.dumps(nothing.to_dict(), allow_nan=False)
    assert "nan" not in nothing.summary()


def test_passes_and_blocks_change_nothing(trained, held_out, monkeypatch):
    whole = trained.evaluate(held_out, partners=True).partners
    assert len(list(partners._passes(3, 32))) == 1
    for most, n_passes in ((32 * 32 * 2, 2), (32 * 10, 12), (1, 96)):
        monkeypatch.setattr(partners, "SUMS", most)
        blocks = list(partners._passes(3, 32))
        assert len(blocks) == n_passes
        assert all(sum((stop - start) * 32 for _, _, start, stop in each) <= max(most, 32) for each in blocks)
    monkeypatch.setattr(partners, "SUMS", 32 * 10)
    monkeypatch.setattr(partners, "SLAB", 3)
    monkeypatch.setattr(partners, "CHUNK", 64)
    parts = trained.evaluate(held_out, partners=True).partners
    assert np.array_equal(parts.rank, whole.rank, equal_nan=True) and np.array_equal(parts.index, whole.index)
    assert np.allclose(parts.correlation, whole.correlation, atol=1e-12, equal_nan=True)


def test_stores_and_masks_have_the_same_partners(trained, held_out, tmp_path):
    expected = trained.evaluate(held_out, partners=True).partners
    store = written(tmp_path / "acts", {n: x.reshape(-1, 4, x.shape[1]) for n, x in held_out.items()}, dtype="float32")
    assert trained.evaluate(store, partners=True).partners.to_dict() == expected.to_dict()
    padded = {name: np.concatenate([x[:5] + 9, x]) for name, x in held_out.items()}
    masked = trained.evaluate(padded, partners=True, mask=np.arange(205) >= 5)
    assert masked.partners.to_dict() == expected.to_dict() and masked.n_left_out == 5


def test_an_evaluation_has_partners_only_on_request_and_is_otherwise_the_same(trained, held_out):
    without, with_ = trained.evaluate(held_out), trained.evaluate(held_out, partners=True)
    assert without.partners is None and "partners" not in without.to_dict()
    assert with_.to_dict() == without.to_dict() | {"partners": with_.partners.to_dict()}
    assert "same index" in with_.summary() and "same index" not in without.summary()
    assert all(name in with_.partners.summary() for name in (*NAMES, "MPPC", "wMPPC"))
    with refuses("partners", "'yes'"):
        trained.evaluate(held_out, partners="yes")


def test_the_table_of_concepts_has_ranks_and_partners(trained, held_out):
    pytest.importorskip("pandas")
    evaluation = trained.evaluate(held_out, partners=True)
    frame, found = evaluation.to_frame(), evaluation.partners
    assert np.array_equal(frame["rank[vit, siglip]"], found.rank[2, 1], equal_nan=True)
    assert np.array_equal(frame["partner[siglip, vit]"], found.index[1, 2])
    assert np.array_equal(frame["partner_correlation[siglip, dinov2]"], found.correlation[1, 0], equal_nan=True)
    expected = found.comparative_sharedness("vit", "siglip", "dinov2")
    assert np.array_equal(frame["comparative_sharedness[vit, siglip]"], expected, equal_nan=True)
    one = usae.UniversalSAE(8, 2).fit({"vit": held_out["vit"]}, steps=1).evaluate({"vit": held_out["vit"]}, partners=True)
    assert not [name for name in one.to_frame() if "partner" in name] and "same index" not in one.summary()


def test_comparative_sharedness_is_the_formula_of_the_paper():
    random = np.random.default_rng(0)
    base = np.where(random.random((400, 6)) < 0.3, random.random((400, 6)), 0)
    mixed = {
        name: np.where(random.random((400, 6)) < kept, base, 0) for name, kept in zip("abcd", (1, 0.9, 0.7, 0.3), strict=True)
    }
    found = of_codes(**mixed)
    squares = found.correlation[0] ** 2
    weight = mixed["a"].astype(np.float32).sum(0, dtype=float)
    assert np.allclose(found.comparative_sharedness("a", "b", "c"), weight * (squares[1] - squares[2]))
    got = found.comparative_sharedness("a", ["b", "c"])  # against d
    assert np.allclose(got, weight * (np.minimum(squares[1], squares[2]) - squares[3])) and got.min() > 0
    got = found.comparative_sharedness("a", "d", ["c", "b"])
    assert np.allclose(got, weight * (squares[3] - np.maximum(squares[1], squares[2]))) and got.max() < 0


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        (("nobody", "vit"), "model", ""),
        (("vit", "vit"), "shared_with", "['vit']"),
        (("vit", []), "shared_with", "[]"),
        (("vit", ["siglip", "siglip"]), "shared_with", ""),
        (("vit", "siglip", "siglip"), "against", "['siglip']"),
        (("vit", ["siglip", "dinov2"]), "against", "None"),
        (("vit", 3), "shared_with", "3"),
    ],
)
def test_groups_of_models_that_cannot_be_compared_are_refused(trained, held_out, arguments, argument, got):
    found = trained.evaluate(held_out, partners=True).partners
    with refuses(argument, got):
        found.comparative_sharedness(*arguments)
