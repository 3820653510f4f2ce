"""Collections of pictures as users have them: data sets, loaders, folders, arrays and series of paths."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from support.pictures import MODEL, SIZE, contents, pixels, random_colours
from support.refusals import refuses
from usae.torch import extract


@pytest.fixture
def colours():
    return random_colours()


class Pairs(Dataset):
    """Of pictures and labels, as data sets of torchvision are."""

    def __init__(self, items, fails=()):
        self.items, self.fails = items, fails

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        if number in self.fails:
            raise OSError("image file is truncated")
        return self.items[number], number % 2


@pytest.fixture
def several():
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)


def test_data_sets_and_loaders_give_their_pictures(several):
    expected = pixels(several)
    floats = torch.from_numpy(several).movedim(3, 1).float() / 255

    class Endless(IterableDataset):
        def __iter__(self):
            return iter(zip(several, range(5), strict=True))

    class Numbered:
        def __len__(self):
            return 5

        def __getitem__(self, number):
            return {"image": Image.fromarray(several[number]), "label": 1}

    mappings = [{"image": x, "label": 1, "text": "a fox"} for x in several]
    for collection in (
        Pairs(several),
        Pairs([Image.fromarray(x) for x in several]),
        Pairs(floats),
        TensorDataset(floats, torch.arange(5)),
        TensorDataset(floats),
        DataLoader(Pairs(floats), batch_size=2),
        DataLoader(TensorDataset(floats, torch.eye(5)), batch_size=2),
        DataLoader(mappings, batch_size=3, collate_fn=lambda items: {"pixel_values": np.stack([x["image"] for x in items])}),
        Subset(Pairs(several), range(5)),
        Endless(),
        Numbered(),
        mappings,
        [{"img": {"bytes": contents(Image.fromarray(x), format="PNG"), "path": None}} for x in several],
        [(x, "a label") for x in several],
        [[x] for x in several],
        (several[:3], several[3:]),
        np.array([Image.fromarray(x) for x in several] + [None], object)[:5],
    ):
        acts = extract({"a": MODEL}, collection, batch_size=2)["a"]
        np.testing.assert_allclose(acts.transpose(0, 2, 1).reshape(expected.shape), expected, atol=1e-7)


def test_an_example_that_fails_is_named_and_can_be_left_out(several, tmp_path):
    failing = Pairs(several, fails=(1, 4))
    with refuses("images[1]", "OSError"):
        extract({"a": MODEL}, failing)
    skipped = []
    with pytest.warns(UserWarning, match="2 of 5"):
        acts = extract({"a": MODEL}, failing, on_error="skip", skipped=skipped)
    np.testing.assert_array_equal(acts["a"], extract({"a": MODEL}, several[[0, 2, 3]])["a"])
    assert [(each.number, each.name) for each in skipped] == [(1, "images[1]"), (4, "images[4]")]


def test_an_image_folder_keeps_the_names_of_its_files(several, tmp_path):
    for n, x in enumerate(several):
        (tmp_path / f"class {n % 2}").mkdir(exist_ok=True)
        Image.fromarray(x).save(tmp_path / f"class {n % 2}" / f"{n}.png")

    class ImageFolder(Pairs):  # torchvision's
        def __init__(self):
            self.samples = [(str(path), 0) for path in sorted(tmp_path.glob("*/*.png"))]
            super().__init__([Image.open(path) for path, _ in self.samples])

    store = extract({"a": MODEL}, Subset(ImageFolder(), [0, 3]), store=tmp_path / "acts")
    assert store.images == (str(tmp_path / "class 0" / "0.png"), str(tmp_path / "class 1" / "1.png"))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: [(x, x)],
        lambda x: [[Image.fromarray(x), Image.fromarray(x)]],
        lambda x: [("a.jpg", "b.jpg")],
        lambda x: [((x, 1), (x, 2))],
        lambda x: [{"image": x, "img": x}],
        lambda x: [{"left": x}],
        lambda x: [()],
        lambda x: [None],
    ],
)
def test_no_second_picture_is_ignored(colours, make):
    with refuses("images[0]"):
        pixels(make(colours))


def test_a_folder_is_read_with_its_subfolders_and_without_what_systems_leave_in_it(several, tmp_path):
    places = ["b.png", "a/z.PNG", "a/b/c.jpeg.png", "a.b.png", "d.JPG"]
    for place, x in zip(places, several, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(tmp_path / place, quality=100)
    hidden = "._b.png", "a/._z.PNG", "__MACOSX/b.png", "@eaDir/b.png", ".thumbnails/b.png", ".DS_Store"
    for place in (*hidden, "notes.txt", "a/Thumbs.db"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"Mac OS X")
    (tmp_path / "empty.png").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    store = extract({"a": MODEL}, tmp_path, store=tmp_path.parent / f"{tmp_path.name}-acts")
    assert store.images == ("a/b/c.jpeg.png", "a/z.PNG", "a.b.png", "b.png", "d.JPG")
    order = [places.index(name) for name in store.images]
    np.testing.assert_allclose(pixels(tmp_path)[:4], pixels(several[order])[:4])


def test_arrays_of_paths_are_paths(several, tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, x in zip(paths, several, strict=True):
        Image.fromarray(x).save(path)
    texts = [str(path) for path in paths]
    for given in (
        np.array(texts),
        np.array(paths, object),
        np.array([os.fsencode(x) for x in texts]),
        tuple(paths),
        iter(texts),
    ):
        np.testing.assert_array_equal(pixels(given), pixels(several))
    np.testing.assert_array_equal(pixels(np.array(texts[0])), pixels(several[0]))
    with refuses("images", "[1, 5]"):
        pixels(np.array([texts]))


def test_a_series_of_paths_is_read_in_its_order(several, tmp_path):
    pandas = pytest.importorskip("pandas")
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, x in zip(paths, several, strict=True):
        Image.fromarray(x).save(path)
    series = pandas.Series([str(path) for path in paths], index=[3, 1, 0, 2, 4])
    np.testing.assert_array_equal(pixels(series), pixels(several))


def test_a_file_whose_name_is_not_utf_8_has_a_name_that_can_be_stored(colours, tmp_path):
    (tmp_path / "p").mkdir()
    path = os.path.join(os.fsencode(tmp_path / "p"), b"caf\xe9.png")
    with open(path, "wb") as file:
        file.write(contents(Image.fromarray(colours), format="PNG"))
    store = extract({"a": MODEL}, tmp_path / "p", store=tmp_path / "acts")
    assert store.images == ("caf\udce9.png",)
    extract({"a": MODEL}, tmp_path / "p", store=tmp_path / "acts")
    open(path, "wb").close()
    with refuses("images"):
        pixels(tmp_path / "p")
