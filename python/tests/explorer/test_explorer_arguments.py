"""Arguments of `usae.explorer` that cannot be used, and places that must not be overwritten."""

import errno
import socket
import struct
import threading
import urllib.request
import warnings

import numpy as np
import pytest

import usae
from support.autoencoders import identity_sae
from support.explorers import GRID, MODELS, N_CONCEPTS, N_IMAGES, made_up, pictures_of, read_folder
from support.refusals import refuses, refuses_place


def explore(sae, acts, path, pictures=None, **arguments):
    return usae.explorer(sae, acts, pictures, path, **{"grid": GRID, "progress": False} | arguments)


@pytest.mark.parametrize(
    ("arguments", "argument", "got"),
    [
        ({"n": 0}, "n", 0),
        ({"n": True}, "n", True),
        ({"bands": -1}, "bands", -1),
        ({"side": 4}, "side", 4),
        ({"images": 0}, "images", 0),
        ({"seed": -1}, "seed", -1),
        ({"one_file": "yes"}, "one_file", "'yes'"),
        ({"crop": None}, "crop", None),
        ({"title": 3}, "title", 3),
        ({"title": "\ud800"}, "title", ""),
        ({"grid": (3, 5)}, "grid", "3 x 5"),
        ({"grid": "3x4"}, "grid", "'3x4'"),
        ({"progress": "no"}, "progress", "'no'"),
        ({"coordinates": "umap"}, "coordinates", "'umap'"),
        ({"coordinates": np.full((N_CONCEPTS, 2), np.nan)}, "coordinates", f"shape [{N_CONCEPTS}, 2] with NaN"),
        ({"coordinates": np.zeros((3, 2))}, "coordinates", "shape [3, 2]"),
        ({"coordinates": [[1, 2], [3]]}, "coordinates", "[[1, 2], [3]]"),
        ({"labels": {N_CONCEPTS: "x"}}, "labels", N_CONCEPTS),
        ({"labels": {0: 3}}, "labels", 3),
        ({"labels": {0: "\ud800"}}, "labels", ""),
        ({"labels": 3}, "labels", 3),
        ({"measures": {"x": np.zeros(3)}}, "measures", "'x': shape [3]"),
        ({"measures": {3: np.zeros(N_CONCEPTS)}}, "measures", 3),
        ({"measures": [1]}, "measures", "[1]"),
        ({"evaluation": 3}, "evaluation", 3),
        ({"controls": 3}, "controls", 3),
        ({"maximizations": [3]}, "maximizations", 3),
        ({"maximizations": 3}, "maximizations", 3),
        ({"embeddings": np.zeros((N_IMAGES, 4))}, "embeddings", "no vocabulary"),
        ({"vocabulary": {"x": [1.0]}}, "embeddings", "no embeddings"),
        ({"embeddings": np.zeros((3, 4)), "vocabulary": {"x": np.zeros(4)}}, "embeddings", "shape [3, 4]"),
        ({"embeddings": np.ones((N_IMAGES, 4)), "vocabulary": {"x": np.zeros(5)}}, "vocabulary", "shape [1, 5]"),
        ({"embeddings": np.ones((N_IMAGES, 4)), "vocabulary": {}}, "vocabulary", "{}"),
        ({"pictures": 3}, "pictures", 3),
        ({"pictures": pictures_of(3)}, "pictures", 3),
        ({"pictures": np.zeros(3)}, "pictures", "an array"),
        ({"pictures": "no-such-folder"}, "pictures", "'no-such-folder'"),
        ({"path": ""}, "path", "''"),
        ({"path": 3}, "path", 3),
    ],
)
def test_an_argument_that_cannot_be_used_is_named_and_nothing_is_written(sae, acts, tmp_path, arguments, argument, got):
    with refuses(argument, got):
        explore(sae, acts, **{"path": tmp_path / "x"} | arguments)
    assert list(tmp_path.iterdir()) == []


def test_results_of_another_autoencoder_are_refused(sae, acts, tmp_path):
    other = identity_sae(5, MODELS, k=2)
    evaluation = other.evaluate({name: x[..., :5] for name, x in acts.items()})
    with refuses("evaluation", "5"):
        explore(sae, acts, tmp_path / "x", evaluation=evaluation)


def test_an_explorer_is_replaced_and_nothing_else_is(sae, acts, tmp_path):
    first = explore(sae, acts, tmp_path / "x", pictures_of())
    explore(sae, acts, tmp_path / "x")
    assert "pictures" not in read_folder(first.path.parent)["images", 0]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    (tmp_path / "mine.html").write_text("<h1>mine</h1>")
    with refuses_place(tmp_path / "mine", errno.EEXIST):
        explore(sae, acts, tmp_path / "mine")
    for path in ("mine", "mine.html"):
        with refuses_place(tmp_path / "mine.html", errno.EEXIST):
            explore(sae, acts, tmp_path / path, one_file=True)
    with refuses_place(tmp_path / "mine.html", errno.EEXIST):
        explore(sae, acts, tmp_path / "mine.html")
    one = explore(sae, acts, tmp_path / "one", one_file=True)
    assert explore(sae, acts, tmp_path / "one", one_file=True).path == one.path == tmp_path / "one.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.html", "one.html", "x"]
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_a_full_disk_leaves_the_old_explorer(sae, acts, tmp_path, monkeypatch):
    from usae._files import disk

    page = explore(sae, acts, tmp_path / "x")
    before = {file: file.read_bytes() for file in page.path.parent.rglob("*.*")}
    write, written = disk.write_text, []

    def full(file, text):
        written.append(file)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        write(file, text)

    monkeypatch.setattr(disk, "write_text", full)
    with refuses_place(tmp_path / "x", errno.ENOSPC):
        explore(sae, acts, tmp_path / "x", pictures_of())
    assert {file: file.read_bytes() for file in page.path.parent.rglob("*.*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_pictures_are_taken_in_every_form_and_give_the_same_bytes(sae, acts, tmp_path):
    from PIL import Image

    array = pictures_of()
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number, picture in enumerate(array):
        Image.fromarray(picture).save(
            folder / ("sub" if number > 20 else ".") / f"{'z' if number > 20 else 'a'}{number:03}.png"
        )
    files = sorted(folder.rglob("*.png"), key=lambda path: path.relative_to(folder).parts)
    forms = {
        "array": array,
        "floats": (array / 255).astype(np.float32),
        "channels first": [x.transpose(2, 0, 1) for x in array],
        "folder": folder,
        "files": [str(file) for file in files],
        "bytes": [file.read_bytes() for file in files],
        "labelled": [(Image.fromarray(x), 3) for x in array],
        "examples": [{"image": Image.fromarray(x)} for x in array],
    }
    found = {}
    for name, pictures in forms.items():
        page = explore(sae, acts, tmp_path / name, pictures)
        found[name] = read_folder(page.path.parent)["images", 0]["pictures"]
    assert all(pictures == found["array"] for pictures in found.values())


def test_a_picture_that_cannot_be_read_is_blank_and_a_warning(sae, acts, tmp_path):
    pictures = [x.tobytes() if i == 3 else x for i, x in enumerate(pictures_of())]
    with pytest.warns(UserWarning, match="image 3"):
        page = explore(sae, acts, tmp_path / "x", pictures)
    content = read_folder(page.path.parent)["images", 0]
    assert [number for number, x in zip(content["numbers"], content["pictures"], strict=True) if not x] == [3]
    with refuses("pictures"):
        explore(sae, acts, tmp_path / "y", [b"none"] * N_IMAGES)
    assert not (tmp_path / "y").exists()


def test_masked_rows_are_no_part_of_any_map(sae, acts, tmp_path):
    mask = np.ones((N_IMAGES, GRID[0] * GRID[1]), bool)
    mask[:, 0] = False
    mask[5] = False
    broken = {name: np.where(mask[..., None], x, np.nan) for name, x in acts.items()}
    content = read_folder(explore(sae, broken, tmp_path / "x", mask=mask).path.parent)["concepts", 0]["arrays"]
    assert not (content["maps"][..., 0] >> 4).any() and 5 not in content["images"]


def test_find_tells_the_concepts_and_the_image_itself(sae, acts, page):
    found = page.find({name: x[7] for name, x in acts.items()}, n=4)
    assert found.images[0][0] == 7 and found.images[0][1] == pytest.approx(1, abs=0.05)
    codes = sae.encode(acts["b"][7], "b")
    assert found.concepts["b"][0][1] == pytest.approx(codes.values.max())
    assert found.address.startswith("file:") and "#list&only=" in found.address
    for wrong in (3, {}, {"d": acts["a"][0]}, {"a": acts["a"]}, {"a": acts["a"][0][:, :3]}):
        with refuses("acts"):
            page.find(wrong)


def test_a_notebook_gets_a_frame_where_it_can(sae, acts, page, tmp_path, monkeypatch):
    with refuses("path"):
        page.show()
    monkeypatch.chdir(page.path.parent.parent)
    assert 'src="page/index.html#c=3"' in page.show(at="c=3")._repr_html_()
    one = explore(sae, acts, tmp_path / "one", one_file=True)
    assert one.show()._repr_html_().startswith("<iframe") and "srcdoc=" in one.show()._repr_html_()
    with refuses("height", 3):
        page.show(3)
    assert "40 images" in repr(page)


def test_proposals_are_the_words_closest_to_the_images(sae, acts, tmp_path):
    peaks = sae.encode(acts["a"].reshape(-1, N_CONCEPTS), "a").to_dense().reshape(N_IMAGES, -1, N_CONCEPTS).max(1)
    words = np.eye(N_CONCEPTS)
    page = explore(sae, acts, tmp_path / "x", embeddings=peaks, vocabulary={f"word {i}": words[i] for i in range(N_CONCEPTS)})
    found = read_folder(page.path.parent)["index", 0]["header"]["proposals"]
    right = [bool(one) and one[0][0] == f"word {i}" for i, one in enumerate(found)]
    assert np.mean(right) > 0.8 and found[N_CONCEPTS - 1] == []


@pytest.mark.slow
def test_measures_controls_and_maximized_images_are_shown(sae, acts, tmp_path):
    controls = usae.controls(sae, acts, include=("tokens",), progress=False)
    own, by_model = np.arange(N_CONCEPTS) / 2, np.arange(3 * N_CONCEPTS).reshape(3, -1)
    page = explore(sae, acts, tmp_path / "x", controls=controls, measures={"one": own, "each": by_model}, coordinates="tsne")
    content = read_folder(page.path.parent)["index", 0]
    values = dict(zip([x["key"] for x in content["header"]["columns"]], content["arrays"]["columns"], strict=True))
    np.testing.assert_array_equal(values["given:0"], own)
    np.testing.assert_array_equal(values["given:1:2"], by_model[2])
    np.testing.assert_allclose(values["z"], np.clip(controls.tokens.z, -999, 999), rtol=2e-4, atol=1e-6)
    assert content["header"]["overview"]["controls"][0][0] == "this autoencoder"


@pytest.mark.slow
def test_more_images_than_two_bytes_count_are_numbered(tmp_path):
    n = 65_540
    codes = np.zeros((n, 2), np.float32)
    codes[:, 0] = np.linspace(0.1, 1, n)
    sae = identity_sae(2, ("a",), k=1)
    page = usae.explorer(sae, {"a": codes}, None, tmp_path / "x", images=70_000, progress=False)
    content = read_folder(page.path.parent)
    assert content["index", 0]["arrays"]["shown"][0, 0, 0] == n - 1
    assert len([key for key in content if key[0] == "images"]) == -(-n // 350)


def test_the_page_is_valid_javascript_without_markup_from_data():
    import shutil
    import subprocess

    from usae._explorer import files

    text = "".join(files.page("x", []))
    code = text[text.index("<script>") + 8 : text.rindex("</script>")]
    assert "innerHTML" not in code and "insertAdjacent" not in code and "document.write" not in code and "eval(" not in code
    assert "fetch(" not in code and "XMLHttpRequest" not in code and "http:" not in code.replace("http://www.w3.org", "")
    if shutil.which("node"):
        subprocess.run(["node", "--check", "-"], input=code, text=True, check=True)


def test_a_title_with_the_names_of_the_pages_parts_is_a_title(sae, acts, tmp_path):
    plain = explore(sae, acts, tmp_path / "x", title="x").path.read_text(encoding="utf-8")
    title = "a {{code}} {{style}} {{title}} {{data}} {{other}} \\1 b"
    assert explore(sae, acts, tmp_path / "y", title=title).path.read_text(encoding="utf-8") == (
        plain.replace("<title>x<", f"<title>{title}<").replace('id="brand">x<', f'id="brand">{title}<')
    )


def test_lines_of_the_page_are_as_short_as_those_of_python():
    import importlib.resources

    folder = importlib.resources.files("usae._explorer") / "page"
    lines = [(one.name, line) for one in folder.iterdir() for line in one.read_text(encoding="utf-8").splitlines()]
    assert [(name, line) for name, line in lines if len(line) > 128] == []


def test_every_script_of_the_page_is_in_the_list():
    import importlib.resources

    from usae._explorer import files

    folder = importlib.resources.files("usae._explorer") / "page"
    assert {one.name for one in folder.iterdir() if one.name.endswith(".js")} == set(files.SCRIPTS)


def test_images_of_one_model_are_explored_too(tmp_path):
    acts = made_up(models=("only",))
    page = explore(identity_sae(N_CONCEPTS, ("only",), k=3), acts, tmp_path / "x")
    header = read_folder(page.path.parent)["index", 0]["header"]
    assert not [one for one in header["columns"] if len(one["models"]) == 2] and header["presets"]


def test_without_bands_there_are_none(sae, acts, tmp_path):
    page = explore(sae, acts, tmp_path / "x", bands=0)
    assert read_folder(page.path.parent)["concepts", 0]["arrays"]["bands"].shape == (N_CONCEPTS, len(MODELS), 0)


def test_coordinates_of_any_size_are_placed(sae, acts, tmp_path):
    places = np.zeros((N_CONCEPTS, 2))
    places[:2, 0] = -np.finfo(np.float64).max, np.finfo(np.float64).max
    page = explore(sae, acts, tmp_path / "x", coordinates=places)
    found = read_folder(page.path.parent)["index", 0]["arrays"]["places"]
    np.testing.assert_allclose(found[:3, 0], [0, 1, 0.5], atol=1e-3)


@pytest.mark.parametrize("tokens", [5, 17, 201])
def test_tokens_that_fill_no_square_are_told(tokens, tmp_path):
    acts = made_up(n_images=6, grid=(1, tokens))
    sae = identity_sae(N_CONCEPTS, MODELS, k=3)
    with pytest.warns(UserWarning, match=r"heat maps.*class"):
        page = explore(sae, acts, tmp_path / "x", grid=None)
    assert read_folder(page.path.parent)["index", 0]["header"]["grid"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explore(sae, acts, tmp_path / "x", grid=(1, tokens))


def test_a_browser_that_leaves_early_is_no_error_and_the_next_is_served(sae, acts, page, capfd):
    with page.serve() as server:
        capfd.readouterr()
        for path in ("", "data/index.js", "data/images-0000.js"):
            with socket.create_connection(("127.0.0.1", server.port)) as gone:
                gone.sendall(f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
        with urllib.request.urlopen(server.address) as answer:
            assert answer.status == 200
        for thread in threading.enumerate():
            if "process_request_thread" in thread.name:
                thread.join()
    assert capfd.readouterr().err == ""


def test_a_page_that_is_gone_is_neither_shown_nor_served(sae, acts, tmp_path):
    page = explore(sae, acts, tmp_path / "x")
    page.path.unlink()
    for act in (page.show, page.serve):
        with pytest.raises(usae.CheckpointFileError) as caught:
            act()
        assert caught.value.errno == errno.ENOENT and str(page.path) in str(caught.value)
