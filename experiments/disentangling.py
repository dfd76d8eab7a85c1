"""Trained models' latents scored against the known factors of their data, one after another."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array, random

from experiments.experiment import Program
from generative import data, disentanglement, sprites

SCORES = "mig", "factor_vae", "beta_vae", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap"
NUM_TREE_EXAMPLES = 1000  # behind DCI, whose trees take long


def scores(
    program: Program, states: Any, seed: int = 0, num_votes: int = 10_000, *, conditional: bool = False
) -> dict[str, np.ndarray]:
    """The five scores of `disentanglement`, DCI's three parts apart, of `states` [L, ...]: leaves [L].

    A `conditional` model is told the shape, and its codes need not say it.

    Raises:
        ValueError: the model has no codes, or its data no known factors.
    """
    model, examples = program.learner, getattr(program.source, "train", None)
    if getattr(model, "encode", None) is None or not isinstance(examples, data.Rendered):
        name = getattr(program.given, "spec", program.given).name
        raise ValueError(
            f"A model of {name} has no latents to score against known factors: train a VAE on --data sprites."
        )
    drawn = jax.jit(partial(draw, model, examples, random.key(seed), num_votes, conditional))  # compiled for all lanes
    count = len(jax.tree.leaves(states)[0])
    lanes = [jax.tree.map(lambda leaf, lane=lane: leaf[lane], states) for lane in range(count)]
    measured = [score(examples.grid, *jax.device_get(drawn(state))) for state in lanes]
    return {name: np.array([each[name] for each in measured]) for name in measured[0]}


def draw(
    model: Any, examples: data.Rendered, key: Array, num_votes: int, conditional: bool, state: Any
) -> tuple[list[disentanglement.Codes], list[disentanglement.Votes], list[disentanglement.Votes]]:
    """Codes, and votes of FactorVAE and of beta-VAE, of `state`: to train on, and half as many votes to test."""
    grid = examples.grid
    encode_key, *keys = random.split(key, 7)

    def represent(values: Array) -> Array:
        label = (examples.label(values),) if conditional else ()
        return model.encode(encode_key, state, grid.images(values), *label)

    counts = num_votes, num_votes // 2
    return (
        [disentanglement.draw_codes(key, represent, grid.sizes) for key in keys[:2]],
        [disentanglement.draw_variances(keys[2 + i], represent, grid.sizes, counts[i]) for i in range(2)],
        [disentanglement.draw_differences(keys[4 + i], represent, grid.sizes, counts[i]) for i in range(2)],
    )


def score(
    grid: sprites.Grid,
    codes: list[disentanglement.Codes],
    variances: list[disentanglement.Votes],
    differences: list[disentanglement.Votes],
) -> dict[str, float]:
    """The scores of what `draw` has drawn."""
    train, test = codes
    few = (disentanglement.Codes(*(leaf[:NUM_TREE_EXAMPLES] for leaf in codes)) for codes in (train, test))
    dci = disentanglement.dci(*few)
    categorical = [grid.factors.index(name) for name in ("color", "shape") if name in grid.factors]
    found = (
        disentanglement.mutual_information_gap(train),
        disentanglement.factor_vae_score(train, *variances),
        disentanglement.beta_vae_score(*differences),
        *dci,
        disentanglement.separated_attribute_predictability(train, test, categorical),
    )
    return dict(zip(SCORES, found, strict=True))
