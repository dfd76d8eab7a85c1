"""The harness at a tiny size: every benchmark runs, and its figures come from the right columns."""

import dataclasses
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from experiments import cli, registry
from experiments.benchmarks import (
    accelerator,
    anatomy,
    ceilings,
    contest,
    cores,
    images,
    ours,
    pictures,
    protocol,
    report,
    sampling,
    scaling,
    searching,
    steady,
    tasks,
)
from generative import layers
from jaxrl import replay
from jaxrl.core import loop

FAKE = """
import sys
sys.path.insert(0, {folder!r})
import protocol
def start(task):
    print("a library's own line")
    def play(number):
        return protocol.Round(task["steps"], {seconds} * (1 + number), 7.0 + number, task["steps"] * (1 + number))
    return protocol.Ready(play, 0.25, "abacus", ())
protocol.serve(start)
"""


def fake(path, name, seconds):
    """The command of a contestant that says it took `seconds`, then twice, three times as many."""
    script = path / f"{name}.py"
    script.write_text(FAKE.format(folder=str(contest.HERE), seconds=seconds))
    return [sys.executable, str(script)]


def test_ratios_medians_and_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(
        contest,
        "contestants",
        lambda task, peers: {
            contest.OURS: fake(tmp_path, "ours", 0.5),
            "rejax": fake(tmp_path, "rejax", 2.0),
            "stable-baselines3": fake(tmp_path, "sb3", 4.0),
        },
    )
    task = tasks.OnPolicy(4, 100, 50)
    ours, rejax, sb3 = contest.run("toy", task, 3, None)
    assert ours.steps_per_second == 100 / (0.5 * 2) and ours.ours_over_theirs == 1
    assert ours.fastest == 100 / 0.5 and ours.slowest == pytest.approx(100 / (0.5 * 3))
    assert rejax.steps_per_second == 25 and rejax.ours_over_theirs == 4 and sb3.ours_over_theirs == 8
    assert ours.score == rejax.score == 8.0 and ours.metric == "return"  # each round a training
    assert sb3.score == 9.0 and sb3.steps_scored == 300  # the rounds are one training
    assert ours.compile_seconds == 0.25 and ours.peak_megabytes > 1 and ours.device == "abacus"


def test_a_contestant_that_fails_is_quoted(tmp_path, monkeypatch):
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no such environment')")
    monkeypatch.setattr(contest, "contestants", lambda task, peers: {"rejax": [sys.executable, str(script)]})
    with pytest.raises(RuntimeError, match=r"rejax ended with code 1(.|\n)*no such environment"):
        contest.run("toy", tasks.OnPolicy(4, 100, 50), 1, None)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_task_survives_its_way_to_a_contestant(name):
    task = tasks.get(name)
    assert tasks.from_json(tasks.to_json(task)) == task
    assert tasks.from_json(tasks.to_json(tasks.tiny(task))) == tasks.tiny(task)


def test_every_contestant_gets_the_same_command_but_for_its_program():
    peers = Path("python")
    assert set(contest.contestants(tasks.get("ppo-cartpole-4x1"), peers)) == {"jaxrl", "rejax", "stable-baselines3"}
    assert set(contest.contestants(tasks.get("ppo-cartpole-4x8"), peers)) == {"jaxrl", "rejax"}
    assert set(contest.contestants(tasks.get("ppo-breakout-64x1"), peers)) == {"jaxrl", "rejax"}
    for name in ("vae", "pixelcnn"):
        assert set(contest.contestants(tasks.get(name), peers)) == {"jaxrl", "pytorch"}
    assert set(contest.contestants(tasks.get("vae"), None)) == {"jaxrl"}


PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
installed = pytest.mark.skipif(not PEERS.exists(), reason="other libraries are not installed: `make peers`")


@pytest.mark.slow
@installed
@pytest.mark.parametrize("name", ["ppo-cartpole-4x8", "dqn-cartpole-10x1", "ddpg-pendulum-1x1", "vae", "pixelcnn"])
def test_contestants_do_as_much_and_are_scored_alike(name):
    rows = contest.run(name, tasks.tiny(tasks.get(name)), 2, PEERS)
    assert {row.contestant for row in rows} == set(contest.contestants(tasks.get(name), PEERS))
    scored = {row.contestant: row.steps_scored for row in rows}
    task = tasks.tiny(tasks.get(name))
    if "stable-baselines3" in scored:  # ten steps after the warm-up, then two rounds
        assert scored.pop("stable-baselines3") == task.warmup + task.num_envs * 10 + 2 * task.torch_steps
    assert set(scored.values()) == {task.steps}
    assert all(row.score is not None and row.versions and row.device for row in rows)
    if isinstance(task, tasks.Images):  # hardly trained, by one or a few steps: near each other
        ours, theirs = (row.score for row in rows)
        assert 0.5 < ours / theirs < 2.0


COUNT = """
import json, sys
sys.path.insert(0, {folder!r})
import jax, peer_rejax, peer_sb3
task = json.loads(sys.argv[1])
state = peer_rejax.build(task).train(rng=jax.random.PRNGKey(0))[0]
critic = state.q_ts if task["algorithm"] == "dqn" else state.critic_ts
model, half, epsilon = peer_sb3.build(task), task["steps"] // 2, []
if task["algorithm"] == "dqn":
    peer_sb3.like_the_others(model, 10 * task["steps"])
for part in range(2):
    model.learn(half, reset_num_timesteps=part == 0)
    epsilon.append(getattr(model, "exploration_rate", 0))
print(int(state.global_step), int(critic.step), model.num_timesteps, model._n_updates, *epsilon)
"""


@pytest.mark.slow
@installed
@pytest.mark.parametrize("algorithm", ["dqn", "ddpg", "td3", "sac"])
def test_the_warm_up_counts_alike(algorithm):
    name = "dqn-cartpole-10x1" if algorithm == "dqn" else f"{algorithm}-pendulum-1x1"
    task = dataclasses.replace(tasks.tiny(tasks.get(name)), capacity=1000)  # everything
    done = subprocess.run(
        [str(PEERS), "-c", COUNT.format(folder=str(contest.HERE)), tasks.to_json(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    *counts, half_way, at_the_end = done.stdout.split()[-6:]
    rejax, sb3 = np.array(counts, int).reshape(2, 2)
    ours = counted(task)
    assert ours == (task.steps, (task.steps - task.warmup) // task.num_envs) == tuple(sb3)
    late = algorithm in ("ddpg", "td3")
    assert tuple(rejax) == (ours[0], ours[1] - late)
    if algorithm == "dqn":  # a tenth of ten times the steps; the calls of `learn` do not matter
        assert (float(half_way), float(at_the_end)) == (pytest.approx(0.525), pytest.approx(0.05))


def counted(task):
    """Environment and gradient steps of a training of ours."""
    learner, hparams, source, num_updates, _ = ours.agent(task)
    run = loop.start(learner, random.key(0), hparams, source, num_updates)
    state = jax.jit(partial(loop.chunk, learner, num_updates))(run, hparams, source)[0].state
    fitted = state.fit if task.algorithm == "dqn" else state.critic if task.algorithm == "ddpg" else state.critics
    return int((state.buffer.kind != replay.EMPTY).sum()), int(fitted.opt_state[0].count)


def test_unknown_benchmarks_are_refused_with_the_nearest_name(capsys):
    assert cli.main("bench ppo-cartpole-4x2".split()) == 2
    assert "ppo-cartpole-4x8" in capsys.readouterr().err


def test_the_protocol_imports_nothing_of_ours():
    assert "experiments" not in Path(protocol.__file__).read_text()


def test_the_file_of_a_benchmark_says_where_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contest, "contestants", lambda task, peers: {contest.OURS: fake(tmp_path, "ours", 0.5)})
    caching = jax.config.values["jax_enable_compilation_cache"]
    monkeypatch.setattr(cli, "cache_programs", lambda: None)
    try:
        assert cli.main("bench ppo-cartpole-4x1 --rounds 1 --out bench.json".split()) == 0
    finally:
        jax.config.update("jax_enable_compilation_cache", caching)
    found = json.loads(Path("bench.json").read_text())
    assert found["machine"].keys() >= {"processor", "cores", "devices", "device_kind", "versions", "git_revision"}
    assert found["machine"]["versions"].keys() >= {"python", "jax", "jaxlib"}
    (row,) = found["rows"]
    assert row["benchmark"] == row["task"] == "ppo-cartpole-4x1" and row["device"] == "abacus"
    assert row.keys() == {"benchmark", *(field.name for field in dataclasses.fields(contest.Row))}


def test_speed_over_layouts_is_that_of_the_same_round(monkeypatch):
    speeds = {"one core": [1.0, 2.0, 4.0], "plain": [2.0, 2.0, 8.0], "spread": [6.0, 8.0, 8.0]}

    class Layout:
        def __init__(self, speeds):
            self.speeds = lambda: speeds
            self.about = {"compile_seconds": 1.0}

        def play(self, number):
            pass

    def started(name, command, layout):
        return nullcontext(Layout(speeds["one core" if layout.one_core else "plain" if found.pop() else "spread"]))

    found = [False, True]  # the first of one device that may use all cores is the plain one
    monkeypatch.setattr(contest, "started", started)
    one, plain, spread = cores.run(3)
    assert (one.layout, plain.layout, spread.layout) == ("one core", "plain", "spread")
    assert (one.over_one_core, plain.over_one_core, spread.over_one_core) == (1, 2, 4)
    assert (one.over_plain, plain.over_plain, spread.over_plain) == (0.5, 1, 3)
    assert (spread.steps_per_second, spread.slowest, spread.fastest) == (8, 6, 8)


def test_a_model_is_held_against_its_own_products(monkeypatch):
    task = tasks.tiny(tasks.get("vae"))
    monkeypatch.setattr(steady, "compiled", lambda *_: None)
    monkeypatch.setattr(steady, "medians", lambda *_: {"training": 50.0})
    monkeypatch.setattr(ceilings, "product", lambda *_: ceilings.Product("", 1.0, 0.0))
    found = ceilings.of_task("vae", task, 1)
    pixels, (wide, narrow), latent = task.side**2, task.hidden, task.latent_size
    encoder = pixels * wide + wide * narrow + narrow * 2 * latent
    decoder = latent * narrow + narrow * wide + wide * pixels
    # Forward, to the weights, and, but for the first layer, to the inputs.
    assert found.products == pytest.approx(1e9 / (6 * (encoder + decoder) - 2 * pixels * wide))
    assert found.share_of_products == 50.0 / found.products


@pytest.mark.parametrize("side", [8, 9, 28])
def test_images_are_digits_enlarged(side, tmp_path):
    written = images.read(str(images.write(side, tmp_path)), side)
    here = images.read("", side)
    for split in ("train", "test"):
        np.testing.assert_array_equal(written[split], here[split])
    times, small = side // 8, images.enlarged(8)["train"]
    assert here["train"].shape[1:] == (side, side) and set(np.unique(small)) == {0, 1}
    np.testing.assert_array_equal(here["train"].sum((1, 2)), times**2 * small.sum((1, 2)))
    blank = (side - 8 * times) // 2
    np.testing.assert_array_equal(here["train"][:, blank::times, blank::times][:, :8, :8], small)


def test_products_neither_grow_nor_fade():
    programs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steady, "compiled", lambda function, work, *args: programs.append((function, args)))
        patch.setattr(steady, "medians", lambda *_: {"product": 1.0, "weight_gradient": 1.0})
        ceilings.product(32, 24, 8, rounds=1, repeats=50)
    there_and_back, weight_gradient = (function(*args) for function, args in programs)
    assert 0.1 < jnp.abs(there_and_back).mean() < 1.0
    (batch, gradient) = programs[1][1]
    np.testing.assert_allclose(weight_gradient, batch.T @ gradient, rtol=1e-2, atol=1e-2)


RATIOS = {
    "share_of_acting": ("training", "acting"),
    "share_of_products": ("training", "products"),
    "naive_over_cached": ("naive_seconds", "cached_seconds"),
}


# Tasks of the same algorithm differ in numbers alone.
CONTESTS = {"ppo-cartpole-4x8", "ppo-breakout-64x1", "dqn-cartpole-10x1", "ddpg-pendulum-64x1", "td3-pendulum-1x8"}
CONTESTS |= {"sac-pendulum-1x1", "vae", "pixelcnn"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in report.names() if name in CONTESTS or name not in tasks.TASKS])
def test_every_benchmark_runs(name, tmp_path):
    result = report.run([name], 2, None, tiny=True)
    json.dumps(result)
    pictures.draw(result["rows"], tmp_path / "picture.png")
    drawn = name in tasks.TASKS or name == "sampling" or name.startswith("scaling-")
    assert (tmp_path / "picture.png").exists() == drawn
    assert result["rows"] and all(row["benchmark"] == name for row in result["rows"])
    for row in result["rows"]:
        for ratio, (above, below) in RATIOS.items():
            assert ratio not in row or row[ratio] == pytest.approx(row[above] / row[below])
        numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
        # Its rounds are too short for a score to mean anything, but a speed is a speed.
        scores = ("score", "over_random", "over_random_low", "over_random_high")
        assert all(value > 0 for key, value in numbers.items() if key not in scores), row


def test_operations_are_told_apart():
    text = """
%moving (p: f32[8,4], i: s32[]) -> f32[4] {
  %p = f32[8,4]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %slice = f32[1,4]{1,0} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={1,4}
  ROOT %flat = f32[4]{0} bitcast(%slice)
}

%fused (p: f32[8,4], q: f32[4,2]) -> f32[8,2] {
  %p = f32[8,4]{1,0} parameter(0)
  %q = f32[4,2]{1,0} parameter(1)
  %product = f32[8,2]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %bent = f32[8,2]{1,0} tanh(%product)
}

ENTRY %main (x: f32[8,4], y: f32[4,2]) -> f32[8,2] {
  %x = f32[8,4]{1,0} parameter(0)
  %picked = f32[4]{0} fusion(%x, %i), kind=kLoop, calls=%moving
  %layer = f32[8,2]{1,0} fusion(%x, %y), kind=kCustom, calls=%fused
  %both = (f32[8,2]{1,0}, s32[]) tuple(%layer, %i)
  %loop = (f32[8,2]{1,0}, s32[]) while(%both), condition=%more, body=%again
  ROOT %out.1 = f32[8,2]{1,0} exponential(%layer)
}
"""
    found = anatomy.kinds(text)
    assert found["picked"] == "moves" and found["layer"] == "products" and found["out_1"] == "arithmetic"
    assert "loop" not in found
    ran = {"layer": 4.0, "out_1": 2.0, "sm90_gemm_cublas": 1.0, "MemcpyD2D": 3.0, "loop": 100.0}
    events = [anatomy.Event(name, 0.0, milliseconds) for name, milliseconds in ran.items()]
    assert anatomy.shares(events, found) == {"products": 0.5, "moves": 0.3, "arithmetic": 0.2}


def test_a_device_is_busy_while_anything_runs():
    events = [anatomy.Event("", begin, milliseconds) for begin, milliseconds in ((6.0, 2.0), (0.0, 4.0), (1.0, 1.0))]
    assert accelerator.busy(events) == 6 / 8


def test_an_accelerator_is_asked_for_by_name_on_a_cpu(monkeypatch):
    monkeypatch.setattr(report, "machine", dict)
    asked: list[str] = []
    monkeypatch.setattr(report, "_benchmark", lambda name, *_: asked.append(name) or [])
    report.run([], 1, None)
    assert asked == [name for name in report.names() if name != "accelerator"]


def test_what_was_measured_before_a_machine_dies_is_stored(tmp_path, monkeypatch):
    def dies(name, *_):
        yield {"task": "first"}
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_benchmark", dies)
    with pytest.raises(KeyboardInterrupt):
        report.run(["hardware"], 1, None, tmp_path / "bench.json")
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert stored["rows"] == [{"benchmark": "hardware", "task": "first"}] and stored["machine"]["cores"]


def test_every_learner_has_something_to_be_measured_with():
    for name in registry.LEARNERS:
        preset, experiment = anatomy.subject(name)
        assert experiment.algorithm == name and "mnist" not in preset


@pytest.mark.slow
def test_samples_that_differ_are_no_comparison(monkeypatch):
    write = layers.write
    monkeypatch.setattr(
        layers, "write", lambda conv, cache, row, column, *rest: write(conv, cache, row, column + 1, *rest)
    )
    with pytest.raises(RuntimeError, match=r"\d+ of 1024 values are not those of cached"):
        sampling.measured("pixelcnn-binarized-mnist", (8, 8, 1), batch=16, passes=64, rounds=1)


def test_halving_spends_as_much_as_random_search_and_keeps_the_best():
    scores = np.zeros((searching.POINTS, searching.EVALUATIONS))
    scores[5, 1:] = 2.0  # the best but at the first stop, one evaluation before
    scores[7, :] = 1.0
    scores[9, 7] = scores[11, 15] = 3.0  # too late: dropped before
    found, whole_runs = searching.halve(scores)
    assert (found, whole_runs) == (5, searching.MEMBERS)
    assert searching.best(scores[None], np.arange(searching.POINTS)[None]) == [11]


@pytest.mark.slow
def test_memory_grows_with_lanes_and_capacity():
    dqn = tasks.get("dqn-cartpole-10x1")
    small, small_state = scaling.training(dataclasses.replace(dqn, capacity=1000), 2, 2)
    large, large_state = scaling.training(dataclasses.replace(dqn, capacity=100_000), 2, 2)
    # An observation of four floats, an action, a reward and a mark, once and not copied.
    grown = 99_000 * (16 + 4 + 4 + 1)
    assert large_state - small_state == grown
    assert 0.9 < (large.bytes_needed - small.bytes_needed) / grown < 2.2
