"""What every test file shares."""

import jax
import pytest
from xdist.scheduler import LoadFileScheduling

LONG = ("test_contract.py", "test_preflight.py", "test_learning.py")


class _ByFileOrLearner(LoadFileScheduling):
    """A file at a time for each process, and of the long ones, which go through all learners, a learner at a time."""

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        return file + test.partition("[")[2] if file.endswith(LONG) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return _ByFileOrLearner(config, log)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs of one file are of no use to the next, and together fill gigabytes."""
    yield
    jax.clear_caches()
