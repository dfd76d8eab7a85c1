"""The floor that prints, writes files and owns a clock: command line, presets, run folders, plots.

From a notebook: `experiments.train(experiments.preset("ppo-cartpole"))`, and `experiments.restore(folder)` to use what
was learned; `experiments.sweep(experiments.preset("ppo-cartpole"), learning_rate=[1e-4, 1e-3])`.
"""

from experiments.evaluation import restore
from experiments.experiment import Experiment
from experiments.presets import get as preset
from experiments.sources import Data, Environment
from experiments.sweeping import sweep
from experiments.training import resume, train

__all__ = ["Data", "Environment", "Experiment", "preset", "restore", "resume", "sweep", "train"]
