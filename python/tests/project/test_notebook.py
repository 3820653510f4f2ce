"""The notebooks in examples/ are run as Jupyter runs them, in an empty folder."""

import pathlib

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples"
NOTEBOOKS = ("shared_concepts.ipynb", "concepts_at_work.ipynb")
MOST_CELLS = 14


def stored(name):
    return nbformat.read(EXAMPLES / name, as_version=4)


def done(name, folder):
    """What running a notebook gives, of which nothing is an error."""
    cells = nbclient.execute(stored(name), cwd=folder, timeout=600).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return outputs


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_every_notebook_is_tested():
    assert sorted(NOTEBOOKS) == sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_is_short_and_stored_without_outputs(name):
    notebook = stored(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= MOST_CELLS and {cell.cell_type for cell in notebook.cells} == {"code", "markdown"}
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_of_shared_concepts_runs_and_shows_pictures(tmp_path):
    outputs = done("shared_concepts.ipynb", tmp_path)
    assert pictures(outputs) == 4
    assert any("R2 of" in output.get("text", "") for output in outputs)
    assert any("<iframe" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["explorer.html"]


@pytest.mark.slow
def test_the_notebook_of_concepts_at_work_runs_and_shows_pictures(tmp_path):
    outputs = done("concepts_at_work.ipynb", tmp_path)
    assert pictures(outputs) == 4
    texts = [output.get("text", "") for output in outputs]
    assert all(any(words in text for text in texts) for words in ("Effects of", "loss recovered", "without the concept"))
    assert not list(tmp_path.iterdir())
