"""Every learner by name. A new algorithm or model is one line here."""

import ast
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import sources
from jaxrl.core import checks


@dataclass(frozen=True)
class Learner:
    """Where a learner lives, what it learns from and which of its metrics is its score."""

    module: str
    source: type[sources.Environment] | type[sources.Data]
    score: str
    unit: str = ""  # of the score
    higher_is_better: bool = True

    def load(self) -> ModuleType:
        """Its module, with `Config`, `Hyperparams` and `make`."""
        return importlib.import_module(self.module)

    def summary(self) -> str:
        """The first line of its module's docstring, read without importing it."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None and spec.origin is not None
        return (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").split("\n")[0]


def agent(name: str) -> Learner:
    """An algorithm of `jaxrl.algorithms`, scored by its return."""
    return Learner(f"jaxrl.algorithms.{name}", sources.Environment, "eval/return")


def model(name: str, score: str = "eval/elbo", **kwargs: Any) -> Learner:
    """A model of `generative.models`, scored by its bound or likelihood."""
    return Learner(f"generative.models.{name}", sources.Data, score, "nats per example", **kwargs)


def adversarial(name: str, score: str = "eval/mmd") -> Learner:
    """An adversarial model of `generative.models`, scored by how far its samples or translations are off."""
    return Learner(f"generative.models.{name}", sources.Data, score, higher_is_better=False)


LEARNERS = {
    "reinforce": agent("reinforce"),
    "a2c": agent("a2c"),
    "trpo": agent("trpo"),
    "ppo": agent("ppo"),
    "ppo_recurrent": agent("ppo_recurrent"),
    "pqn": agent("pqn"),
    "dqn": agent("dqn"),
    "ddpg": agent("ddpg"),
    "td3": agent("td3"),
    "sac": agent("sac"),
    "sac_discrete": agent("sac_discrete"),
    "td_control": agent("td_control"),
    "td_prediction": Learner(
        "jaxrl.algorithms.td_prediction", sources.Environment, "eval/error", higher_is_better=False
    ),
    "dyna": agent("dyna"),
    "pets": agent("pets"),
    "autoencoder": Learner(
        "generative.models.autoencoder", sources.Data, "eval/error", "per example", higher_is_better=False
    ),
    "vae": model("vae"),
    "made": model("made", "eval/nll", higher_is_better=False),
    "nade": model("nade", "eval/nll", higher_is_better=False),
    "pixelcnn": model("pixelcnn", "eval/nll", higher_is_better=False),
    "gated_pixelcnn": model("gated_pixelcnn", "eval/nll", higher_is_better=False),
    "pixelrnn": model("pixelrnn", "eval/nll", higher_is_better=False),
    "pixelcnnpp": model("pixelcnnpp", "eval/nll", higher_is_better=False),
    "wavenet": model("wavenet", "eval/nll", higher_is_better=False),
    "gan": adversarial("gan"),
    "wgan_gp": adversarial("wgan_gp"),
    "sngan": adversarial("sngan"),
    "pix2pix": adversarial("pix2pix", "eval/l1"),
    "cyclegan": adversarial("cyclegan", "eval/l1"),
}


def get(name: str) -> Learner:
    """The learner called `name`.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in LEARNERS:
        raise ValueError(checks.unknown("algorithm", name, LEARNERS))
    return LEARNERS[name]
