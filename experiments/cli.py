"""`python -m experiments`: a thin layer over functions that a notebook can call too."""

import dataclasses
import os
import platform
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import (
    cli_sweep,
    evaluation,
    experiment,
    folder,
    options,
    presets,
    registry,
    sources,
    sweeping,
    training,
)
from experiments.experiment import FLAT, Experiment
from jaxrl.core import checks, devices

HELP = """usage: python -m experiments COMMAND ...

  train ALGORITHM [OPTIONS]   train one or many seeds in one program
  sweep ALGORITHM --over NAME=VALUES ... [OPTIONS]  train many settings, each with all seeds, in few programs
  resume RUN                  continue a run or a sweep that was stopped, bit for bit
  evaluate RUN [OPTIONS]      evaluate the last state of a run or a sweep, more closely than in training
  extract SWEEP [OPTIONS]     take one lane of a sweep out, as a run of its own
  sample RUN [OPTIONS]        draw samples of a trained model, as a picture or as numbers
  check RUN [OPTIONS]         see whether an autoregressive model is exact: order, receptive field, sampling, sum
  compare RUN RUN ...         table and curves of several runs and sweeps together
  plot RUN [RUN ...]          draw learning curves, returns expected and obtained, what a model makes, a table
  variance                    measure and draw what baselines do to the variance of REINFORCE's gradient
  list                        learners, environments, data sets and presets
  preflight ALGORITHM [OPTIONS]  compile for a TPU that is not there, and see whether it fits
  results [PRESET ...]        train presets over their seeds, and write the table of their scores
  bench [NAME ...]            speed against ceilings, other libraries and size

`train ALGORITHM --help` shows every option of an algorithm, and so does COMMAND --help for the others,
or COMMAND RUN --help where the options depend on the run.
Environment variables: JAXRL_DEBUG=1 shows where in the code an error arose; JAX_PLATFORMS=cpu chooses a device.
Arithmetic: --network.dtype bfloat16 computes a network's layers in 16 bits, on parameters that stay at 32. How matrix
products of 32 bits are computed is the device's choice (a TPU's is 16 bits, some GPUs' 19) unless
JAX_DEFAULT_MATMUL_PRECISION=float32 asks for the slower, full one, of which all methods of sampling give the same.
A GPU's compiler chooses among its products by trial: compiled anew, on another machine say, a run goes on as it would
have but for last bits. XLA_FLAGS=--xla_gpu_deterministic_ops=true makes every compilation the same.
Compiled programs are kept in the user's cache folder; JAX_COMPILATION_CACHE_DIR names another, and
JAX_ENABLE_COMPILATION_CACHE=0 keeps none.
"""


@dataclass(frozen=True)
class Train:
    """Options of `train` and `resume`."""

    experiment: Experiment = field(metadata=FLAT)
    preset: str | None = None  # take the values of a preset as defaults; `python -m experiments list` shows all
    run_dir: str | None = None  # folder of the run; a dated one under runs/ if not given
    checkpoint_every: float = 30.0  # least seconds between checkpoints; the last state is always saved
    tensorboard: bool = False  # write TensorBoard event files too
    split: bool = False  # split each run over all devices, environments and batches; on a CPU each core is one


@dataclass(frozen=True)
class Preflight:
    """Options of `preflight`."""

    experiment: Experiment = field(metadata=FLAT)
    preset: str | None = None  # take the values of a preset as defaults; `python -m experiments list` shows all
    topology: str = "v5e-1"  # the TPU to compile for: v5e-1, v5e-4, v5e-8, v6e-1, v6e-4, v6e-8, v4-8 or v5p-8


@dataclass(frozen=True)
class Evaluate:
    """Options of `evaluate`."""

    config: Any = field(metadata=FLAT)
    seed: int = 0  # of the evaluation, not of the run
    disentanglement: bool = False  # score the latents of a model of sprites against their factors; minutes for each


@dataclass(frozen=True)
class Sample:
    """Options of `sample`."""

    count: int = 64  # samples; of a model without a distribution, test examples translated or reconstructed
    label: int | None = None  # class to draw, of a conditional model; one after another if not given
    seed: int = 0  # of the samples, not of the run
    run_seed: int | None = None  # which of the run's seeds; the first if not given
    method: str | None = None  # of an autoregressive model: naive, cached or incremental, which give the same samples
    complete: bool = False  # of an autoregressive model: keep the first half of test examples, and draw the rest
    out: str | None = None  # .npy file of numbers, .wav of sounds, or picture; samples.png in the run's folder if none


@dataclass(frozen=True)
class Check:
    """Options of `check`."""

    seed: int = 0  # of the inputs and samples, not of the run
    run_seed: int | None = None  # which of the run's seeds; the first if not given


@dataclass(frozen=True)
class Plot:
    """Options of `plot`."""

    out: str | None = None  # picture to write; curve.png in the run's folder, of several runs curves.png here, if none
    heat: tuple[str, ...] = ()  # of a sweep: two fields for the heat map; the first two if not given


@dataclass(frozen=True)
class Variance:
    """Options of `variance`."""

    preset: str = "reinforce-cartpole"  # what to train: once with each baseline
    seeds: int = 8  # trained together
    evaluations: int = 25  # along the training, evenly spaced: about as many
    episodes: int = 64  # for each of them, of which each gives one estimate of the gradient
    out: str = "variance.png"  # picture to write


@dataclass(frozen=True)
class Results:
    """Options of `results`."""

    runs: str = "runs/results"  # folder of the runs: what is finished there is not trained again
    out: str | None = None  # file to write; table.md in that folder if none


@dataclass(frozen=True)
class Bench:
    """Options of `bench`."""

    rounds: int = 5  # medians are over these
    peers: str | None = None  # Python of the other libraries' environment; .venv-peers, if `make peers` made it
    out: str | None = None  # JSON file to write as it goes, and at the end beside it a picture


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0 done, 2 bad input, 128 + signal if stopped and saved."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {
        "train": train,
        "sweep": sweep,
        "extract": extract,
        "resume": resume,
        "evaluate": evaluate,
        "sample": sample,
        "check": check,
        "compare": compare,
        "plot": plot,
        "list": show,
        "variance": variance,
        "results": results,
        "preflight": preflight,
        "bench": bench,
    }
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else 2
    try:
        if words[0] not in commands:
            raise ValueError(checks.unknown("command", words[0], commands))
        cache_programs()
        return commands[words[0]](words[1:])
    except SystemExit as stop:  # help was shown
        return int(stop.code or 0)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # Only where the error says nothing itself: to look for devices takes seconds on some machines.
        lacking = None if isinstance(error, ValueError | OSError) else _device_lacking()
        expected = lacking is not None or isinstance(error, ValueError | OSError)
        if os.environ.get("JAXRL_DEBUG") or not (expected or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        mend = "" if expected else " Use fewer --seeds, or smaller sizes."
        print(f"error: {' '.join((lacking or str(error)).split())}{mend}", file=sys.stderr)
        return 2


def _device_lacking() -> str | None:
    """What to say if JAX finds no device of the kind that JAX_PLATFORMS names: of itself it says little or nothing."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX_PLATFORMS={asked} names a device that is not here or that this JAX is not installed for: {error}"
    return None


def cache_programs() -> None:
    """Keep compiled programs in the user's cache folder, unless the user named another or wants none."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        # What was compiled for one processor may crash another that shares the home folder.
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "jaxrl" / f"programs-{_processor():08x}"))


def _processor() -> int:
    """A number for this machine's instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return zlib.crc32(f"{platform.machine()} {flags}".encode())


def train(words: list[str]) -> int:
    """Of `words`, the first names the algorithm."""
    chosen = _chosen(words, "train")
    if chosen is None:
        return 0
    base, preset = chosen
    asked = _parse_train(words, Train(base, preset), f"train {base.algorithm}")
    if asked.split:
        devices.use_cores()
    result = training.train(
        asked.experiment,
        run_dir=asked.run_dir,
        checkpoint_every=asked.checkpoint_every,
        tensorboard=asked.tensorboard,
        split=asked.split,
    )
    return _exit_code(result)


def resume(words: list[str]) -> int:
    """Of `words`, the first names the run."""
    path, words = _run_of(words, "resume")
    if sweeping.is_sweep(path):
        return cli_sweep.resume(path, words)
    _, config, stored = folder.open_run(path)
    asked = _parse_train(words, Train(stored, split=training.was_split(config)), f"resume {path}")
    if asked.run_dir is not None:
        raise ValueError("A run is resumed in its own folder: leave out --run-dir.")
    if asked.preset is not None:
        raise ValueError("A run is resumed with its own settings: leave out --preset.")
    if asked.split:
        devices.use_cores()
    result = training.resume(
        path,
        asked.experiment,
        checkpoint_every=asked.checkpoint_every,
        tensorboard=asked.tensorboard,
        split=asked.split,
    )
    return _exit_code(result)


def sweep(words: list[str]) -> int:
    """Of `words`, the first names the algorithm."""
    chosen = _chosen(words, "sweep")
    return 0 if chosen is None else cli_sweep.sweep(words, *chosen)


def extract(words: list[str]) -> int:
    """Of `words`, the first names the sweep."""
    return cli_sweep.extract(*_run_of(words, "extract"))


def preflight(words: list[str]) -> int:
    """Print what the compiler says; 1 if it does not fit."""
    from experiments import preflight as flight

    chosen = _chosen(words, "preflight")
    if chosen is None:
        return 0
    base, preset = chosen
    asked = options.parse(
        words,
        Preflight(base, preset),
        f"python -m experiments preflight {base.algorithm}",
        "Compile for a TPU that is not there, and see whether it fits.",
    )
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot hold programs for devices that are not there
    plan = flight.check(asked.experiment, asked.topology)
    print(flight.text(asked.experiment, asked.topology, plan))
    return 0 if plan.fits else 1


def evaluate(words: list[str]) -> int:
    """Print a table over seeds."""
    path, words = _run_of(words, "evaluate")
    config = folder.open_run(path)[2].config
    default = Evaluate(config=_eval_part(config))
    asked: Any = options.parse(
        words, default, "python -m experiments evaluate RUN", "Evaluate the last state of a run or a sweep."
    )
    if sweeping.is_sweep(path):
        return cli_sweep.evaluate(path, asked.seed, asked.disentanglement, vars(asked.config))
    restored = evaluation.restore(path, **vars(asked.config))
    print(evaluation.heading(restored))
    metrics = evaluation.evaluate(restored, asked.seed)
    if asked.disentanglement:
        from experiments import disentangling

        conditional = getattr(restored.experiment.config, "conditional", False)
        metrics |= disentangling.scores(restored.program, restored.runs.state, asked.seed, conditional=conditional)
    print(evaluation.table(restored, metrics))
    if "eval/bound_1" in metrics:
        from experiments import plots  # slow to import: matplotlib

        plots.bounds(metrics, restored.path / "bounds.png")
        print(restored.path / "bounds.png")
    return 0


def sample(words: list[str]) -> int:
    """Write samples and print where they are."""
    from experiments import plots, sampling  # slow to import: matplotlib

    path, words = _run_of(words, "sample")
    asked = options.parse(words, Sample(), "python -m experiments sample RUN", "Draw samples of a trained model.")
    restored = evaluation.restore(path)
    lane = 0 if asked.run_seed is None else asked.run_seed - restored.experiment.seed
    drawn = sampling.draw(restored, asked.count, asked.label, asked.seed, lane, asked.method, asked.complete)
    target = Path(asked.out) if asked.out else restored.path / "samples.png"
    if target.suffix == ".npy":
        np.save(target, drawn)
    elif target.suffix == ".wav":
        sampling.write_sounds(restored, drawn, target)
    else:
        plots.samples(drawn, target)
    print(target)
    return 0


def check(words: list[str]) -> int:
    """Print reports; 1 if any fails."""
    from experiments import checking

    path, words = _run_of(words, "check")
    asked = options.parse(words, Check(), "python -m experiments check RUN", "See whether a model is exact.")
    restored = evaluation.restore(path)
    lane = 0 if asked.run_seed is None else asked.run_seed - restored.experiment.seed
    reports = checking.reports(restored, asked.seed, lane)
    print(evaluation.heading(restored))
    print(checking.text(reports))
    return 0 if all(report.passed for report in reports.values()) else 1


def compare(words: list[str]) -> int:
    """Print a table, write a picture and say where it is."""
    paths = _named(words)
    default = cli_sweep.Compare()
    asked = options.parse(words, default, "python -m experiments compare RUN RUN ...", "Runs and sweeps side by side.")
    if not paths:
        raise ValueError("Which runs? `python -m experiments compare RUN RUN ...`")
    return cli_sweep.compare(paths, asked.out)


def plot(words: list[str]) -> int:
    """Write pictures and print where they are."""
    from experiments import plots  # slow to import: matplotlib

    paths = _named(words)
    asked = options.parse(words, Plot(), "python -m experiments plot RUN [RUN ...]", "Draw learning curves.")
    if not paths:
        raise ValueError("Which run? `python -m experiments plot RUN [RUN ...]`")
    if len(paths) == 1 and sweeping.is_sweep(paths[0]):
        if asked.out:
            raise ValueError("The pictures of a sweep are written into its folder: leave out --out.")
        return cli_sweep.plot(paths[0], asked.heat)
    if asked.heat:
        raise ValueError("A heat map is of a sweep: leave out --heat.")
    for path in paths:
        if sweeping.is_sweep(path):
            raise ValueError(f"{path} is a sweep: `python -m experiments compare` draws runs and sweeps together.")
    found = [folder.open_run(path)[0] for path in paths]
    target = Path(asked.out or (found[0] / "curve.png" if len(found) == 1 else "curves.png"))
    plots.curves(found, target)
    print(target)
    if len(found) == 1:
        for picture in plots.predictions(found[0]):
            print(picture)
    stored = folder.open_run(found[0])[2]
    has_pictures = isinstance(stored.source, sources.Data) or plots.layout_of(stored) is not None
    if len(found) == 1 and has_pictures and (found[0] / folder.CHECKPOINTS).exists():
        restored = evaluation.restore(found[0])
        for picture in plots.examples(restored) + plots.grid_world(restored):
            print(picture)
    return 0


def variance(words: list[str]) -> int:
    """Write a picture, and print where it is and the variances in figures."""
    from experiments import plots  # slow to import: matplotlib
    from experiments import variance as measuring  # imports algorithms

    summary = "What baselines do to the variance of REINFORCE's gradient."
    asked = options.parse(words, Variance(), "python -m experiments variance", summary)
    base = presets.get(asked.preset)
    if base.algorithm != "reinforce":
        raise ValueError(f"Preset {asked.preset} is for {base.algorithm}: give one for reinforce.")
    base = dataclasses.replace(base, seeds=asked.seeds, evaluations=asked.evaluations)
    measured = measuring.measure(base, asked.episodes)
    plots.variances(measured, Path(asked.out))
    print(measuring.table(measured))
    print(asked.out)
    return 0


def show(words: list[str]) -> int:
    """What there is to choose from."""
    from generative import datasets
    from jaxrl import envs

    if words and words[0] not in ("-h", "--help"):
        raise ValueError(f"`list` takes no options, got {' '.join(words)}.")
    print("Learners")
    longest = max(len(name) for name in registry.LEARNERS)
    for name, learner in registry.LEARNERS.items():
        print(f"  {name:{longest}}  {learner.summary()}")
    print("\nPresets (train ALGORITHM --preset NAME)")
    longest = max(len(name) for name in presets.PRESETS)
    for name, preset in presets.PRESETS.items():
        print(f"  {name:{longest}}  {preset.algorithm} on {preset.source}, {preset.steps:,} {preset.source.unit}")
    print("\nEnvironments (--env)\n  " + "\n  ".join(envs.names()))
    print("\nData sets (--data)\n  " + "\n  ".join(datasets.names()))
    return 0


def results(words: list[str]) -> int:
    """Train what is not yet trained, and write the table."""
    from experiments import table

    chosen = _named(words)
    summary = "Train presets over their seeds, all if none is named, and write the table of their scores."
    asked = options.parse(words, Results(), "python -m experiments results [PRESET ...]", summary)
    out = Path(asked.out or Path(asked.runs) / "table.md")
    left = table.run(chosen, Path(asked.runs), out)
    print(f"Not finished: {len(left)}, {left[0]} first. The same command goes on from here." if left else out)
    return 1 if left else 0


def bench(words: list[str]) -> int:
    """Measure, print, and store if asked to."""
    from experiments.benchmarks import pictures, report  # import algorithms and matplotlib

    chosen = _named(words)
    named = f"NAME: {', '.join(report.names())}; all if none, accelerator only where there is one."
    summary = f"Speed against ceilings, other libraries and size. {named}"
    asked = options.parse(words, Bench(), "python -m experiments bench [NAME ...]", summary)
    made = Path(".venv-peers/bin/python")
    peers = Path(asked.peers) if asked.peers else made if made.exists() else None
    if peers is None and not chosen:
        print("No other library to measure beside ours: `make peers` installs them.")
    out = None if asked.out is None else Path(asked.out)
    result = report.run(chosen, asked.rounds, peers, out)
    if out is not None:
        pictures.draw(result["rows"], out.with_suffix(".png"))
    return 0


def _chosen(words: list[str], command: str) -> tuple[Experiment, str | None] | None:
    """The experiment whose values are the defaults, and the preset that `words` name; None if help was shown instead.

    Of `words`, the first may name the algorithm and is then taken away.
    """
    algorithm = words.pop(0) if words and not words[0].startswith("-") else None
    preset = _value_of("--preset", words)
    if preset is not None:
        base = presets.get(preset)
        if algorithm is not None and algorithm != base.algorithm:
            registry.get(algorithm)
            fitting = [name for name, other in presets.PRESETS.items() if other.algorithm == algorithm]
            raise ValueError(
                f"Preset {preset} is for {base.algorithm}; for {algorithm} there are {', '.join(fitting)}."
            )
    elif algorithm is None:
        names = ", ".join(registry.LEARNERS)
        if words and words[0] in ("-h", "--help"):
            print(f"usage: python -m experiments {command} ALGORITHM [OPTIONS], where ALGORITHM is one of: {names}")
            return None
        raise ValueError(f"Which algorithm? `python -m experiments {command} ALGORITHM`, one of {names}.")
    else:
        base = experiment.default(algorithm)
    return base, preset


def _parse_train(words: list[str], default: Train, command: str) -> Train:
    """The options of `train`."""
    description = registry.get(default.experiment.algorithm).summary()
    return options.parse(words, default, f"python -m experiments {command}", description)


def _eval_part(config: Any) -> Any:
    """The fields of a Config that begin with `eval_`, as a dataclass instance of its own."""
    helps = options.comments(type(config))

    def copy(item: Any) -> Any:
        return field(default=getattr(config, item.name), metadata={"help": helps.get(item.name)})

    evaluated = [item for item in dataclasses.fields(config) if item.name.startswith("eval_")]
    return make_dataclass("Config", [(item.name, item.type, copy(item)) for item in evaluated])()


def _exit_code(result: training.Result) -> int:
    return 128 + result.signal if result.signal else 0


def _value_of(option: str, words: list[str]) -> str | None:
    """What follows the last `option` among `words`."""
    found = None
    for place, word in enumerate(words):
        if word.startswith(f"{option}="):
            found = word.partition("=")[2]
        elif word == option:
            found = words[place + 1] if place + 1 < len(words) else None
    return found


def _named(words: list[str]) -> list[str]:
    """What stands before the first option, each once; taken away from `words`."""
    names = []
    while words and not words[0].startswith("-"):
        names.append(words.pop(0))
    return list(dict.fromkeys(names))


def _run_of(words: list[str], command: str) -> tuple[str, list[str]]:
    if words and words[0] in ("-h", "--help"):
        print(f"usage: python -m experiments {command} RUN [OPTIONS]; with RUN, --help shows the options for that run.")
        raise SystemExit(0)
    if not words or words[0].startswith("-"):
        raise ValueError(f"Which run? `python -m experiments {command} RUN`, where RUN is a run folder.")
    return words[0], words[1:]
