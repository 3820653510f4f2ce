"""The notebook in examples/ is run as Jupyter runs it, in an empty folder."""

import pathlib

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

PATH = pathlib.Path(__file__).resolve().parents[3] / "examples" / "shared_concepts.ipynb"
MOST_CELLS = 14


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, as_version=4)


def test_the_notebook_is_short_and_stored_without_outputs(stored):
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert len(stored.cells) <= MOST_CELLS and {cell.cell_type for cell in stored.cells} == {"code", "markdown"}
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_pictures(stored, tmp_path):
    done = nbclient.execute(stored.copy(), cwd=tmp_path, timeout=600)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert any("R2 of" in output.get("text", "") for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("<iframe" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["explorer.html"]
