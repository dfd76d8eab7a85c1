"""Sweeps on the command line and their folders, with a toy learner where no real one is needed."""

import json
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from experiments import (
    cli,
    experiment,
    folder,
    lanes,
    launching,
    registry,
    sources,
    study,
    summary,
    sweep_plots,
    sweeping,
    training,
    waves,
)
from experiments.experiment import Experiment
from jaxrl.core import devices, loop, memory, results, search, sweep
from jaxrl.core.schedule import Linear


@dataclass(frozen=True)
class Config:
    """What fixes shapes."""

    batch: int = 4  # examples per update
    eval_scale: float = 1.0  # of the score

    @property
    def steps_per_update(self) -> int:
        return self.batch


class Hyperparams(NamedTuple):
    """Numbers."""

    rate: Any = Linear(0.1)  # part of the way to zero
    limit: Any = jnp.inf  # a position beyond it becomes NaN


def make(env, config):
    """A point that walks towards zero, slower with more gravity."""
    del env
    if config.batch < 1:
        raise ValueError(f"batch={config.batch} must be at least 1.")

    def init(key, hparams, source):
        return {"x": random.normal(key, (3,)), "memory": jnp.zeros((config.batch, 100))}

    def update(key, state, hparams, source):
        x = state["x"] * (1 - 9.8 / source.gravity * hparams.rate) + 0.01 * random.normal(key, (3,))
        return {**state, "x": jnp.where(x > hparams.limit, jnp.nan, x)}, {"size": jnp.abs(x).sum()}

    def evaluate(key, state, hparams, source):
        return {"eval/return": -config.eval_scale * jnp.square(state["x"]).sum()}

    return loop.Learner(init, update, evaluate)


@pytest.fixture(autouse=True, scope="module")
def toy_learner():
    """The toy among the learners, for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.LEARNERS, "toy", registry.Learner(__name__, sources.Environment, "eval/return"))
        patch.setattr(cli, "cache_programs", lambda: None)
        patch.setattr(devices, "use_cores", lambda: None)  # it would be for the tests to come as well
        yield


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder of its own for each test."""
    monkeypatch.chdir(tmp_path)


def toy(**changes) -> Experiment:
    return replace(experiment.default("toy"), **{"steps": 32, "evaluations": 4, "seeds": 3, **changes})


FIELDS: dict[str, Any] = {"rate": [0.1, 0.2, 0.3], "batch": [4, 8]}


@pytest.fixture(scope="module")
def whole(toy_learner, tmp_path_factory):
    """A sweep over a traced and a static field in two waves each, never stopped. Not to be written to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return sweeping.sweep(toy(), run_dir=str(path), at_once=5, **FIELDS).folder


@pytest.fixture(scope="module")
def found(whole):
    """Its Dataset."""
    return results.load(whole / "results.nc")


def scores(path) -> np.ndarray:
    return folder.column(folder.read_metrics(Path(path)), "eval/return")[:, 0]


def bits(path) -> list[bytes]:
    """Results, and of every wave its metrics and last state."""
    found = [(Path(path) / "results.nc").read_bytes()]
    plan = study.plan(sweeping.open_sweep(path)[2])
    for wave in waves.found(Path(path)):
        leaves = jax.tree.leaves(waves.states(plan, [wave], wave.lanes))
        is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
        arrays = [random.key_data(leaf) if key else leaf for leaf, key in zip(leaves, is_key, strict=True)]
        found += [(wave.path / "metrics.jsonl").read_bytes(), *(np.asarray(array).tobytes() for array in arrays)]
    return found


def stop_after(monkeypatch, count: int, stop) -> None:
    """Call `stop` when the metrics of `count` evaluations have been written and nothing has been saved since."""
    calls = []
    original = summary.short_score

    def counting(*args):
        calls.append(None)
        if len(calls) == count:
            stop()
        return original(*args)

    monkeypatch.setattr(summary, "short_score", counting)


def crash():
    raise RuntimeError("power cut")


def test_every_lane_is_the_single_run_of_its_labels(found):
    assert found["eval/return"].dims == ("rate", "batch", "seed", "step")
    np.testing.assert_array_equal(found["step"], [8, 16, 24, 32])
    for rate, batch in [(0.3, 4), (0.2, 8)]:
        alone = toy(config=Config(batch), hparams=Hyperparams(rate), seed=1, seeds=1)
        training.train(alone, run_dir=f"alone{batch}")
        lane = found["eval/return"].sel(rate=rate, batch=batch, seed=1)
        np.testing.assert_allclose(lane, scores(f"alone{batch}"), rtol=1e-5)


def test_waves_equal_one_wave_and_all_is_said_beforehand(found, whole, capsys):
    one = sweeping.sweep(toy(), run_dir="run", **FIELDS)
    lines = capsys.readouterr().out.splitlines()
    assert "over rate, batch: 6 points x 3 seeds = 18 lanes in 2 programs, 32 environment steps" in lines[0]
    assert lines[1].startswith("program 1 of 2: 9 lanes need") and lines[2].startswith("program 2 of 2")
    assert [len(wave.lanes) for wave in waves.found(whole)] == [5, 4] * 2
    assert len(waves.found(one.folder)) == 2
    assert one.results.attrs == found.attrs
    for name in found.data_vars:
        np.testing.assert_allclose(one.results[name], found[name], rtol=1e-5)


# Stopping and going on


@pytest.mark.slow
def test_stopped_by_a_signal_and_resumed_is_bit_equal(whole, monkeypatch, capsys):
    words = "sweep toy --steps 32 --evaluations 4 --seeds 3 --at-once 5 --run-dir run --over rate=0.1,0.2,0.3 batch=4,8"
    with monkeypatch.context() as patch:
        stop_after(patch, 6, lambda: signal.raise_signal(signal.SIGINT))
        assert cli.main(words.split()) == 130
    assert "Continue with: python -m experiments resume run" in capsys.readouterr().out
    assert not Path("run/results.nc").exists() and len(waves.found(Path("run"))) == 2
    part = sweeping.read("run")
    assert np.isfinite(part["eval/return"]).sum() == 5 * 4 + 4 * 2
    assert cli.main(["resume", "run"]) == 0
    assert bits("run") == bits(whole)
    before = bits("run")
    assert cli.main(["resume", "run"]) == 0
    assert bits("run") == before and "nothing was left to do" in capsys.readouterr().out


def test_resumed_after_a_crash_is_bit_equal(whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 11, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            sweeping.sweep(toy(), run_dir="run", at_once=5, checkpoint_every=0, **FIELDS)
    with open("run/waves/0-002/metrics.jsonl", "ab") as file:
        file.write(b'{"update": 9')
    newest = max(Path("run/waves/0-002/checkpoints").glob("*-step-*"))
    (newest / "SHA256SUMS").write_text("gone")
    with pytest.warns(UserWarning, match="Damaged checkpoint"):
        sweeping.resume("run")
    assert bits("run") == bits(whole)


def test_resume_refuses_what_has_changed(monkeypatch, capsys):
    sweeping.sweep(toy(steps=8), run_dir="run", rate=[0.1, 0.3])
    env, params = sources.Environment().load()
    with monkeypatch.context() as patch:
        patch.setattr(sources.Environment, "load", lambda self: (env, params.replace(gravity=1.0)))
        assert cli.main(["resume", "run"]) == 2
    assert "source.checksum" in capsys.readouterr().err
    assert cli.main("sweep toy --over rate=0.1 --run-dir run".split()) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert cli.main("sweep toy --over rate=0.1 --over gravity=9.8 --run-dir other".split()) == 2
    assert "--over is given twice: write all fields behind one" in capsys.readouterr().err


# Memory


@pytest.mark.slow
def test_lanes_that_do_not_fit_run_in_waves(monkeypatch, capsys):
    plan = study.describe(toy(seeds=8), {}, None, 0, search.Everything())
    launch, found = launching.fit(plan, 0, 8, devices.mesh())
    assert "8 lanes need" in found
    # Each lane carries an array of 4 x 100 numbers.
    assert launch.bytes_needed > 8 * 1600
    monkeypatch.setattr(memory, "available", lambda device: launch.bytes_needed * 7 // 16)
    sweeping.sweep(toy(seeds=8), run_dir="run")
    assert "3 fit: 3 waves of 3" in capsys.readouterr().out
    assert [len(wave.lanes) for wave in waves.found(Path("run"))] == [3, 3, 2]
    monkeypatch.setattr(memory, "available", lambda device: 100)
    with pytest.raises(ValueError, match=r"8 lanes need .* of 100 B, and not even one lane would fit"):
        sweeping.sweep(toy(seeds=8), run_dir="other")
    assert not Path("other").exists()


# Lanes by themselves


@pytest.mark.slow
def test_a_lane_is_taken_out_evaluated_and_continued(whole, found, monkeypatch, capsys):
    asked = toy(config=Config(batch=8), seeds=2, seed=4)
    fields = {"rate": [Linear(0.1), 0.3], "gravity": [9.8, 20.0]}
    finished = sweeping.sweep(asked, run_dir="finished", **fields).results
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        sweeping.sweep(asked, run_dir="stopped", **fields)
    path = lanes.extract("stopped", 3, 5, run_dir="lane")
    stored = folder.open_run(path)[2]
    assert stored.hparams.rate == Linear(0.3, 0.3) and stored.source.env_kwargs == ("gravity=20.0",)
    assert (stored.seed, stored.seeds, stored.config.batch) == (5, 1, 8)
    lane = finished["eval/return"].isel(rate=1).sel(gravity=20.0, seed=5)
    np.testing.assert_allclose(scores(path), lane[:2], rtol=1e-5)
    training.resume(path)
    np.testing.assert_allclose(scores(path), lane, rtol=1e-5)

    capsys.readouterr()
    assert cli.main("extract finished --seed 5 --run-dir best".split()) == 0
    assert "evaluate best" in capsys.readouterr().out
    best = results.best(finished)
    np.testing.assert_allclose(scores("best"), best["eval/return"].sel(seed=5), rtol=1e-5)
    assert cli.main("evaluate finished --eval-scale 10".split()) == 0
    table = capsys.readouterr().out.splitlines()
    tenfold = lanes.evaluate("finished", eval_scale=10.0)["eval/return"].squeeze()
    np.testing.assert_allclose(tenfold, 10 * finished["eval/return"].isel(step=-1), rtol=1e-5)
    assert len(table) == 1 + 4 and table[0].split()[:4] == ["point", "rate", "gravity", "return"]


def test_a_finished_lane_goes_on_for_longer(whole, found):
    path = lanes.extract(whole, 0, 2, run_dir="longer", steps=50)
    assert folder.open_run(path)[1]["num_updates"] == 14  # of 4 steps, evaluated every 2 as before
    training.resume(path)
    assert len(scores(path)) == 7
    np.testing.assert_allclose(scores(path)[:4], found["eval/return"].isel(rate=0, batch=0, seed=2), rtol=1e-5)
    for point, seed, steps, message in [
        (6, 0, None, "points are 0 to 5"),
        (0, 3, None, "seeds 0 to 2"),
        (0, 0, 8, "cut"),
    ]:
        with pytest.raises(ValueError, match=message):
            lanes.extract(whole, point, seed, run_dir="other", steps=steps)


# Halving


@pytest.mark.slow
def test_halving_drops_the_worst_and_leaves_the_others_as_they_would_have_been(monkeypatch):
    fields = {"rate": [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.5, 0.6]}
    every = sweeping.sweep(toy(seeds=2), run_dir="every", **fields).results
    spend = search.Halving(factor=2, stages=3)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        sweeping.sweep(toy(seeds=2), run_dir="stopped", spend=spend, **fields)
    halved = sweeping.resume("stopped").results
    assert bits("stopped") == bits(sweeping.sweep(toy(seeds=2), run_dir="run", spend=spend, **fields).folder)
    np.testing.assert_array_equal(np.bincount(halved["rung"]), [4, 2, 2])
    reached = halved["diverged"].notnull().all("seed").sum("step")
    np.testing.assert_array_equal(reached, np.array([1, 2, 4])[halved["rung"]])
    for stage, kept in enumerate([4, 2]):
        # By hand: of those still there, the best by the mean over the two seeds.
        means = every["eval/return"].isel(step=stage).mean("seed").where(halved["rung"] >= stage).fillna(-np.inf)
        np.testing.assert_array_equal(halved["rung"] > stage, means >= np.sort(means)[-kept])
    seen = every["eval/return"].where(halved["eval/return"].notnull())
    np.testing.assert_allclose(halved["eval/return"], seen, rtol=1e-5)
    assert len(results.table(halved).splitlines()) == 9 and results.best(halved)["rung"] == 2


@pytest.mark.slow
def test_a_diverged_point_is_dropped():
    fields = {"rate": [np.nan, 0.1, 0.2]}
    found = sweeping.sweep(toy(seeds=2), run_dir="run", spend=search.Halving(3, 2), **fields).results
    assert found["rung"].sum() == 1 and found["rung"][0] == 0
    assert results.diverged(found)[0].all() and not results.diverged(found)[1:].any()
    assert json.loads(Path("run/summary.json").read_text())["diverged_lanes"] == [0, 1]


# Populations


def test_a_population_is_stopped_resumed_and_its_members_taken_out(monkeypatch, capsys):
    words = "sweep toy --steps 32 --evaluations 4 --seeds 3 --spend population --points 4 --over rate=log:0.01:0.5"
    assert cli.main([*words.split(), "--run-dir", "whole"]) == 0
    table = capsys.readouterr().out.splitlines()[3:7]
    assert table[0].split() == ["seed", "member", "rate", "return"] and [line.split()[0] for line in table[1:]] == list(
        "012"
    )
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        assert cli.main([*words.split(), "--run-dir", "stopped"]) == 130
    assert cli.main(["resume", "stopped"]) == 0
    assert bits("stopped") == bits("whole")

    found = results.load("whole/results.nc")
    assert (found["parent"] != found["point"]).any() and "hparams.rate" in found.coords
    again = lanes.evaluate("whole").squeeze()
    for name in ("eval/return", "rate"):  # which is what it has come to, not what it began with
        np.testing.assert_allclose(again[name], found[name].isel(step=-1), rtol=1e-5)
    path = lanes.extract("whole", seed=1, run_dir="member", steps=64)
    best = results.best_members(found).sel(seed=1)
    assert folder.open_run(path)[2].hparams.rate == pytest.approx(best["rate"].isel(step=-1).item())
    np.testing.assert_allclose(scores(path), best["eval/return"], rtol=1e-5)
    training.resume(path)
    assert len(scores(path)) == 8


# Pictures and tables


def test_pictures_of_a_sweep(whole, capsys):
    shutil.copytree(whole, "run")
    for path in Path("run").glob("*.png"):
        path.unlink()
    assert cli.main("plot run --heat batch rate".split()) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["curves.png", "sensitivity.png", "heat.png", "parallel.png"]
    assert all((Path("run") / name).read_bytes()[:4] == b"\x89PNG" for name in names)
    for line, said in (
        ("plot run --heat batch rat", "did you mean rate"),
        ("plot run ../other", "run is a sweep: `python -m experiments compare`"),
        ("sample run", "run is a sweep: `python -m experiments extract run`"),
    ):
        assert cli.main(line.split()) == 2
        assert said in capsys.readouterr().err


def test_pictures_show_what_was_found(found):
    (axes,) = [axes for axes in sweep_plots.heat(found).axes if axes.get_xlabel() == "rate"]
    means = results.over_seeds(found, final=True)["mean"].transpose("batch", "rate").values
    np.testing.assert_allclose(axes.images[0].get_array(), means)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "0.2", "0.3"]
    best = sweep_plots.curves(found).axes[0].lines[0]
    np.testing.assert_allclose(best.get_ydata(), results.over_seeds(results.best(found))["mean"])
    left, right = sweep_plots.sensitivity(found).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), means.max(0))
    assert len(right.collections[-1].get_offsets()) == 6
    lines = sweep_plots.parallel(found).axes[0].lines
    np.testing.assert_allclose(sorted(line.get_ydata()[-1] for line in lines[-6:])[::5], [0, 1])


def test_a_wide_range_is_drawn_in_logarithms_and_words_in_order():
    places, ticks = sweep_plots._scaled(np.array([1e-4, 1e-3, 1e-2]))
    np.testing.assert_allclose(places, [0, 0.5, 1])
    assert list(ticks.values()) == ["0.0001", "0.001", "0.01"]
    _, ticks = sweep_plots._scaled(np.array([1.0, 1.01, 1.02, 2.0]))
    assert list(ticks.values()) == ["1", "2"]  # no two written over each other
    places, ticks = sweep_plots._scaled(np.array(["tanh", "relu", "tanh"]))
    np.testing.assert_array_equal(places, [1, 0, 1])
    assert ticks == {0.0: "relu", 1.0: "tanh"}


def test_runs_and_sweeps_are_compared(whole, found, capsys):
    training.train(toy(hparams=Hyperparams(0.01), seeds=1), run_dir="slow")
    capsys.readouterr()
    assert cli.main(["compare", "slow", str(whole), "--out", "both.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "run", "slow", "both.png"]  # the sweep's folder is called run
    best = results.best(found)
    assert lines[1].endswith(f"rate {best['rate'].item():.4g}, batch {best['batch'].item()}")
    assert float(lines[1].split()[1]) == pytest.approx(float(results.over_seeds(best, final=True)["mean"]), rel=1e-3)
    assert Path("both.png").exists()


# The command line


def test_words_for_what_is_swept():
    found = study.over("a=1e-3,1e-4 b=1e-3:0,0.1:0.2:0.5 c=(64,64),(8,) d=relu,tanh e=log:1e-4:1e-2:3 f=inf,1".split())
    assert found == {
        "a": [1e-3, 1e-4],
        "b": [Linear(1e-3, 0.0), Linear(0.1, 0.2, 0.5)],
        "c": [(64, 64), (8,)],
        "d": ["relu", "tanh"],
        "e": [1e-4, 1e-3, 1e-2],
        "f": [np.inf, 1],
    }
    found = study.over(["x=log:1e-4:1e-2", "y=uniform:0:1", "z=uniform:0:1:5", "w=True,False"])
    assert found["x"] == sweep.LogUniform(1e-4, 1e-2) and found["y"] == sweep.Uniform(0, 1)
    assert found["z"] == [0, 0.25, 0.5, 0.75, 1] and found["w"] == [True, False]


BAD = {
    "sweep toy --over rat=0.1": "did you mean rate",
    "sweep toy --over rate": "not of the form",
    "sweep toy --over rate=log:1": "not of the form",
    "sweep toy --over rate=log:0:1:3": "0 < low < high",
    "sweep toy --over rate=0.1 rate=0.2": "swept twice",
    "sweep toy --over rate=fast": "cannot be traced",
    "sweep toy --over rate=log:0.1:1": "say how many points",
    "sweep toy --over batch=0": "batch=0",
    "sweep toy --over max_steps_in_episode=10": "--env-kwargs",
    "sweep toy --over rate=0.1,0.2 --spend halving --stages 9": "use at least 6561",
    "sweep toy --over rate=0.1,0.2 --spend halving --factor 1": "at least 2",
    "sweep toy --over rate=0.1 --at-once 0": "at_once=0",
    "sweep toy --over rate=0.1 --num-processes 2": "need both --num-processes and --coordinator",
    "sweep toy --over rate=0.1 --process 1": "--process 1 is none of --num-processes 1",
    "sweep toy --points 0 --over rate=0.1,0.2": "points=0",
    "sweep toy --spend population --over rate=log:0.1:1": "say how many points",
    "sweep toy --spend population --points 4 --over batch=4,8": "changes hyperparameters within ranges",
    "sweep toy --spend population --points 3 --over rate=log:0.1:1": "at least one must copy",
    "sweep ppo --over optimizer=adam,sgd": "stands for a whole Optimizer: sweep optimizer.name or",
    "extract single": "no sweep",
    "extract": "Which run?",
    "compare": "Which runs?",
    "compare single": "no metrics yet",
    "resume nowhere": "no run folder",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_clear_line(line, capsys):
    Path("single").mkdir()
    folder.write_json(Path("single/config.json"), {"experiment": experiment.encode(toy()), "versions": {}})
    assert cli.main(line.split()) == 2
    printed = capsys.readouterr()
    assert BAD[line] in printed.err and printed.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["single"]
