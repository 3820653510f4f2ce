"""A core for each test."""

import pytest

from support.core import WIDTHS, new_core


@pytest.fixture
def core():
    core = new_core()
    core.initialize(list(WIDTHS), list(WIDTHS.values()))
    return core
