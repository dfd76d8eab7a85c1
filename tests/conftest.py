"""What every test file shares."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs of one file are of no use to the next, and together fill gigabytes."""
    yield
    jax.clear_caches()
