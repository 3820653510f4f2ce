"""Terms of the loss that benchmarks/agreement_terms.py compares, and the command itself."""

import importlib
import itertools
import json
import pathlib
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

BENCHMARKS = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
N, M, K = 60, 40, 5


@pytest.fixture
def terms(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("study.agreement_terms")
    for name in [name for name in sys.modules if name.split(".")[0] == "study"]:
        del sys.modules[name]


def encoded(terms, seed):
    p = torch.randn(N, M, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return terms.Encoded.of(p.requires_grad_(), K)


def test_the_reference_is_the_engines_term(terms):
    a, b = encoded(terms, 0), encoded(terms, 1)
    expected = 0.0
    for t in range(N):
        selected = {c for one in (a, b) for c in one.p[t].topk(K).indices.tolist() if one.p[t, c] > 0}
        expected += sum((a.p[t, c].item() - b.p[t, c].item()) ** 2 for c in selected) / 100
    assert terms.squared([a, b], [a, b]).item() == pytest.approx(expected, rel=1e-5)


def test_the_mean_of_two_codes_pulls_half_as_much_where_both_selected_a_concept(terms):
    gradients = []
    for loss in (terms.squared, terms.consensus):
        a, b = encoded(terms, 0), encoded(terms, 1)
        loss([a, b], [a, b]).backward()
        gradients.append(torch.where(a.support & b.support, a.p.grad, 0))
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1], gradients[0] / 2)


def test_what_is_not_taught_has_no_gradient_and_a_small_step_makes_codes_agree_more(terms):
    for (name, term), seed in itertools.product(terms.TERMS.items(), range(3)):
        a, b, c = (encoded(terms, 3 * seed + number) for number in range(3))
        everyone = [a, b, c] if term.everyone else [a, b]
        before = term.loss([a, b], everyone)
        before.backward()
        assert c.p.grad is None, name
        step = 0.01 / max(a.p.grad.abs().max(), b.p.grad.abs().max())
        moved = [terms.Encoded.of((one.p - step * one.p.grad).detach(), K) for one in (a, b)]
        apart = [(x.p - y.p)[a.support | b.support].square().sum() for x, y in ((a, b), moved)]
        assert apart[1] < apart[0], name


@pytest.mark.slow
def test_the_command_writes_a_table_and_continues_where_it_was(tmp_path):
    command = [sys.executable, BENCHMARKS / "agreement_terms.py", "--quick", "--worlds", "small", "--terms"]
    written = []
    for chosen in ("squared difference;margin", "squared difference;margin;teachers"):
        done = subprocess.run([*command, chosen, "--output", tmp_path], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        written.append(json.loads((tmp_path / "agreement_terms-quick.json").read_text())["results"])
    assert written[1][: len(written[0])] == written[0] and len(written[1]) == 6
    assert all(0 < record["figures"]["R2 other"] < record["figures"]["R2 same"] < 1 for record in written[1])
    assert "| teachers | 0.05 |" in (tmp_path / "agreement_terms-quick.md").read_text()
