"""`python -m experiments`: train, resume, evaluate, plot, list. A thin layer over functions that a notebook can call."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

HELP = """usage: python -m experiments COMMAND ...

  train ALGORITHM [OPTIONS]   train one or many seeds in one program
  resume RUN                  continue a run that was stopped, bit for bit
  evaluate RUN [OPTIONS]      evaluate the last state of a run, more closely than in training
  plot RUN [RUN ...]          draw learning curves, and what a generative model makes
  list                        learners, environments, data sets and presets

`train ALGORITHM --help` shows every option of an algorithm, and so does COMMAND --help for the others.
The environment variable JAXRL_DEBUG=1 shows where in the code an error arose. Compiled programs are kept in the user's
cache folder, JAX_COMPILATION_CACHE_DIR names another and JAX_ENABLE_COMPILATION_CACHE=0 keeps none.
"""


def flat(default: Any = dataclasses.MISSING) -> Any:
    """A field whose own fields are options without a prefix."""
    return field(default=default, metadata={"flat": True})


@dataclass(frozen=True)
class Train:
    """Options of `train`."""

    preset: str | None  # take the values of a preset as defaults; `python -m experiments list` shows all
    source: Any = flat()
    steps: int = field()  # environment steps, or examples seen, per seed; rounded up to whole updates
    evaluations: int = field()  # during the run, evenly spaced
    seed: int = field()  # the first seed
    seeds: int = field()  # consecutive seeds, trained together in one program
    run_dir: str | None = field()  # folder of the run; a dated one under runs/ if not given
    checkpoint_every: float = field()  # least seconds between checkpoints; the last state is always saved
    tensorboard: bool = field()  # write TensorBoard event files too
    config: Any = flat()
    hparams: Any = flat()


@dataclass(frozen=True)
class Evaluate:
    """Options of `evaluate`."""

    seed: int = 0  # of the evaluation, not of the run
    config: Any = flat(None)


@dataclass(frozen=True)
class Plot:
    """Options of `plot`."""

    out: str = ""  # picture to write; in the run's folder if not given


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0 done, 2 bad input, 128 + signal if stopped and saved."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"train": train, "resume": resume, "evaluate": evaluate, "plot": plot, "list": show}
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else 2
    try:
        if words[0] not in commands:
            from experiments import registry

            raise ValueError(registry.unknown("command", words[0], commands))
        cache_programs()
        return commands[words[0]](words[1:])
    except SystemExit as stop:  # help was shown
        return int(stop.code or 0)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        expected = isinstance(error, ValueError | OSError)
        if os.environ.get("JAXRL_DEBUG") or not (expected or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        mend = "" if expected else " Use fewer --seeds, or smaller sizes."
        print(f"error: {' '.join(str(error).split())}{mend}", file=sys.stderr)
        return 2


def cache_programs() -> None:
    """Keep compiled programs in the user's cache folder, unless the user named another or wants none."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "jaxrl" / "programs"))


def train(words: list[str]) -> int:
    from experiments import experiment, presets, registry, training

    algorithm = words[0] if words and not words[0].startswith("-") else None
    options = words[1:] if algorithm else words
    preset = _value_of("--preset", options)
    if preset is not None:
        base = presets.get(preset)
        if algorithm not in (None, base.algorithm):
            registry.get(algorithm)
            fitting = [name for name, other in presets.PRESETS.items() if other.algorithm == algorithm]
            raise ValueError(
                f"Preset {preset} is for {base.algorithm}; for {algorithm} there are {', '.join(fitting)}."
            )
    elif algorithm is None:
        names = ", ".join(registry.LEARNERS)
        if options and options[0] in ("-h", "--help"):
            print(f"usage: python -m experiments train ALGORITHM [OPTIONS], where ALGORITHM is one of: {names}")
            return 0
        raise ValueError(f"Which algorithm? `python -m experiments train ALGORITHM`, one of {names}.")
    else:
        base = experiment.default(algorithm)
    chosen, options = _parse_train(options, base, preset)
    result = training.train(chosen, **options)
    return 128 + result.signal if result.signal else 0


def resume(words: list[str]) -> int:
    from experiments import folder, training

    path, words = _run_of(words, "resume")
    stored = folder.open_run(path)[2]
    chosen, options = _parse_train(words, stored, None, f"resume {path}")
    if options.pop("run_dir") is not None:
        raise ValueError("A run is resumed in its own folder: leave out --run-dir.")
    result = training.resume(path, chosen, **options)
    return 128 + result.signal if result.signal else 0


def evaluate(words: list[str]) -> int:
    from experiments import evaluation, folder, options

    path, words = _run_of(words, "evaluate")
    config = folder.open_run(path)[2].config
    fields = [item for item in dataclasses.fields(config) if item.name.startswith("eval_")]
    default = Evaluate(config=_part(config, [item.name for item in fields]))
    asked = options.parse(words, default, "python -m experiments evaluate RUN", "Evaluate the last state of a run.")
    restored = evaluation.restore(path, **vars(asked.config))
    print(evaluation.table(restored, evaluation.evaluate(restored, asked.seed)))
    return 0


def plot(words: list[str]) -> int:
    from experiments import evaluation, folder, options, plots

    paths = []
    while words and not words[0].startswith("-"):
        paths.append(words.pop(0))
    asked = options.parse(words, Plot(), "python -m experiments plot RUN [RUN ...]", "Draw learning curves.")
    if not paths:
        raise ValueError("Which run? `python -m experiments plot RUN [RUN ...]`")
    found = [folder.open_run(path)[0] for path in paths]
    target = Path(asked.out or found[0] / "curve.png")
    plots.curves(found, target)
    print(target)
    if len(found) == 1:
        for picture in plots.examples(evaluation.restore(found[0])):
            print(picture)
    return 0


def show(words: list[str]) -> int:
    from experiments import presets, registry
    from generative import data
    from jaxrl import envs

    if words and words[0] not in ("-h", "--help"):
        raise ValueError(f"`list` takes no options, got {' '.join(words)}.")
    print("Learners")
    for name, learner in registry.LEARNERS.items():
        print(f"  {name:12}{learner.summary()}")
    print("\nPresets (train ALGORITHM --preset NAME)")
    for name, preset in presets.PRESETS.items():
        print(f"  {name:28}{preset.algorithm} on {preset.source}, {preset.steps:,} {preset.source.unit}")
    print("\nEnvironments (--env)\n  " + "\n  ".join(envs.names()))
    print("\nData sets (--data)\n  " + "\n  ".join(data.names()))
    return 0


def _parse_train(words: list[str], base: Any, preset: str | None, command: str = "") -> tuple[Any, dict[str, Any]]:
    """The experiment that `words` make of `base`, and how to run it."""
    from experiments import options

    shared = {name: getattr(base, name) for name in ("steps", "evaluations", "seed", "seeds")}
    default = Train(preset, base.source, **shared, run_dir=None, checkpoint_every=30.0, tensorboard=False,
                    config=base.config, hparams=base.hparams)  # fmt: skip
    prog = f"python -m experiments {command or 'train ' + base.algorithm}"
    asked = options.parse(
        words, default, prog, (sys.modules[type(base.config).__module__].__doc__ or "").split("\n")[0]
    )
    parts = {name: getattr(asked, name) for name in (*shared, "source", "config", "hparams")}
    how = {name: getattr(asked, name) for name in ("run_dir", "checkpoint_every", "tensorboard")}
    return dataclasses.replace(base, **parts), how


def _part(config: Any, names: list[str]) -> Any:
    """The fields of a dataclass instance that are called `names`, as a dataclass instance of its own."""
    from experiments import options

    helps = options.comments(type(config))

    def copy(item: Any) -> Any:
        return field(default=getattr(config, item.name), metadata={"help": helps.get(item.name)})

    fields = [(item.name, item.type, copy(item)) for item in dataclasses.fields(config) if item.name in names]
    return make_dataclass("Config", fields)()


def _value_of(option: str, words: list[str]) -> str | None:
    """What follows the last `option` among `words`."""
    found = None
    for place, word in enumerate(words):
        if word.startswith(f"{option}="):
            found = word.partition("=")[2]
        elif word == option:
            found = words[place + 1] if place + 1 < len(words) else None
    return found


def _run_of(words: list[str], command: str) -> tuple[str, list[str]]:
    if words and words[0] in ("-h", "--help"):
        raise ValueError(f"Which run? `python -m experiments {command} RUN --help` shows the options for that run.")
    if not words or words[0].startswith("-"):
        raise ValueError(f"Which run? `python -m experiments {command} RUN`, where RUN is a run folder.")
    return words[0], words[1:]
