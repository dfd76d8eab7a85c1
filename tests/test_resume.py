"""PPO killed at arbitrary moments, as a user would type it, ends as if it had never been stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import experiments
from experiments import evaluation

OPTIONS = (
    "--env CartPole-v1 --seeds 2 --steps 2400 --evaluations 60 --checkpoint-every 0 "
    "--num-envs 2 --num-steps 20 --num-epochs 1 --network.hidden 8 --eval-episodes 2 --learning-rate 1e-2:0"
).split()


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(experiments.__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "experiments", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def lines(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def test_killed_and_resumed_is_bit_equal(tmp_path):
    whole = start(tmp_path, "train", "ppo", *OPTIONS, "--run-dir", "whole")
    printed, errors = whole.communicate(timeout=300)
    assert (whole.returncode, errors) == (0, "")  # and no progress bar in a pipe
    assert "interquartile mean of 2 seeds" in printed

    rng = random.Random(0)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    words = ["train", "ppo", *OPTIONS, "--run-dir", "killed"]
    for _ in range(2):
        before = lines(metrics)
        running = start(tmp_path, *words)
        while running.poll() is None and lines(metrics) < before + 20:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))  # most of the time goes into checkpoints: they are hit in the middle too
        assert running.poll() is None, running.communicate()
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert before < lines(metrics) < 120
        words = ["resume", "killed", "--checkpoint-every", "0"]
    resumed = start(tmp_path, *words)
    _, errors = resumed.communicate(timeout=300)
    assert (resumed.returncode, errors) == (0, "")

    assert metrics.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    ends = [evaluation.restore(tmp_path / name).runs for name in ("whole", "killed")]
    data = [jax.tree.leaves(end._replace(key=jax.random.key_data(end.key))) for end in ends]
    for one, other in zip(*data, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
