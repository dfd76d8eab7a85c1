"""The command line and its run folders, with a toy learner where no real one is needed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import scipy.stats
from jax import numpy as jnp
from jax import random
from matplotlib.axes import Axes
from test_datasets import data_folder

from experiments import (
    cli,
    evaluation,
    experiment,
    folder,
    options,
    plots,
    presets,
    registry,
    sources,
    summary,
    training,
)
from experiments.experiment import Experiment, build
from generative import data, datasets
from jaxrl.core import checkpoint, loop, stats
from jaxrl.core.networks import CNN, MLP
from jaxrl.core.schedule import Linear

TRACES = []


@dataclass(frozen=True)
class Config:
    """What fixes shapes."""

    batch: int = 4  # examples per update
    network: MLP | CNN = MLP((8,))  # no use here
    eval_scale: float = 1.0  # of the score
    eval_episodes: int = 16  # no use here

    @property
    def steps_per_update(self) -> int:
        return self.batch


@dataclass(frozen=True)
class Warm(Config):
    """With steps before the first update."""

    warmup: int = 5


class Hyperparams(NamedTuple):
    """Numbers."""

    learning_rate: Any = 0.1  # part of the way to zero
    limit: Any = jnp.inf  # a position beyond it becomes NaN


def make(env, config):
    """A point that walks towards zero."""
    del env
    if config.batch < 1:
        raise ValueError(f"batch={config.batch} must be at least 1.")

    def init(key, hparams, source):
        return {"x": random.normal(key, (3,))}

    def update(key, state, hparams, source):
        TRACES.append(None)
        x = state["x"] * (1 - hparams.learning_rate) + 0.01 * random.normal(key, (3,))
        return {"x": jnp.where(x > hparams.limit, jnp.nan, x)}, {"size": jnp.abs(x).sum()}

    def evaluate(key, state, hparams, source):
        return {"eval/return": -config.eval_scale * jnp.square(state["x"]).sum()}

    return loop.Learner(init, update, evaluate)


@pytest.fixture(autouse=True, scope="module")
def toy_learner():
    """The toy among the learners, for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.LEARNERS, "toy", registry.Learner(__name__, sources.Environment, "eval/return"))
        patch.setattr(cli, "cache_programs", lambda: None)
        yield


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder of its own for each test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(toy_learner, tmp_path_factory):
    """A run of `toy()` that was never stopped. Not to be written to."""
    return training.train(toy(), run_dir=str(tmp_path_factory.mktemp("whole") / "run")).folder


@pytest.fixture
def finished(whole):
    """A copy of it."""
    shutil.copytree(whole, "run")


def toy(**changes) -> Experiment:
    return replace(experiment.default("toy"), **{"steps": 80, "evaluations": 10, "seeds": 3, **changes})


def final_state(run_dir) -> Any:
    return evaluation.restore(run_dir).runs


def assert_same_run(one, other) -> None:
    """Bit for bit."""
    assert (Path(one) / "metrics.jsonl").read_bytes() == (Path(other) / "metrics.jsonl").read_bytes()
    for a, b in zip(jax.tree.leaves(final_state(one)), jax.tree.leaves(final_state(other)), strict=True):
        a, b = (random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# Compiled programs


@pytest.mark.parametrize("asked", [{}, {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}], ids=["by default", "as asked"])
def test_the_command_line_keeps_compiled_programs(asked, tmp_path):
    script = (
        "import jax; from experiments import cli; cli.main(['resume']); print(jax.config.jax_compilation_cache_dir)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    child = subprocess.run(
        [sys.executable, "-c", script],
        env={**kept, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "XDG_CACHE_HOME": str(tmp_path), **asked},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    folder = child.stdout.strip()
    assert folder == "elsewhere" if asked else Path(folder).parent == tmp_path / "jaxrl"


# The results table


def test_results_table(monkeypatch, capsys):
    toy_preset = presets.Preset("toy", sources.Environment(), 80, evaluations=10, seeds=3, published="0 (nobody)")
    monkeypatch.setattr(presets, "PRESETS", {"toy-walk": toy_preset, "toy-jump": replace(toy_preset, steps=40)})
    Path("runs/results/toy-walk").mkdir(parents=True)  # killed before its config.json was there
    assert cli.main("results --out table.md".split()) == 0
    line, jump = read_table()
    assert (line["algorithm"], line["steps"], line["seeds"], line["metric"]) == ("toy", "80", "3", "return")
    scores = folder.column(folder.read_metrics(Path("runs/results/toy-walk")), "eval/return")[-1]
    assert float(line["score"]) == pytest.approx(stats.interquartile_mean(scores), rel=1e-3)
    assert float(line["worst"]) == pytest.approx(scores.min(), rel=1e-3)
    assert line["published"] == "0 (nobody)" and "--preset toy-walk --seeds 3" in line["command"]
    assert line["protocol"] == "16 episodes per seed" and jump["steps"] == "40"
    # What is finished is read, not trained: the table is the same, timings included, whichever of it is asked for.
    before = Path("table.md").read_text()
    monkeypatch.setattr(training, "train", None)
    assert cli.main("results toy-jump --out table.md".split()) == 0
    assert Path("table.md").read_text() == before
    assert cli.main(["results"]) == 0 and Path("runs/results/table.md").read_text() == before
    assert cli.main("results toy-wok".split()) == 2
    assert "toy-walk" in capsys.readouterr().err


def read_table() -> list[dict[str, str]]:
    """Each line of table.md by its columns."""
    header, _, *lines = (
        [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        for line in Path("table.md").read_text().splitlines()[2:]
    )
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_a_line_of_the_table_says_where_its_run_was_made(monkeypatch):
    walk = presets.Preset("toy", sources.Environment(), 8, evaluations=1, seeds=2, metrics=("eval/return", "size"))
    monkeypatch.setattr(presets, "PRESETS", {"toy-walk": walk})
    assert cli.main("results --out table.md".split()) == 0
    for name, changes in {
        "config.json": {"git": "0123456789abcdef+", "processor": "1 x abacus", "device": "1 x tpu"},
        "summary.json": {"steps_per_second": None},  # it was stopped after its last update
    }.items():
        path = Path("runs/results/toy-walk") / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert cli.main("results --out table.md".split()) == 0
    lines = read_table()
    assert [line["metric"] for line in lines] == ["return", "size"]
    for line in lines:
        assert (line["revision"], line["machine"], line["seconds"]) == ("0123456789+", "1 x abacus, 1 x tpu", "")


def test_a_preset_that_cannot_be_trained_says_why_and_stops_no_other(monkeypatch, capsys):
    walk = presets.Preset("toy", sources.Environment(), 8, evaluations=1, seeds=2)
    lost = presets.Preset("vae", sources.Data("mnist", data_folder="nowhere"), 100)
    monkeypatch.setattr(presets, "PRESETS", {"vae-lost": lost, "toy-walk": walk})
    assert cli.main("results --out table.md".split()) == 1
    missing, found = read_table()
    assert missing["preset"] == "`vae-lost`" and "nowhere" in missing["algorithm"] and missing["score"] == ""
    assert found["preset"] == "`toy-walk`" and found["score"]
    assert "Not finished: 1, vae-lost first" in capsys.readouterr().out


def test_steps_of_a_summary_include_the_warm_up():
    result = training.train(replace(toy(steps=8, evaluations=1), config=Warm()), run_dir="run")
    assert result.summary is not None and result.summary["steps"] == 8 + Warm().warmup
    assert folder.read_metrics(Path("run"))[-1]["step"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_program_of_a_preset_can_be_made(name, monkeypatch):
    """Traced in full, with all it evaluates; nothing is compiled or trained."""
    if "mnist" in name:
        folder = data_folder("binarized_mnist.npz" if "binarized" in name else "mnist")
        monkeypatch.setenv(datasets.FOLDER_VARIABLE, str(folder))
    program = build(replace(presets.get(name), seeds=1))
    runs = jax.eval_shape(program.start, program.keys, program.hparams, program.source)
    _, metrics = jax.eval_shape(program.advance, runs, program.hparams, program.source)
    preset = presets.PRESETS[name]
    assert {registry.get(preset.algorithm).score, *preset.metrics} <= set(metrics)


def test_metrics_of_the_presets_are_there():
    for preset in presets.PRESETS.values():
        learner = registry.get(preset.algorithm)
        assert not preset.metrics or learner.score in preset.metrics or preset.algorithm == "gan"
        assert all(metric.startswith("eval/") for metric in preset.metrics)


# Scores


def test_interquartile_mean_agrees_with_scipy():
    for size in (1, 2, 3, 4, 5, 8, 13, 16):
        scores = np.random.default_rng(size).normal(size=(2, size))
        np.testing.assert_allclose(stats.interquartile_mean(scores), scipy.stats.trim_mean(scores, 0.25, axis=-1))


def test_bootstrap_interval_agrees_with_scipy():
    scores = np.random.default_rng(0).normal(size=12)
    low, high = stats.bootstrap_interval(scores, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (scores,), stats.interquartile_mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose((low, high), theirs, atol=0.03)
    assert stats.bootstrap_interval(np.ones(5)) == (1, 1)
    assert low.shape == () and stats.bootstrap_interval(np.ones((4, 5)))[0].shape == (4,)


def test_a_score_that_is_no_number_counts_as_the_worst():
    scores = stats.worst_for_nan(np.array([np.nan, 1.0, 2.0, 3.0]))
    assert stats.interquartile_mean(scores) == 1.5  # the lowest quarter is left out
    assert stats.bootstrap_interval(scores)[0] == -np.inf
    assert stats.worst_for_nan(np.array([np.nan]), higher_is_better=False) == np.inf


# Runs


def test_run_is_the_library_loop():
    result = training.train(toy(hparams=Hyperparams(Linear(0.5))), run_dir="run")
    program = experiment.build(toy(hparams=Hyperparams(Linear(0.5))))

    def one(key, hparams, source):
        return loop.train(program.learner, key, hparams, source, num_updates=20, eval_every=2)

    keys = jnp.stack([random.key(seed) for seed in range(3)])
    runs, metrics = jax.jit(jax.vmap(one, (0, None, None)))(keys, program.hparams, program.source)
    scores = folder.column(folder.read_metrics(result.folder), "eval/return").astype(np.float32)
    np.testing.assert_allclose(scores, metrics["eval/return"].T, rtol=1e-5)
    np.testing.assert_allclose(final_state("run").state["x"], runs.state["x"], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_one_trace_however_many_evaluations():
    counts = []
    for number, evaluations in enumerate((2, 20)):
        TRACES.clear()
        training.train(toy(evaluations=evaluations), run_dir=f"run{number}")
        counts.append(len(TRACES))
    assert counts[0] == counts[1]


def test_run_folder_holds_what_repeats_the_run(capsys):
    asked = toy(hparams=Hyperparams(Linear(0.5), 7.0), config=Config(network=CNN()), seed=5)
    result = training.train(asked, run_dir="run")
    assert {path.name for path in result.folder.iterdir()} >= {
        "config.json", "metrics.jsonl", "checkpoints", "summary.json", "curve.png",
    }  # fmt: skip
    stored = json.loads((result.folder / "config.json").read_text())
    assert folder.open_run("run")[2] == asked
    assert stored["versions"].keys() >= {"python", "jax", "jaxlib", "flax", "optax", "gymnax"}
    assert stored.keys() >= {"command", "experiment", "num_updates", "device", "git"}
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 10 * 3
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert list(first)[:3] == ["update", "step", "seed"] and first.keys() >= {"size", "eval/return", "diverged"}
    assert (first["update"], first["step"], first["seed"]) == (2, 8, 5)
    assert (last["update"], last["step"], last["seed"]) == (20, 80, 7)
    printed = capsys.readouterr()
    assert "interquartile mean of 3 seeds" in printed.out and "steps per second" in printed.out
    assert printed.err == ""  # no progress bar where nobody watches


def test_steps_are_rounded_up_by_less_than_an_interval():
    program = experiment.build(toy(steps=83, evaluations=4))
    assert (program.num_updates, program.eval_every) == (24, 6)  # 83 steps are 21 updates of 4
    program = experiment.build(toy(steps=1222, evaluations=5))
    assert (program.num_updates, program.num_chunks) == (310, 5)  # 306 are wanted: a sixth interval would add 60
    program = experiment.build(toy(steps=84, evaluations=20))
    assert (program.num_updates, program.num_chunks) == (21, 21)
    program = experiment.build(toy(steps=1, evaluations=50))
    assert (program.num_updates, program.num_chunks) == (1, 1)


@pytest.mark.slow
def test_diverged_seed_is_marked_and_harms_no_other(capsys):
    training.train(toy(seeds=6), run_dir="all")
    training.train(toy(seeds=6, hparams=Hyperparams(limit=1.0)), run_dir="some")
    text = (Path("some") / "metrics.jsonl").read_text()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]  # NaN is no JSON
    scores, diverged = folder.column(rows, "eval/return"), folder.column(rows, "diverged")[-1] == 1
    assert 0 < diverged.sum() < 6
    np.testing.assert_array_equal(np.isnan(scores[-1]), diverged)
    np.testing.assert_array_equal(
        scores[:, ~diverged], folder.column(folder.read_metrics(Path("all")), "eval/return")[:, ~diverged]
    )
    names = ", ".join(map(str, np.flatnonzero(diverged)))
    assert f"{diverged.sum()} of 6 seeds diverged (seed {names})" in capsys.readouterr().out
    assert (
        json.loads((Path("some") / "summary.json").read_text())["diverged_seeds"] == np.flatnonzero(diverged).tolist()
    )


def test_dated_folders_do_not_collide():
    one, other = (training.train(toy(steps=4)).folder for _ in range(2))
    assert one != other and one.parent == other.parent == Path("runs")
    tabular = replace(toy(steps=4), source=sources.Environment("tabular/CliffWalking"))
    assert folder.create(None, tabular, {}).parent == Path("runs")


# Stopping and going on


def stop_after(monkeypatch, count: int, stop) -> None:
    """Call `stop` when the metrics of evaluation `count` have been written and nothing has been saved since."""
    calls = []
    original = summary.short_score

    def counting(*args):
        calls.append(None)
        if len(calls) == count:
            stop()
        return original(*args)

    monkeypatch.setattr(summary, "short_score", counting)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_and_says_how_to_resume(whole, number, code, monkeypatch, capsys):
    before = signal.getsignal(number)
    words = "train toy --steps 80 --evaluations 10 --seeds 3 --run-dir stopped".split()
    with monkeypatch.context() as patch:
        stop_after(patch, 4, lambda: signal.raise_signal(number))
        assert cli.main(words) == code
    assert signal.getsignal(number) is before
    assert "python -m experiments resume stopped" in capsys.readouterr().out
    assert len(folder.read_metrics(Path("stopped"))) == 4 * 3
    assert cli.main(["resume", "stopped"]) == 0
    assert "Continuing stopped at update 8." in capsys.readouterr().out
    assert_same_run(whole, "stopped")


def crash():
    raise RuntimeError("power cut")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b'{"update": 99, "st', b'{"update": 99}\n{"upd', b"\n\n"])
def test_resume_after_a_crash_between_metrics_and_checkpoint(whole, damage, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 5, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(toy(), run_dir="crashed", checkpoint_every=0)
    assert len(folder.read_metrics(Path("crashed"))) == 5 * 3  # one evaluation more than the checkpoint
    with open("crashed/metrics.jsonl", "ab") as file:
        file.write(damage)
    training.resume("crashed")
    assert_same_run(whole, "crashed")


@pytest.mark.slow
def test_resume_after_a_crash_before_the_first_checkpoint(whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(toy(), run_dir="crashed", checkpoint_every=1000)
    training.resume("crashed")
    assert_same_run(whole, "crashed")
    (Path("crashed") / "metrics.jsonl").unlink()
    for path in (Path("crashed") / "checkpoints").iterdir():
        path.rename(Path("moved-" + path.name))
    training.resume("crashed")
    assert_same_run(whole, "crashed")


def test_resume_of_a_finished_run_changes_nothing(finished, capsys):
    metrics = Path("run/metrics.jsonl").read_bytes()
    assert cli.main(["resume", "run"]) == 0
    assert Path("run/metrics.jsonl").read_bytes() == metrics
    assert "nothing was left to do" in capsys.readouterr().out


def test_resume_refuses_another_experiment(finished, capsys):
    assert cli.main("resume run --batch 8".split()) == 2
    assert "config.batch was 4 and is now 8" in capsys.readouterr().err
    path = Path("run/config.json")
    path.write_text(path.read_text().replace('"batch": 4', '"batch": 16'))
    assert cli.main(["resume", "run"]) == 2
    assert "config.batch was 4 and is now 16" in capsys.readouterr().err


def test_resume_takes_a_run_from_before_a_field_was_there(monkeypatch, capsys):
    facts, field = training.facts, "config.eval_scale"
    with monkeypatch.context() as patch:
        patch.setattr(training, "facts", lambda *args: {k: v for k, v in facts(*args).items() if k != field})
        training.train(toy(), run_dir="old")
    assert cli.main(["resume", "old"]) == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_resume_refuses_other_data(finished, monkeypatch, capsys):
    env, params = sources.Environment().load()
    monkeypatch.setattr(sources.Environment, "load", lambda self: (env, params.replace(gravity=1.0)))
    assert cli.main(["resume", "run"]) == 2
    assert "source.checksum" in capsys.readouterr().err


def test_resume_refuses_metrics_that_lack_lines(finished, capsys):
    Path("run/metrics.jsonl").write_bytes(b"")
    assert cli.main(["resume", "run"]) == 2
    assert "fewer than the 30 lines" in capsys.readouterr().err


def test_one_process_at_a_time_writes_to_a_run(finished, monkeypatch):
    """Its checkpoint is not even read before: that of a moment later may be another."""
    with monkeypatch.context() as patched, folder.MetricsFile(Path("run")):
        patched.setattr(checkpoint, "load", None)
        with pytest.raises(ValueError, match="Another process"):
            training.resume("run")
    training.resume("run")


def test_resuming_what_is_finished_keeps_its_speed(finished):
    path = Path("run/summary.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps_per_second": 123.0}))
    training.resume("run")
    assert json.loads(path.read_text())["steps_per_second"] == 123.0


def test_folders_of_the_same_second_have_numbers(tmp_path):
    assert [folder._made(tmp_path / "run").name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_what_is_to_be_pasted_is_quoted():
    assert folder.command("resume", Path("my runs/1")) == "python -m experiments resume 'my runs/1'"


# The command line


def chosen(line: str, monkeypatch) -> Experiment:
    """The experiment that a command line asks for, without training it."""
    asked = []

    def train(experiment, **_):
        asked.append(experiment)
        return training.Result(Path(), None, None)

    monkeypatch.setattr(training, "train", train)
    assert cli.main(line.split()) == 0
    return asked[0]


def test_every_kind_of_option(monkeypatch):
    asked = chosen(
        "train ppo --env Acrobot-v1 --num-envs 64 --learning-rate 1e-3:0 --clip 0.3:0.1:0.5 --discount 0.9 "
        "--network.hidden 32 16 --network.activation relu --network.dtype bfloat16 "
        "--optimizer.name adamw --optimizer.weight-decay 0.1 --eval-greedy --steps 1000 --seed 3 --seeds 2",
        monkeypatch,
    )
    assert asked.source.env == "Acrobot-v1" and (asked.steps, asked.seed, asked.seeds) == (1000, 3, 2)
    assert asked.config.num_envs == 64 and asked.config.eval_greedy
    assert asked.config.network == MLP((32, 16), "relu", dtype="bfloat16")
    assert (asked.config.optimizer.name, asked.config.optimizer.weight_decay) == ("adamw", 0.1)
    assert asked.hparams.learning_rate == Linear(1e-3, 0.0, 1.0)
    assert asked.hparams.clip == Linear(0.3, 0.1, 0.5)
    assert asked.hparams.discount == 0.9 and asked.hparams.value_clip == np.inf
    asked = chosen("train ppo network:cnn --network.channels 8 --num-envs 2", monkeypatch)
    assert asked.config.network == CNN((8,)) and asked.config.num_envs == 2


def test_preset_gives_defaults_and_options_override_them(monkeypatch):
    preset = presets.get("ppo-pendulum")
    assert chosen("train ppo --preset ppo-pendulum", monkeypatch) == preset
    assert chosen("train --preset=ppo-pendulum", monkeypatch) == preset
    asked = chosen("train ppo --discount 0.5 --preset ppo-pendulum --num-envs 3", monkeypatch)
    assert asked == replace(
        preset, config=replace(preset.config, num_envs=3), hparams=preset.hparams._replace(discount=0.5)
    )


BAD = {
    "trian toy": "did you mean train or",
    "train": "Which algorithm?",
    "train topy": "did you mean toy or",
    "train ppo --env CartPol-v1": "did you mean CartPole-v1",
    "train ppo --learnin-rate 1": "did you mean --learning-rate?",
    "train ppo --network.channels 3": "is an option of network:cnn",
    "train ppo stray": "Unknown argument stray",
    "train ppo --num-envs many": "--num-envs",
    "train ppo --num-envs": "--num-envs",
    "train ppo --learning-rate fast": "--learning-rate",
    "train ppo --learning-rate 1:0:2": "until in (0, 1]",
    "train ppo --optimizer.name adm": "'adam', 'adamw'",
    "train ppo --num-envs 0": "num_envs=0",
    "train ppo --num-minibatches 3": "num_minibatches=3",
    "train ppo network:cnn": "use an MLP",
    "train toy --batch 0": "batch=0",
    "train toy --seeds 0": "seeds must be at least 1",
    "train toy --steps 0": "steps must be at least 1",
    "train toy --evaluations 0": "evaluations must be at least 1",
    "train toy --seed -1": "seed must be at least 0",
    "train toy --seed 2147483647": "below 2**31",
    "train toy --env-kwargs color": "name=value",
    "train toy --env-kwargs color=3": "does not take color",
    "train toy --preset ppo-cartpole": "is for ppo",
    "train ppo --preset ppo-cartpol": "did you mean ppo-cartpole",
    "train vae --data digit": "did you mean digits",
    "train vae --data mnist --data-folder nowhere": "nowhere",
    "train toy --run-dir taken": "python -m experiments resume taken",
    "train toy --run-dir file": "no folder that you may write to",
    "train toy --run-dir file/run": "no folder that you may write to",
    "resume": "Which run?",
    "resume nowhere": "no run folder nowhere",
    "resume empty": "no run folder: it has no config.json",
    "resume broken": "does not describe a run",
    "resume taken --run-dir other": "--run-dir",
    "resume taken --preset ppo-cartpole": "leave out --preset",
    "evaluate nowhere": "no run folder nowhere",
    "evaluate taken": "no checkpoint yet",
    "evaluate taken --eval-scal 2": "did you mean --eval-scale?",
    "plot": "Which run?",
    "plot taken": "no metrics yet",
    "list all": "takes no options",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_clear_line(line, capsys):
    for name in ("taken", "empty", "broken"):
        Path(name).mkdir()
    folder.write_json(Path("taken/config.json"), {"experiment": experiment.encode(toy()), "versions": {}})
    Path("broken/config.json").write_text('{"experiment": {"__type__": "nowhere:Nothing"')
    Path("file").touch()
    before = sorted(Path().rglob("*"))
    assert cli.main(line.split()) == 2
    printed = capsys.readouterr()
    assert BAD[line] in printed.err
    assert printed.err.count("\n") == 1 and printed.err.startswith("error: ")
    assert sorted(Path().rglob("*")) == before  # nothing half-written


def test_numbers_that_are_none_are_refused(monkeypatch, capsys):
    env, params = sources.Environment().load()
    monkeypatch.setattr(sources.Environment, "load", lambda self: (env, params.replace(gravity=jnp.nan)))
    assert cli.main(["train", "toy"]) == 2
    assert "gravity holds NaN" in capsys.readouterr().err


def test_a_device_that_is_not_here_is_named():
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    command = [sys.executable, "-m", "experiments", "train", "ppo", "--steps", "1000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: JAX_PLATFORMS=cuda names a device that is not here")


def test_debugging_shows_where_an_error_arose(monkeypatch):
    monkeypatch.setenv("JAXRL_DEBUG", "1")
    with pytest.raises(ValueError, match="batch=0"):
        cli.main("train toy --batch 0".split())


def test_evaluate_and_plot(finished, capsys):
    training.train(toy(seeds=1), run_dir="other")
    capsys.readouterr()
    assert cli.main("evaluate run".split()) == 0
    first = capsys.readouterr().out.splitlines()
    assert first.pop(0) == "toy on CartPole-v1 at update 20 of 20, 80 environment steps"
    assert first[0].split() == ["seed", "eval/return"] and len(first) == 1 + 3 + 2
    assert cli.main("evaluate run --eval-scale 10".split()) == 0
    tenth = capsys.readouterr().out.splitlines()
    assert float(tenth[2].split()[1]) == pytest.approx(10 * float(first[1].split()[1]), rel=1e-3)
    assert cli.main("plot run other --out both.png".split()) == 0
    assert Path("both.png").read_bytes()[:4] == b"\x89PNG"


def test_expected_against_obtained_returns(finished, monkeypatch):
    path = Path("run")
    assert plots.predictions(path) == []  # the toy expects nothing
    rows = [
        {**row, "eval/predicted_return": float(row["step"]), "eval/discounted_return": 2.0}
        for row in folder.read_metrics(path)
    ]
    monkeypatch.setattr(folder, "read_metrics", lambda path: rows)
    drawn = {}
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, **style: drawn.update({style["label"]: (x, y)}))
    monkeypatch.setattr(Axes, "legend", lambda self, **style: None)
    assert plots.predictions(path) == [path / "values.png"] and (path / "values.png").exists()
    np.testing.assert_array_equal(*drawn["expected"])
    np.testing.assert_array_equal(drawn["obtained"][1], 2.0)


def test_list_and_help(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in (*registry.LEARNERS, *presets.PRESETS, "CartPole-v1", "Breakout-MinAtar", "digits", "mnist"):
        assert name in printed
    assert all(f"\n  {name}  " in printed for name in (*registry.LEARNERS, *presets.PRESETS))  # no columns that meet
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("train", "resume", "evaluate", "plot", "list"))
    assert cli.main("train ppo --help".split()) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--num-envs INT" in printed and "environments acted in at once" in printed and "--clip NUMBER" in printed


@pytest.mark.parametrize("name", sorted(registry.LEARNERS))
def test_every_field_is_documented(name):
    module = registry.get(name).load()
    for kind in (module.Config, module.Hyperparams):
        names = kind._fields if issubclass(kind, tuple) else kind.__dataclass_fields__
        fields = {name for name in names if not is_dataclass(getattr(kind(), name))}
        assert fields <= options.comments(kind).keys(), f"{kind}: {fields - options.comments(kind).keys()}"


@pytest.mark.parametrize("name", presets.PRESETS)
def test_preset_makes_its_learner(name, monkeypatch):
    images = np.zeros((4, 28, 28, 1), np.uint8)
    if isinstance(presets.PRESETS[name].source, sources.Data):
        levels = 2 if "binarized" in name else 256
        if "sprites" in name:
            images = np.zeros((4, 32, 32, 1), np.uint8)
        if presets.PRESETS[name].algorithm in ("pix2pix", "cyclegan"):
            images = np.zeros((4, 2, 28, 28, 1), np.uint8)
        if presets.PRESETS[name].algorithm == "wavenet":
            images = np.zeros((4, 64), np.uint8)
        labelled = data.Examples(images, np.arange(4))
        made = data.from_arrays("made", labelled, labelled, levels=levels)
        monkeypatch.setattr(datasets, "load", lambda *_, **__: made)
    asked = presets.get(name)
    assert experiment.decode(json.loads(json.dumps(experiment.encode(asked)))) == asked
    assert jax.tree.leaves(experiment.build(asked).runs_shape())


def test_functions_are_stored_by_name():
    import optax

    assert experiment.decode(experiment.encode(optax.sgd)) is optax.sgd
    with pytest.raises(ValueError, match="top of a module"):
        experiment.encode(lambda rate: rate)


@pytest.mark.slow
def test_model_of_images_draws_samples_and_reconstructions():
    asked = replace(presets.get("vae-digits"), steps=200, evaluations=1)
    result = training.train(asked, run_dir="run")
    assert (result.folder / "samples.png").exists() and (result.folder / "reconstructions.png").exists()


@pytest.mark.parametrize(
    ("preset", "pictures"),
    [
        ("vae-digits", {"curve.png", "samples.png", "reconstructions.png", "traversals.png", "interpolations.png"}),
        ("q-learning-frozenlake", set()),
    ],
)
def test_models_are_drawn_while_they_train(preset, pictures, monkeypatch):
    """At evaluations before the last, and in no way that changes what is learned."""
    asked = replace(presets.get(preset), steps=400, evaluations=2)
    training.train(asked, run_dir="drawn")
    monkeypatch.setattr(summary, "finish", lambda restored, timing: {})
    training.train(asked, run_dir="unfinished")
    assert {file.name for file in Path("unfinished").glob("*.png")} == pictures
    monkeypatch.setattr(training.Drawing, "show", lambda self, runs: None)
    training.train(asked, run_dir="blind")
    assert not list(Path("blind").glob("*.png"))
    assert Path("blind/metrics.jsonl").read_text() == Path("drawn/metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "picture"), [("gan-ring", "samples"), ("cyclegan-digits", "translations")])
def test_adversarial_models_are_drawn(preset, picture):
    asked = replace(presets.get(preset), steps=64, evaluations=1)
    result = training.train(asked, run_dir="run")
    assert {f"{picture}.png", "players.png"} <= {path.name for path in result.folder.iterdir()}


def test_tiles_keep_images_whole():
    images = np.arange(6 * 2 * 3).reshape(6, 2, 3, 1) / 100
    tiled = plots._tiles(images, 3)
    assert tiled.shape == (2 * 4, 3 * 5, 1)
    np.testing.assert_array_equal(tiled[5:7, 6:9], images[4])


def test_tensorboard_files():
    pytest.importorskip("tensorboardX")
    result = training.train(toy(), run_dir="run", tensorboard=True)
    for seed in range(3):
        assert list((result.folder / "tensorboard" / f"seed-{seed}").glob("events.*"))


@pytest.mark.slow
def test_damaged_newest_checkpoint_is_passed_over(whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 5, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(toy(), run_dir="crashed", checkpoint_every=0)
    newest = max((Path("crashed") / "checkpoints").glob("*-step-*"))
    next(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size > 100).write_bytes(b"gone")
    with pytest.warns(UserWarning, match="Damaged checkpoint"):
        training.resume("crashed")
    assert_same_run(whole, "crashed")


def test_plain_library_import_is_quiet():
    """Nothing that only pictures or checkpoints need is loaded with the package."""
    code = "import sys, experiments.cli; sys.exit(any(name in sys.modules for name in ('orbax', 'sklearn', 'gymnax')))"
    root = Path(cli.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
