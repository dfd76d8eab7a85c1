"""Lanes and runs over many devices and several processes, each in a process of its own: JAX counts devices once."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import random
from jax.sharding import PartitionSpec

from jaxrl.core import devices, memory, results

ROOT = Path(__file__).parents[1]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def on_devices(count: int, *words: str) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("on_devices.py")), *words],
        env=environment(JAX_NUM_CPU_DEVICES=str(count)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


FORMS = ["ppo-discrete", "dqn", "vae-bernoulli"]


@pytest.mark.parametrize("name", ["q-learning", *(pytest.param(name, marks=pytest.mark.slow) for name in FORMS)])
def test_lanes_over_8_devices_equal_lanes_on_one_and_need_no_communication(name):
    found = on_devices(8, "lanes", name)
    assert (found["devices"], found["collectives"], found["shards"]) == (8, 0, [2] * 8)
    assert found["distance"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FORMS, "pixelcnn"])
def test_a_run_split_over_devices_equals_the_run_on_one(name):
    found = on_devices(2, "split", name)
    assert found["distance"] < 1
    assert found["collectives"] > 0  # gradients are added up
    assert found["share"] < 0.95  # of the operations, on each device; evaluation of these small sizes is most of them


@pytest.mark.slow
def test_a_training_split_by_the_command_line_equals_the_training_on_one():
    found = on_devices(2, "trained", "a2c")
    assert found["distance"] < 1
    assert found["collectives"] > 0


def test_without_a_mesh_nothing_is_split():
    x = np.ones((8, 3))
    assert devices.split({"x": x})["x"] is x
    mesh = devices.mesh()
    assert mesh.size == jax.local_device_count()
    where = devices.shardings(mesh, (0, None, {"x": None, "y": 0}))
    specs = jax.tree.map(lambda sharding: sharding.spec, where)
    over, everywhere = PartitionSpec("lanes"), PartitionSpec()
    assert specs == (over, everywhere, {"x": everywhere, "y": over})


@pytest.mark.parametrize(
    ("count", "unit", "at_once"), [(1, 1, 1), (4, 1, 4), (5, 1, 1), (6, 1, 3), (16, 1, 4), (12, 2, 4), (12, 6, 6)]
)
def test_a_core_takes_few_lanes_at_once(count, unit, at_once):
    """The largest whole part of the lanes within 4, or one unit; results are in the order of the lanes."""
    seen = []

    def function(key, hparams, source):
        seen.append(key.shape[0])
        return {"sum": jax.vmap(lambda key, x: random.uniform(key, (2,)) + x + source["y"])(key, hparams["x"])}

    keys, y = random.split(random.key(0), count), np.arange(2.0, dtype=np.float32)
    arguments = (
        keys,
        {"x": np.arange(count, dtype=np.float32), "rate": np.float32(1)},
        {"y": y, "none": None, "free": np.zeros(0)},
    )
    axes = 0, {"x": 0, "rate": None}, None
    mesh = devices.mesh(devices=jax.local_devices()[:1])
    found = jax.jit(devices.lanes_over(mesh, function, axes, unit))(*arguments)
    assert seen == [at_once]
    np.testing.assert_array_equal(found["sum"], jax.jit(function)(*arguments)["sum"])


def test_cores_are_devices_unless_chosen_otherwise():
    code = "import jax; from jaxrl.core import devices; devices.use_cores(); print(jax.device_count())"
    cores = len(os.sched_getaffinity(0))
    for changes, expected in [
        ({}, cores),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
    ]:
        child = subprocess.run(
            [sys.executable, "-c", code], env=environment(**changes), capture_output=True, text=True, check=True
        )
        assert int(child.stdout) == expected
    devices.use_cores()  # too late: no error


def test_memory_of_a_program_is_what_its_arrays_need():
    x = jax.ShapeDtypeStruct((1000, 256), np.float32)
    compiled = jax.jit(lambda x, y: (x + y, x @ y.T), donate_argnums=0).lower(x, x).compile()
    assert memory.needed(compiled) == pytest.approx(2 * 1_024_000 + 4_000_000, rel=0.3)
    assert memory.size({"x": x, "key": jax.eval_shape(jax.random.key, 0)}) == 1_024_000 + 8
    assert 0 < memory.available(jax.devices()[0]) < 2**45
    assert memory.fitting(64, 6400 + 50, 50, 4150) == 41
    assert memory.fitting(64, 6400 + 50, 50, 40) == 0


@pytest.mark.slow
def test_lanes_of_dqn_need_the_memory_that_was_foretold():
    found = on_devices(1, "memory", "Breakout-MinAtar")
    assert found["foretold"] > 64 * 10_000 * 400  # an observation of 400 bytes for each transition
    assert found["measured"] == pytest.approx(found["foretold"], rel=0.1)


SWEEP = (
    "td_control --env tabular/CliffWalking --steps 4000 --num-steps 40 --evaluations 20 --eval-episodes 1 --seeds 3 "
    "--checkpoint-every 0 --over learning_rate=0.1,0.5,0.9"
).split()


def start(folder: Path, *words: str, devices: int = 1) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    changes = {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "experiments", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment(**changes), stdout=pipe, stderr=pipe, text=True)


def lines(path: Path) -> int:
    """Of all metrics written so far, by a run or by the waves of a sweep."""
    files = [*path.glob("metrics.jsonl"), *path.glob("waves/*/metrics.jsonl")]  # not through checkpoints, which go
    return sum(file.read_bytes().count(b"\n") for file in files)


def wait_for(count: int, path: Path, *processes: subprocess.Popen[str]) -> None:
    while lines(path) < count:
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_resumed_over_two_devices_is_bit_equal(tmp_path):
    whole = start(tmp_path, "sweep", *SWEEP, "--run-dir", "whole", devices=2)
    printed, errors = whole.communicate(timeout=300)
    assert (whole.returncode, errors) == (0, "")
    words = ["sweep", *SWEEP, "--run-dir", "killed"]
    for after in (30, 90):
        running = start(tmp_path, *words, devices=2)
        wait_for(after, tmp_path / "killed", running)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        words = ["resume", "killed", "--checkpoint-every", "0"]
    resumed = start(tmp_path, *words, devices=2)
    table, errors = resumed.communicate(timeout=300)
    assert (resumed.returncode, errors) == (0, "")
    assert (tmp_path / "killed/results.nc").read_bytes() == (tmp_path / "whole/results.nc").read_bytes()
    tables = [[line for line in text.splitlines() if " to " in line] for text in (printed, table)]
    assert tables[0] == tables[1] and len(tables[0]) == 3


@pytest.mark.slow
def test_a_split_run_killed_and_resumed_is_bit_equal(tmp_path):
    words = "train a2c --env CartPole-v1 --num-envs 8 --num-steps 8 --eval-episodes 1 --network.hidden 8 --split "
    words = [*words.split(), *"--steps 2560 --evaluations 20 --checkpoint-every 0 --run-dir".split()]
    whole = start(tmp_path, *words, "whole", devices=2)
    printed, errors = whole.communicate(timeout=300)
    assert (whole.returncode, errors) == (0, ""), printed
    killed = start(tmp_path, *words, "killed", devices=2)
    wait_for(5, tmp_path / "killed", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed = start(tmp_path, "resume", "killed", devices=2)  # split as it was, without being told
    printed, errors = resumed.communicate(timeout=300)
    assert (resumed.returncode, errors) == (0, ""), printed
    assert "Continuing" in printed and not re.search("at update 0", printed)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1] and json.loads((tmp_path / "killed/config.json").read_text())["split"]


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_one_may_be_lost(tmp_path):
    alone = start(tmp_path, "sweep", *SWEEP, "--run-dir", "alone")
    _, errors = alone.communicate(timeout=300)
    assert (alone.returncode, errors) == (0, "")

    def pair(*words: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        together = ("--coordinator", f"localhost:{port}", "--num-processes", "2")
        return [start(tmp_path, *words, *together, "--process", str(process)) for process in range(2)]

    both = pair("sweep", *SWEEP, "--run-dir", "both")
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert "point" in printed[0][0] and "point" not in printed[1][0].replace("points", "")

    lost = pair("sweep", *SWEEP, "--run-dir", "lost")
    wait_for(40, tmp_path / "lost", *lost)
    lost[1].send_signal(signal.SIGKILL)
    time.sleep(1)
    lost[0].send_signal(signal.SIGKILL)  # it would wait for the other until the coordinator gives up
    for process in lost:
        process.communicate()
    assert not (tmp_path / "lost/results.nc").exists()
    resumed = start(tmp_path, "resume", "lost")
    printed = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, printed

    expected = results.load(tmp_path / "alone/results.nc")
    for name in ("both", "lost"):
        found = results.load(tmp_path / name / "results.nc")
        for metric in expected.data_vars:
            np.testing.assert_allclose(found[metric], expected[metric], rtol=1e-4, atol=1e-5)
