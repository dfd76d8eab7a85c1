"""A preset: an experiment as what differs from the defaults."""

from dataclasses import dataclass, field
from typing import Any

from experiments import registry, sources
from experiments.experiment import Experiment


@dataclass(frozen=True)
class Preset:
    """An experiment as what differs from the defaults."""

    algorithm: str
    source: sources.Environment | sources.Data
    steps: int
    config: dict[str, Any] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 50
    seeds: int = 16  # in the results table
    metrics: tuple[str, ...] = ()  # of the evaluations, a line each in that table; the learner's score if none
    published: str = ""  # the figure of a paper or of another library, beside ours there, and how it was found

    def experiment(self) -> Experiment:
        """The whole experiment, with one seed."""
        module = registry.get(self.algorithm).load()
        config, hparams = module.Config(**self.config), module.Hyperparams(**self.hparams)
        return Experiment(self.algorithm, self.source, config, hparams, self.steps, self.evaluations)


def env(name: str, *pairs: str, hide: tuple[int, ...] = ()) -> sources.Environment:
    """The environment `name`, made with name=value `pairs`, less the entries of its observations to `hide`."""
    return sources.Environment(name, pairs, hide)


def data(name: str, *pairs: str) -> sources.Data:
    """The data set `name`, loaded with name=value `pairs`."""
    return sources.Data(name, data_kwargs=pairs)
