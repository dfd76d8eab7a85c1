"""What every test file shares."""

import os

import jax
import jaxlib
import pytest
from xdist.scheduler import LoadFileScheduling

LONG = ("test_contract.py", "test_preflight.py", "test_learning.py")


def pytest_addoption(parser):
    parser.addoption("--fast-compile", action="store_true", help="programs that compile faster and run slower")


def pytest_configure(config):
    """Processes on cores of their own, a third faster than sharing them, and programs that compile fast.

    Most tests compile for seconds what runs for milliseconds: not optimised, it takes a third of the time.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})
    if config.option.fast_compile:
        flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
        if jaxlib.version.__version_info__ < (0, 11):  # later ones compile fusions in one way only
            flags.append("--xla_cpu_use_fusion_emitters=false")
        os.environ["XLA_FLAGS"] = " ".join(flags)


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
