"""`usae explore`: from a saved autoencoder, a store and its pictures to a page."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

import usae
from support.commands import printed, refusal
from support.explorers import read_folder

pytestmark = pytest.mark.slow  # together: each is short

pytest.importorskip("torch")


def test_explore_finds_the_pictures_of_a_store_and_writes_a_folder_or_one_file(made, tmp_path, capsys):
    given = ("explore", made / "model", "--acts", made / "held-out", "--images", made / "held-out-photographs")
    told = printed(capsys, *given, "--output", tmp_path / "page", "--examples", 3, "--title", "<b>mine</b>")
    content = read_folder(tmp_path / "page")
    store = usae.ActivationStore(made / "held-out")
    assert told["page"] == str(tmp_path / "page" / "index.html")
    assert told["bytes"] == sum(file.stat().st_size for file in (tmp_path / "page").rglob("*") if file.is_file())
    assert sorted(content["images", 0]["names"]) == sorted(store.images) and all(content["images", 0]["pictures"])
    header = content["index", 0]["header"]
    assert (header["examples"], header["title"], header["grid"]) == (3, "<b>mine</b>", list(store.grid))
    one = printed(capsys, *given, "--output", tmp_path / "one", "--one-file")
    assert one["page"] == str(tmp_path / "one.html") and one["bytes"] == (tmp_path / "one.html").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--images", "no-such-folder"], "--images"),
        (["--examples", "0"], "--examples"),
        (["--side", "1"], "--side"),
        (["--port", "-1"], "--port"),
        (["--json", "--serve"], "--json"),
        (["--labels", "no-such-file"], "labels"),
        (["--grid", "5by5"], "--grid"),
    ],
)
def test_a_refusal_names_the_option(made, tmp_path, capsys, arguments, named):
    given = ["explore", made / "model", "--acts", made / "held-out", "--output", tmp_path / "page"]
    assert named in refusal(capsys, *given, *arguments)
    assert not (tmp_path / "page").exists()


def test_explore_serves_until_ctrl_c(made, tmp_path):
    command = [
        sys.executable,
        "-m",
        "usae",
        "explore",
        made / "model",
        "--acts",
        made / "held-out",
        "--output",
        tmp_path / "page",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([*map(str, command), "--serve"], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        assert urllib.request.urlopen(address).read().startswith(b"<!-- usae-explorer")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
