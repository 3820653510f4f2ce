"""Images for networks."""

import numpy as np
import pytest


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((2, 3, 16, 24)).astype(np.float32)
