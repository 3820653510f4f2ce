"""A save."""

import pytest


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "run", training_state=True)
    return tmp_path / "run"
