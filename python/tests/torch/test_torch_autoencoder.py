"""The autoencoder as PyTorch modules: the core's codes and activations, gradients, and no need of the core."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import usae
import usae.torch
from support import exchange
from support.autoencoders import RECIPE, WIDTHS, planted
from support.refusals import refuses
from usae.torch import Autoencoder, Decoder, Encoder, TensorCodes, code_agreement
from usae.torch import _autoencoder as modules

pytestmark = pytest.mark.slow

FLOAT32 = np.finfo(np.float32).eps

RECIPES = {
    "linear": RECIPE,
    "batchnorm": RECIPE.replace(encoder="batchnorm"),
    "batchtopk": RECIPE.replace(selection="batchtopk"),
    "bounded": RECIPE.replace(dictionary_norm="bounded", weight_decay=1.0),
    "scalar": RECIPE.replace(center="scalar", scale="scalar"),
}


@pytest.fixture(scope="module", params=RECIPES)
def sae(request, acts):
    return usae.UniversalSAE(32, 4, recipe=RECIPES[request.param], seed=3).fit(acts, steps=60)


@pytest.fixture(scope="module")
def far_away():
    """Activations whose mean float32 cannot hold: it is a million times the scale."""
    acts = {name: x.astype(float) + 1e6 for name, x in planted(400, seed=2).items()}
    return usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(acts, steps=30), acts


# --- The core's results -----------------------------------------------------------------------------------------------


def test_codes_are_the_cores_wherever_the_margin_of_the_selection_is_above_rounding(sae, held_out):
    for name, x in held_out.items():
        agreement = code_agreement(sae, Encoder.from_sae(sae, name), torch.from_numpy(x), name)
        assert agreement.n_tokens == len(x) and agreement.beyond == 0 and agreement.same > 0.99
        assert agreement.same + agreement.within_rounding == pytest.approx(1)
        # The bound that code_agreement documents, for values that are at most a few times the token's largest one.
        assert agreement.largest_difference < 8 * (WIDTHS[name] + 32) * FLOAT32


def test_pre_activations_and_decoded_activations_are_the_cores_up_to_rounding(sae, held_out):
    autoencoder = Autoencoder.from_sae(sae)
    for name, x in held_out.items():
        ours = autoencoder.encoder(name).preactivations(torch.from_numpy(x)).detach().numpy()
        exact = sae.preactivations(x, name)
        assert np.abs(ours - exact).max() < 4 * (WIDTHS[name] + 32) * FLOAT32 * np.abs(exact).max()
        for target in WIDTHS:
            decoded = sae.decode(sae.encode(x, name), target)
            ours = autoencoder.decode(sae.encode(x, name), target).detach().numpy()
            assert np.abs(ours - decoded).max() < 16 * FLOAT32 * np.abs(decoded).max()


def test_activations_far_from_zero_lose_nothing(far_away):
    sae, acts = far_away
    for name, x in acts.items():
        encoder, decoder = Encoder.from_sae(sae, name), Decoder.from_sae(sae, name)
        assert encoder.mean_rest.any()
        agreement = code_agreement(sae, encoder, torch.from_numpy(x), name)
        assert agreement.same > 0.99 and agreement.beyond == 0 and agreement.largest_difference < 1e-4
        codes = sae.encode(x, name)
        np.testing.assert_allclose(decoder.double()(codes).detach().numpy(), sae.decode(codes, name), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_activations_of_any_type_are_encoded_as_by_the_core(trained, held_out, dtype):
    x = torch.from_numpy(held_out["vit"]).to(dtype)
    agreement = code_agreement(trained, Encoder.from_sae(trained, "vit"), x, "vit")
    assert agreement.same > 0.99 and agreement.beyond == 0


def test_under_autocast_the_share_of_other_codes_is_told_and_is_that_of_rounding(trained, held_out):
    encoder, decoder = Encoder.from_sae(trained, "vit"), Decoder.from_sae(trained, "vit")
    x = torch.from_numpy(held_out["vit"])
    with torch.autocast("cpu", torch.bfloat16):
        codes = encoder.sparse(x)
        agreement = code_agreement(trained, encoder, x, "vit")
        assert decoder(codes).shape == decoder(encoder(x)).shape == x.shape
    assert codes.values.dtype == torch.bfloat16
    assert 0.5 < agreement.same < 1 and agreement.within_rounding > 0 and agreement.beyond == 0


def test_codes_that_rounding_does_not_explain_are_told(trained, held_out):
    encoder = Encoder.from_sae(trained, "vit")
    with torch.no_grad():
        encoder.bias[::2] += 0.05
    agreement = code_agreement(trained, encoder, torch.from_numpy(held_out["vit"]), "vit")
    assert agreement.beyond > 0.01


@pytest.mark.parametrize("k_max", [None, 3])
def test_thresholds_of_concepts_are_the_cores_and_are_in_the_state_dict(tmp_path, k_max):
    parts, threshold = exchange.random_parts(), np.random.default_rng(2).uniform(0.3, 4, exchange.N).astype(np.float32)
    folder = exchange.saelens(tmp_path / "jumprelu", parts, {"threshold": threshold}, architecture="jumprelu")
    jumprelu = usae.import_sae(folder, k_max=k_max)
    encoder = Encoder.from_sae(jumprelu, "model")
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((300, exchange.D)).astype(np.float32))
    assert code_agreement(jumprelu, encoder, x, "model").beyond == 0
    np.testing.assert_allclose(encoder(x).detach(), jumprelu.encode(x, "model").to_dense(), atol=1e-4)
    other = Encoder(exchange.D, exchange.N, encoder.k)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(x), encoder(x))
    other.load_state_dict(Encoder(exchange.D, exchange.N, encoder.k).state_dict())  # and back to one for all
    assert other.threshold.shape == ()
    x[0, 0] = torch.nan
    assert encoder(x)[0].isnan().any() and not encoder(x)[1:].isnan().any()


# --- Forms of codes ---------------------------------------------------------------------------------------------------


def test_dense_and_sparse_codes_are_the_same_and_decode_to_the_same(trained, held_out):
    encoder, decoder = Encoder.from_sae(trained, "siglip"), Decoder.from_sae(trained, "vit")
    x = torch.from_numpy(held_out["siglip"]).unflatten(0, (20, 10))
    dense, sparse = encoder(x), encoder(x, sparse=True)
    assert dense.shape == (20, 10, 32) and sparse.values.shape == sparse.indices.shape == (20, 10, 4)
    assert (sparse.values.diff(dim=-1) <= 0).all()  # the most active first
    assert torch.equal(sparse.to_dense(), dense)
    flat = sparse.to_sparse()
    assert torch.equal(flat.to_dense(), dense.flatten(0, 1))
    expected = decoder(dense).flatten(0, 1)
    assert decoder(sparse).shape == (20, 10, WIDTHS["vit"])
    arrays = usae.Codes(*sparse.flattened())
    largest = expected.abs().max().item()
    for form in (sparse, flat, arrays, arrays.to_torch()):
        torch.testing.assert_close(decoder(form).reshape(expected.shape), expected, rtol=0, atol=16 * FLOAT32 * largest)


def test_unused_slots_are_empty_and_add_nothing(trained):
    encoder, decoder = Encoder.from_sae(trained, "vit"), Decoder.from_sae(trained, "vit")
    with torch.no_grad():
        encoder.bias.fill_(-1e3)
        encoder.bias[5] = 1e3
    codes = encoder.sparse(torch.zeros(3, WIDTHS["vit"]))
    assert codes.indices.tolist() == [[5, -1, -1, -1]] * 3 and not codes.values[:, 1:].any()
    with torch.no_grad():
        encoder.bias.fill_(-1e3)
    empty = encoder.sparse(torch.zeros(3, WIDTHS["vit"]))
    assert (empty.indices == -1).all()
    mean = torch.from_numpy(trained.parameters("vit")["mean"])
    assert torch.equal(decoder(empty), mean.expand(3, -1)) and torch.equal(decoder(empty.to_dense()), mean.expand(3, -1))


@pytest.mark.parametrize("shape", [(), (7,), (0,), (3, 0), (2, 3, 4)])
def test_leading_dimensions_are_kept(trained, shape):
    encoder, decoder = Encoder.from_sae(trained, "vit"), Decoder.from_sae(trained, "vit")
    x = torch.randn(*shape, WIDTHS["vit"])
    codes = encoder.sparse(x)
    assert codes.values.shape == (*shape, 4) and encoder(x).shape == codes.to_dense().shape == (*shape, 32)
    assert decoder(codes).shape == decoder(encoder(x)).shape == x.shape


def test_many_tokens_are_computed_in_parts_with_the_same_result(trained, held_out, monkeypatch):
    encoder, x = Encoder.from_sae(trained, "vit"), torch.from_numpy(held_out["vit"]).unflatten(0, (4, 50))
    expected = encoder(x)
    monkeypatch.setattr(modules, "NUMBERS_AT_ONCE", 32 * 7)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


def test_nan_in_a_token_is_seen_in_its_code_alone(trained, held_out):
    x = torch.from_numpy(held_out["vit"][:3].copy())
    x[1, 2] = torch.nan
    assert Encoder.from_sae(trained, "vit")(x).isnan().any(1).tolist() == [False, True, False]


# --- Gradients --------------------------------------------------------------------------------------------------------


def by_hand(x, source, target, k, bounded=False, epsilon=1e-8):
    """The formulas of docs/method.md in plain PyTorch; parameters are float64 tensors by name."""
    tokens = (x - source["mean"]) / source["scale"]
    p = tokens @ source["encoder_weight"].T + source["encoder_bias"]
    if "bn_weight" in source:
        spread = (source["bn_running_var"] + 1e-5).sqrt()
        p = (p - source["bn_running_mean"]) / spread * source["bn_weight"] + source["bn_bias"]
    p = p.relu()
    if source.get("threshold", torch.zeros(1)) > 0:
        z = p * (p > source["threshold"])
        z = z * (z >= z.topk(4 * k, dim=1).values[:, -1:])
    else:
        z = p * (p >= p.topk(k, dim=1).values[:, -1:])
    norms = target["dictionary"].norm(dim=1, keepdim=True)
    rows = target["dictionary"] / (torch.where(norms > 1 + 1e-6, norms, 1) if bounded else norms + epsilon)
    return z, z @ rows * target["scale"] + target["mean"]


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_those_of_the_formulas_in_float64(sae, held_out, sparse):
    x = torch.from_numpy(held_out["siglip"]).double().requires_grad_()
    parameters = {
        model: {name: torch.from_numpy(value).double() for name, value in sae.parameters(model).items()}
        for model in ("siglip", "vit")
    }
    dictionary = parameters["vit"]["dictionary"].requires_grad_()
    weight = parameters["siglip"]["encoder_weight"].requires_grad_()
    weights = torch.randn(len(x), WIDTHS["vit"], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes, expected = by_hand(x, parameters["siglip"], parameters["vit"], 4, sae.recipe_.dictionary_norm == "bounded")
    wanted = torch.autograd.grad((expected * weights).sum(), (x, dictionary, weight))

    encoder, decoder = Encoder.from_sae(sae, "siglip"), Decoder.from_sae(sae, "vit")
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        encoder, decoder = encoder.to(dtype), decoder.to(dtype)
        given = x.detach().to(dtype).requires_grad_()
        z = encoder(given, sparse=sparse)
        assert torch.equal((z.to_dense() if sparse else z) > 0, codes > 0)
        result = decoder(z)
        gradients = torch.autograd.grad((result * weights).sum(), (given, decoder.dictionary, encoder.weight))
        gradients = list(gradients)
        if "bn_weight" in parameters["siglip"]:  # the module's rows have BatchNorm's factor in them
            p = parameters["siglip"]
            gradients[2] = gradients[2] * (p["bn_weight"] / (p["bn_running_var"] + 1e-5).sqrt())[:, None]
        # The encoder's folded rows were rounded to float32.
        tolerance = max(tolerance, 1e-6) if "bn_weight" in parameters["siglip"] else tolerance
        for found, exact in zip((result, *gradients), (expected, *wanted), strict=True):
            assert (found.double() - exact).abs().max() <= tolerance * exact.abs().max()


def test_a_module_learns(trained, held_out):
    autoencoder = Autoencoder.from_sae(trained)
    x, y = torch.from_numpy(held_out["siglip"]), torch.from_numpy(held_out["vit"])
    optimizer = torch.optim.Adam(autoencoder.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        loss = (autoencoder(x, "siglip", "vit") - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


# --- Without the core -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("dinov2", "vit"), ("a.b", "keys"), ("a%2Eb", "a.b"), ("weights", "half"), ("training", "_modules")]
)
def test_a_state_dict_holds_everything(names):
    acts = dict(zip(names, planted(300, seed=0).values(), strict=False))
    sae = usae.UniversalSAE(32, 4, recipe=RECIPE, seed=3).fit(acts, steps=5)
    autoencoder = Autoencoder.from_sae(sae)
    other = Autoencoder(sae.n_features_in_, 32, 4)
    other.load_state_dict(autoencoder.state_dict())
    for source in names:
        x = torch.from_numpy(acts[source])
        for target in names:
            assert torch.equal(other(x, source, target), autoencoder(x, source, target))
    parts = Encoder(sae.n_features_in_[names[0]], 32, 4), Decoder(sae.n_features_in_[names[1]], 32)
    parts[0].load_state_dict(Encoder.from_sae(sae, names[0]).state_dict())
    parts[1].load_state_dict(Decoder.from_sae(sae, names[1]).state_dict())
    x = torch.from_numpy(acts[names[0]])
    assert torch.equal(nn.Sequential(*parts)(x), autoencoder.decode(autoencoder.encode(x, names[0]), names[1]))


def test_a_module_never_calls_the_core(trained, held_out, monkeypatch):
    autoencoder = Autoencoder.from_sae(trained)
    monkeypatch.setattr(trained._autoencoder, "core", None)
    x = torch.from_numpy(held_out["vit"])
    autoencoder(x, "vit", "siglip").sum().backward()


def test_an_exported_module_runs_in_a_process_without_this_package(trained, held_out, tmp_path):
    pair = nn.Sequential(Encoder.from_sae(trained, "siglip"), Decoder.from_sae(trained, "vit"))
    x = torch.from_numpy(held_out["siglip"])
    program = torch.export.export(pair, (x,), dynamic_shapes=({0: torch.export.Dim("tokens")},))
    torch.export.save(program, tmp_path / "pair.pt2")
    torch.save((x[:50], pair(x[:50]).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, torch; program = torch.export.load('pair.pt2').module(); x, y = torch.load('expected.pt');"
        "torch.testing.assert_close(program(x), y); assert 'usae' not in sys.modules"
    )
    path = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=path, check=True)


def test_a_compiled_module_computes_the_same(trained, held_out):
    encoder, x = Encoder.from_sae(trained, "vit"), torch.from_numpy(held_out["vit"])
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), encoder(x))


# --- Tensors for the core ---------------------------------------------------------------------------------------------


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU, and can only be copied to the CPU."""

    @property
    def device(self):
        return torch.device("cuda", 0)

    def detach(self):
        return super().detach().as_subclass(Elsewhere)

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


def test_encode_and_decode_take_tensors_of_any_device_and_with_a_graph(trained, held_out):
    x = torch.from_numpy(held_out["vit"]).requires_grad_()
    expected = trained.encode(held_out["vit"], "vit")
    assert trained.encode(x, "vit") == trained.encode(x.detach().as_subclass(Elsewhere), "vit") == expected
    near = TensorCodes(*expected.to_torch())
    far = TensorCodes(near.values.as_subclass(Elsewhere), near.indices.as_subclass(Elsewhere), 32)
    assert usae.Codes(*far) == usae.Codes(*near) == expected
    decoded = trained.decode(expected, "siglip")
    np.testing.assert_array_equal(trained.decode(near, "siglip"), decoded)
    images = TensorCodes(near.values.unflatten(0, (20, 10)), near.indices.unflatten(0, (20, 10)), 32)
    np.testing.assert_array_equal(trained.decode(images, "siglip"), decoded)
    np.testing.assert_array_equal(
        trained.preactivations(x.detach().as_subclass(Elsewhere), "vit"), trained.preactivations(held_out["vit"], "vit")
    )
    with refuses("x", 'a tensor on the device "meta"', "CPU or a GPU"):
        trained.encode(torch.zeros(3, WIDTHS["vit"], device="meta"), "vit")


def test_codes_become_tensors_and_arrays(trained, held_out):
    codes = trained.encode(held_out["vit"], "vit")
    tensors = codes.to_torch()
    assert tensors.values.dtype == torch.float32 and tensors.indices.dtype == torch.int64
    np.testing.assert_array_equal(tensors.to_dense().numpy(), codes.to_dense())
    np.testing.assert_array_equal(tensors.to_sparse().to_dense().numpy(), codes.to_dense())
    assert codes.to_torch("meta").values.device.type == "meta"
    tensors.values.zero_()
    assert codes.values.any()  # they are copies


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_encoded_or_decoded_is_refused(trained):
    encoder, decoder = Encoder.from_sae(trained, "vit"), Decoder.from_sae(trained, "vit")
    for x, got in [
        (torch.zeros(3, 5), "torch.float32 [3, 5]"),
        (torch.zeros(3, 17, dtype=torch.int64), "torch.int64 [3, 17]"),
        (torch.tensor(1.0), "torch.float32 []"),
        (np.zeros((3, 17)), "ndarray"),
    ]:
        with refuses("x", got):
            encoder(x)
    for codes, got in [
        (torch.zeros(3, 5), "torch.float32 [3, 5]"),
        (torch.tensor(1.0), "torch.float32 []"),
        (np.zeros((3, 32)), "ndarray"),
        (usae.Codes([[1.0]], [[0]], 8), "codes of 8 concepts"),
    ]:
        with refuses("codes", got):
            decoder(codes)
    with refuses("sae", "int"):
        Encoder.from_sae(3, "vit")
    with refuses("model"):
        Decoder.from_sae(trained, "wit")
    with refuses("model"):
        Autoencoder.from_sae(trained).encode(torch.zeros(3, 17), "wit")
    with refuses("widths", "list"):
        Autoencoder([3], 8, 2)
    with refuses("k", "9"):
        Encoder(3, 8, 9)
    with refuses("encoder", "Decoder"):
        code_agreement(trained, decoder, torch.zeros(3, 17), "vit")
    with refuses("encoder", "17 and 32"):
        code_agreement(trained, encoder, torch.zeros(3, 17), "siglip")
    for x in (np.zeros((3, 17)), torch.zeros(3, 17, dtype=torch.int64), torch.tensor(1.0)):
        with refuses("x"):
            code_agreement(trained, encoder, x, "vit")
    with pytest.raises(usae.NotInitializedError):
        Encoder.from_sae(usae.UniversalSAE(), "vit")
