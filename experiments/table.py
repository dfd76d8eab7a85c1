"""The results table: every preset trained over its seeds by the shipped defaults, a line for each of its metrics."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import folder, presets, registry, sources, summary, training
from experiments.experiment import Experiment
from jaxrl.core import checks, stats

NOTE = (
    "What the last evaluation found: interquartile mean over seeds, its 95 % bootstrap interval, and the worst seed. "
    "Steps are environment steps, a warm-up included, or examples, of each seed. Seconds are of training and "
    "evaluation, all seeds together, without compilation. What was published was found as it says, else as here."
)
COLUMNS = (
    "preset, algorithm, on, protocol, steps, seeds, metric, score, interval, worst, published, seconds, command, "
    "machine, revision"
).split(", ")
BEST_LOW = ("eval/back_l1", "eval/reverse_kl")  # of the metrics of presets that are no learner's score
# What a metric is, where its name and the data do not say so.
MEANING = {
    "elbo": "bound on the log-likelihood in nats, a sample of the latents each",
    "nll": "exact negative log-likelihood in nats",
    "l1": "absolute error of translations",
    "quality": "share of samples in a mode",
}


class Row(NamedTuple):
    """What a preset came to, by one metric."""

    preset: str
    algorithm: str
    source: str
    protocol: str  # of the evaluation
    steps: int  # per seed
    seeds: int
    metric: str
    score: float  # interquartile mean
    low: float  # of its interval
    high: float
    worst: float
    published: str  # the figure of a paper or of another library, empty if there is none
    seconds: float | None  # unknown of a run that was stopped after its last update
    command: str  # that trains it again
    machine: str
    revision: str  # of the code

    def cells(self) -> list[str]:
        """The line of the table."""
        return [
            f"`{self.preset}`",
            self.algorithm,
            self.source,
            self.protocol,
            f"{self.steps:,}",
            f"{self.seeds}",
            self.metric,
            f"{self.score:.4g}",
            f"{self.low:.4g} to {self.high:.4g}",
            f"{self.worst:.4g}",
            self.published,
            "" if self.seconds is None else f"{self.seconds:,.0f}",
            f"`{self.command}`",
            self.machine,
            self.revision,
        ]


def train(name: str, root: Path) -> bool:
    """Train preset `name` in a folder of its own under `root`, or continue it, if it is not done. Whether it is now."""
    path = root / name
    if not (path / folder.CONFIG).exists():
        experiment = dataclasses.replace(presets.get(name), seeds=presets.PRESETS[name].seeds)
        return not training.train(experiment, run_dir=str(path)).signal
    return (path / folder.SUMMARY).exists() or not training.resume(path).signal


def rows(name: str, path: Path) -> Iterator[Row]:
    """The rows of preset `name`, read from its finished run."""
    _, config, experiment = folder.open_run(path)
    preset, learner = presets.PRESETS[name], registry.get(experiment.algorithm)
    report = json.loads((path / folder.SUMMARY).read_text())
    found = folder.read_metrics(path)
    last = [each for each in found if each["update"] == found[-1]["update"]]
    speed = report["steps_per_second"]
    for metric in preset.metrics or (learner.score,):
        higher_is_better = learner.higher_is_better if metric == learner.score else metric not in BEST_LOW
        scores = stats.worst_for_nan(folder.column(last, metric)[0], higher_is_better)
        low, high = stats.bootstrap_interval(scores)
        yield Row(
            preset=name,
            algorithm=experiment.algorithm,
            source=str(experiment.source),
            protocol=protocol(experiment, metric),
            steps=summary.all_steps(experiment, last[0]["step"]),
            seeds=len(last),
            metric=summary.plain(metric),
            score=float(stats.interquartile_mean(scores)),
            low=float(low),
            high=float(high),
            worst=float(scores.min() if higher_is_better else scores.max()),
            published=preset.published,
            seconds=last[0]["step"] * len(last) / speed if speed else None,
            command=f"python -m experiments train --preset {name} --seeds {len(last)}",
            machine=f"{config.get('processor') or config['machine']}, {config['device']}",
            revision=re.sub(r"(\w{10})\w*", r"\1", config["git"] or ""),  # with the plus sign of changed files
        )


def protocol(experiment: Experiment, metric: str) -> str:
    """How `metric` was measured."""
    config: Any = experiment.config
    if isinstance(experiment.source, sources.Environment):
        actions = {True: ", likeliest actions", False: ", sampled actions", None: ""}
        return f"{config.eval_episodes} episodes per seed{actions[getattr(config, 'eval_greedy', None)]}"
    name, data = summary.plain(metric), experiment.source.data
    samples = getattr(config, "eval_samples", 0)
    parts = [f"{getattr(config, 'eval_split', 'test')} split", *(["fixed binarisation"] if "binarized" in data else [])]
    if getattr(config, "binarization", "none") == "dynamic":
        parts.append("dynamic binarisation")
    if experiment.algorithm == "vae" and name == "nll":
        parts.append(f"negative log-likelihood in nats over {samples} importance samples")
    elif name in MEANING:
        parts.append(MEANING[name])
    if experiment.algorithm != "vae" and samples:
        parts.append(f"{samples:,} samples")
    return ", ".join(parts)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The table of `lines`, each with a cell for every column."""
    table = [COLUMNS, ["---"] * len(COLUMNS), *lines]
    return "\n".join([NOTE, "", *(f"| {' | '.join(cells)} |" for cells in table)]) + "\n"


def lines(root: Path, failures: dict[str, str]) -> Iterator[list[str]]:
    """Of every preset that is finished under `root`; of one in `failures`, or that cannot be read, why it is not."""
    for name in presets.PRESETS:
        reason = failures.get(name)
        if reason is None and (root / name / folder.SUMMARY).exists():
            try:
                yield from [row.cells() for row in rows(name, root / name)]
            except (ValueError, OSError) as error:
                reason = _reason(error)
        if reason is not None:
            yield [f"`{name}`", reason, *[""] * (len(COLUMNS) - 2)]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).replace("|", "/")


def run(names: Sequence[str], root: Path, target: Path) -> list[str]:
    """Train the presets `names`, all if there are none, and write the table of all under `root` to `target` after each.

    What is finished under `root` is not trained again, what was stopped goes on. What cannot be trained, for lack of
    its data say, is passed over, and its line says why. Returns the names of those that are not finished.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    for name in names:
        if name not in presets.PRESETS:
            raise ValueError(checks.unknown("preset", name, presets.PRESETS))
    wanted, failures = list(names or presets.PRESETS), dict[str, str]()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()  # a path that cannot be written to shows now, not hours later
    for place, name in enumerate(wanted):
        try:
            if not train(name, root):
                return [*failures, *wanted[place:]]
        except (ValueError, OSError) as error:
            failures[name] = _reason(error)
            print(f"{name}: {failures[name]}", flush=True)
        target.write_text(markdown(list(lines(root, failures))))
    return list(failures)
