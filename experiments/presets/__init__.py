"""Settings that are known to work, by name. What a preset does not say is the default of the algorithm's module."""

from experiments.experiment import Experiment
from experiments.presets import agents, models
from experiments.presets.preset import Preset as Preset
from jaxrl.core import checks

PRESETS = agents.PRESETS | models.PRESETS


def get(name: str) -> Experiment:
    """The experiment of a preset.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in PRESETS:
        raise ValueError(checks.unknown("preset", name, PRESETS))
    return PRESETS[name].experiment()
