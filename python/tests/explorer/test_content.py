"""What is in an explorer's files, held to the codes that were put in."""

import base64
import io

import numpy as np
import pytest

import usae
from support.autoencoders import identity_sae
from support.explorers import GRID, HOSTILE, MODELS, N_CONCEPTS, N_IMAGES, levels, made_up, pictures_of, read_folder
from usae._explorer import packing
from usae._explorer.maps import NONE
from usae.analysis.neighbours import by_dictionary, by_firing

PLACES = GRID[0] * GRID[1]
DEAD = N_CONCEPTS - 1


@pytest.fixture(scope="module")
def files(page):
    return read_folder(page.path.parent)


@pytest.fixture(scope="module")
def codes(sae, acts):
    """Codes of every model, [M, images, places, m]."""
    return np.stack([sae.encode(x, name).to_dense().reshape(N_IMAGES, PLACES, N_CONCEPTS) for name, x in acts.items()])


def pairs(files, concept):
    """Images, peaks [pairs, M] and levels [pairs, M, places] of a concept."""
    arrays = files["concepts", concept // 64]["arrays"]
    of = slice(*arrays["starts"][concept % 64 : concept % 64 + 2])
    return arrays["images"][of], arrays["peaks"][of], levels(arrays["maps"][of], PLACES)


def test_own_examples_are_the_images_with_the_largest_codes(files, codes):
    peaks = codes.max(2)
    arrays = files["concepts", 0]["arrays"]
    for concept in range(N_CONCEPTS - 1):
        images, found, _ = pairs(files, concept)
        for model in range(len(MODELS)):
            chosen = arrays["top"][concept, model]
            expected = np.sort(peaks[model, :, concept])[::-1][: len(chosen)]
            np.testing.assert_allclose(found[chosen, model], expected, rtol=2e-4)
            assert list(peaks[model, images[chosen], concept]) == pytest.approx(list(expected), rel=2e-4)


def test_a_pair_has_the_heat_map_of_every_model(files, codes):
    scale = codes.max((1, 2))
    for concept in (0, 7, N_CONCEPTS - 2):
        images, peaks, maps = pairs(files, concept)
        assert len(images) == len(set(images)) > 8
        for image, peak, of_models in zip(images, peaks, maps, strict=True):
            there = codes[:, image, :, concept]
            np.testing.assert_allclose(peak, there.max(1), rtol=2e-4)
            np.testing.assert_array_equal(of_models, np.ceil(there / scale[:, concept, None] * 15 - 1e-4))


def test_bands_are_images_whose_largest_code_is_in_the_band(files, codes):
    arrays, scale = files["concepts", 0]["arrays"], codes.max((1, 2))
    found = 0
    for concept in range(N_CONCEPTS - 1):
        _, peaks, _ = pairs(files, concept)
        for model in range(len(MODELS)):
            for band, pair in enumerate(arrays["bands"][concept, model]):
                if pair != NONE:
                    share = peaks[pair, model] / scale[model, concept] * 4
                    assert band - 1e-3 < share < band + 1 + 1e-3
                    found += 1
    assert found > 100


def test_disagreement_is_where_a_model_exceeds_the_others_most(files, codes):
    arrays, relative = files["concepts", 0]["arrays"], codes.max(2) / np.maximum(codes.max((1, 2)), 1e-9)[:, None]
    for concept in (0, 5, 11):
        images, _, _ = pairs(files, concept)
        for model in range(len(MODELS)):
            others = [i for i in range(len(MODELS)) if i != model]
            score = relative[model, :, concept] - relative[others, :, concept].mean(0)
            best = arrays["apart"][concept, model, 0]
            assert score[images[best]] == pytest.approx(score[relative[model, :, concept] > 0].max(), abs=1e-5)


def test_silent_images_fire_the_concept_nowhere(files, codes):
    silent = files["concepts", 0]["arrays"]["silent"]
    found = [(c, i) for c in range(N_CONCEPTS) for i in silent[c] if i != 0xFFFF]
    assert found and not any(codes[:, image, :, concept].any() for concept, image in found)


def test_a_dead_concept_has_no_pairs_and_no_neighbours_by_firing(files):
    arrays = files["concepts", 0]["arrays"]
    assert (arrays["top"][DEAD] == NONE).all() and not arrays["histogram"][DEAD].any()
    assert (arrays["together"][DEAD] == 0xFFFF).all() and len(pairs(files, DEAD)[0]) == 0


def test_histograms_count_every_firing_token(files, codes):
    counts = files["concepts", 0]["arrays"]["histogram"].sum(2)
    np.testing.assert_array_equal(counts.T, (codes > 0).sum((1, 2)))


def test_an_image_lists_its_strongest_concepts(files, codes):
    arrays, slots = files["images", 0]["arrays"], files["index", 0]["arrays"]["slots"]
    peaks = codes.max(2)
    for image in (0, N_IMAGES - 1):
        for model in range(len(MODELS)):
            concepts = arrays["concepts"][slots[image], model]
            there = concepts[concepts != 0xFFFF]
            expected = np.sort(peaks[model, image][peaks[model, image] > 0])[::-1][:16]
            np.testing.assert_array_equal(peaks[model, image, there], expected)


def test_patches_have_the_codes_of_single_tokens(files, codes):
    gallery = files["index", 0]["header"]["gallery"]
    arrays = files["patches", 0]["arrays"]
    scale = codes.max((1, 2))
    for row, image in enumerate(gallery[:5]):
        for model in range(len(MODELS)):
            for place in range(PLACES):
                concepts = arrays["concepts"][row, model, place]
                there = concepts != 0xFFFF
                assert set(concepts[there]) == set(np.flatnonzero(codes[model, image, place]))
                share = codes[model, image, place, concepts[there]] / scale[model, concepts[there]]
                np.testing.assert_allclose(arrays["values"][row, model, place][there] / 255, share, atol=0.5 / 255 + 1e-3)


def test_columns_are_those_of_the_evaluation(files, sae, acts):
    evaluation = sae.evaluate(acts)
    content = files["index", 0]
    values = dict(zip([c["key"] for c in content["header"]["columns"]], content["arrays"]["columns"], strict=True))
    close = dict(rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(values["entropy"], evaluation.firing_entropy, **close)
    np.testing.assert_allclose(values["iou"], evaluation.cofire_iou, **close)
    np.testing.assert_array_equal(values["universal"], evaluation.universal())
    for i in range(3):
        np.testing.assert_allclose(values[f"firing:{i}"], evaluation.firing_counts[i] / evaluation.n_tokens, **close)
        np.testing.assert_allclose(values[f"energy:{i}"], evaluation.energy[i], **close)
    np.testing.assert_allclose(values["correlation:0:2"], evaluation.correlation[0, 2], **close)
    lowest = np.array([min(x) if not np.isnan(x).all() else np.nan for x in evaluation.correlation[[0, 0, 1], [1, 2, 2]].T])
    np.testing.assert_allclose(values["correlation"], lowest, **close)


def test_pictures_are_webp_of_the_given_size_and_names_are_kept(files):
    from PIL import Image

    content = files["images", 0]
    first = Image.open(io.BytesIO(base64.b64decode(content["pictures"][0])))
    assert first.format == "WEBP" and first.size == (32, 24)  # the grid's proportions; never larger than the picture
    assert len(content["pictures"]) == len(content["names"]) == N_IMAGES


def test_labels_come_with_the_page(files):
    given = files["index", 0]["header"]["labels"]
    assert {int(concept): one["text"] for concept, one in given.items()} == HOSTILE


def test_the_same_input_makes_the_same_bytes(sae, acts, page, tmp_path):
    again = usae.explorer(sae, acts, pictures_of(), tmp_path / "x", grid=GRID, labels=HOSTILE, title="another", progress=False)
    other = usae.explorer(sae, acts, pictures_of(), tmp_path / "y", grid=GRID, labels=HOSTILE, title="another", progress=False)
    files = sorted(file.relative_to(tmp_path / "x") for file in again.path.parent.rglob("*.js"))
    assert len(files) > 4
    for file in [*files, "index.html"]:
        assert (tmp_path / "x" / file).read_bytes() == (other.path.parent / file).read_bytes()


def test_an_explorer_has_the_checksum_of_the_autoencoders_tensors(sae, acts, page, tmp_path):
    known = read_folder(page.path.parent)["index", 0]["header"]
    assert (known["format"], known["version"]) == ("usae-explorer", 1) and len(known["tensors"]) == 64
    sae.save(tmp_path / "save")
    loaded = usae.explorer(usae.load(tmp_path / "save"), acts, None, tmp_path / "x", grid=GRID, progress=False)
    assert read_folder(loaded.path.parent)["index", 0]["header"]["tensors"] == known["tensors"]
    other = usae.explorer(identity_sae(N_CONCEPTS, MODELS, k=2), acts, None, tmp_path / "y", grid=GRID, progress=False)
    same = read_folder(other.path.parent)["index", 0]["header"]["tensors"] == known["tensors"]
    assert same  # k is no tensor
    names = {"d" if name == "a" else name: x for name, x in acts.items()}
    renamed = usae.explorer(identity_sae(N_CONCEPTS, tuple(names), k=3), names, None, tmp_path / "z", grid=GRID, progress=False)
    assert read_folder(renamed.path.parent)["index", 0]["header"]["tensors"] != known["tensors"]


def test_a_gallery_of_many_images_takes_evenly_spaced_ones(sae, tmp_path):
    page = usae.explorer(sae, made_up(101), None, tmp_path / "x", grid=GRID, images=25, progress=False)
    files = read_folder(page.path.parent)
    header = files["index", 0]["header"]
    assert (header["nImages"], header["nAllImages"]) == (21, 101)
    assert sorted(files["images", 0]["numbers"]) == list(range(0, 101, 5))


def test_neighbours_by_dictionary_are_those_with_the_largest_mean_cosine():
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((30, 5)), rng.standard_normal((30, 9))]
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    found, scores = by_dictionary(units)
    cosine = sum(x @ x.T for x in units) / 2
    np.fill_diagonal(cosine, -2)
    np.testing.assert_array_equal(found[:, 0], cosine.argmax(1))
    np.testing.assert_allclose(scores[:, 0], cosine.max(1), rtol=1e-6)
    assert not (found == np.arange(30)[:, None]).any()


def test_neighbours_by_firing_have_the_largest_iou():
    tokens = np.array([[0, 1], [0, 1], [0, 2], [3, 4], [2, 4]])
    found, scores = by_firing(tokens, 4)  # concept 4 stands for an unused slot
    assert found[1, 0] == 0 and scores[1, 0] == pytest.approx(2 / 3)
    assert found[2, 0] == 0 and scores[2, 0] == pytest.approx(1 / 4)
    assert (found[3] == -1).all() and (found[0, 2:] == -1).all()


def test_gzip_has_no_time_and_no_system_in_it():
    import gzip

    data = bytes(range(256)) * 9
    found = packing.gzipped(data)
    assert gzip.decompress(found) == data and found[3:10] == b"\0\0\0\0\0\0\xff"


def test_shortened_numbers_are_close_and_small_whole_numbers_exact():
    values = np.array([0, 1, 4096, 1e-30, 3.14159, np.nan, np.inf, -2.71828], np.float32)
    found = packing.shortened(values)
    np.testing.assert_allclose(found, values, rtol=2**-12)
    assert list(found[:3]) == [0, 1, 4096]


def test_the_images_of_the_first_rows_are_in_the_first_file(files, sae, acts):
    content = files["index", 0]
    shown, slots = content["arrays"]["shown"], content["arrays"]["slots"]
    first = int(sae.evaluate(acts).energy[0].argmax())
    assert sorted(slots) == list(range(N_IMAGES))
    assert max(slots[shown[first].ravel()]) < shown[first].size
    assert [files["images", 0]["numbers"][slots[i]] for i in range(N_IMAGES)] == list(range(N_IMAGES))


def test_disagreement_is_how_far_models_differ_on_each_others_examples(files, codes):
    content = files["index", 0]
    keys = [one["key"] for one in content["header"]["columns"]]
    found = content["arrays"]["columns"][keys.index("apart")]
    share = codes.max(2) / np.maximum(codes.max((1, 2)), 1e-9)[:, None]
    arrays = files["concepts", 0]["arrays"]
    for concept in (0, 9, 17):
        images, _, _ = pairs(files, concept)
        of_models = []
        for model in range(len(MODELS)):
            own = images[arrays["top"][concept, model]]
            others = [i for i in range(len(MODELS)) if i != model]
            of_models.append((share[model, own, concept] - share[others][:, own, concept].mean(0)).mean())
        assert found[concept] == pytest.approx(np.mean(of_models), abs=1e-3)
    assert np.isnan(found[DEAD])
