"""What every test file shares."""

import jax
import pytest
from xdist.scheduler import LoadFileScheduling

THROUGH_LEARNERS = ("test_contract.py", "test_preflight.py")


class _ByFileAndLearner(LoadFileScheduling):
    """A file at a time for each process, and of the two that go through all learners, a learner at a time."""

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        return file + test.partition("[")[2] if file.endswith(THROUGH_LEARNERS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return _ByFileAndLearner(config, log)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs of one file are of no use to the next, and together fill gigabytes."""
    yield
    jax.clear_caches()
