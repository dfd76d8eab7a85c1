"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846, algorithm 1), inside the jitted program.

Before each chunk the worst members of a population copy the state of some of the best, and go on with hyperparameters
a step away from theirs. A hyperparameter is held as its quantile in the range that is searched, so that a step is as
wide for a range of magnitudes as for one of plain numbers. Axes: M members, F fields searched.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl.core import checks, fields, loop
from jaxrl.core.sweep import LogUniform, Uniform


@dataclass(frozen=True)
class Population:
    """How members learn from each other."""

    fraction: float = 0.25  # of the members that copy, and of those that are copied
    step: float = 0.2  # of a hyperparameter when it is copied, up or down, as a part of its range
    fresh: float = 0.25  # chance that it is drawn anew from its range instead

    def stops(self, num_chunks: int) -> list[int]:
        """Chunks done at the end of the only stage: no lane is dropped."""
        return [num_chunks]

    def kept(self, num_points: int) -> int:
        """All members stay."""
        return num_points

    def copying(self, num_members: int) -> int:
        """How many members copy.

        Raises:
            ValueError: fewer than one, or more than half.
        """
        checks.at_least_one(members=num_members)
        count = int(self.fraction * num_members)
        if not 1 <= count <= num_members // 2:
            raise ValueError(
                f"fraction={self.fraction} of {num_members} members is {count}: at least one must copy and no more "
                "than half."
            )
        return count


class Searched(NamedTuple):
    """A field of Hyperparams and where its values may lie. Static."""

    field: fields.Field
    spread: Uniform | LogUniform

    def quantile(self, hparams: Any) -> Array:
        """Of the field's value."""
        return jnp.clip(self.spread.quantile(fields.at(hparams, self.field.path)), 0.0, 1.0)

    def place(self, hparams: Any, quantile: Array) -> Any:
        """`hparams` with the value at `quantile`, a whole number where the field holds whole numbers."""
        value = self.spread.at(quantile)
        before = fields.at(hparams, self.field.path)
        whole = jnp.issubdtype(jnp.result_type(before), jnp.integer)
        return fields.replaced(hparams, self.field.path, jnp.round(value).astype(before.dtype) if whole else value)


class Members(NamedTuple):
    """A population. All leaves have the axis M first."""

    runs: Any
    key: Array  # root of the copying, never consumed; one for all members
    quantiles: Array  # [M, F] of the hyperparameters
    score: Array  # [M] at the last evaluation, more is better


def start(learner: Any, num_updates: int, searched: tuple[Searched, ...], axes: Any) -> Any:
    """A function of (keys [M], hparams, source) with lane axes `axes`, as of `sweep.Group`, that gives `Members`.

    Members are runs of their own, though all come with the population's one key.
    """

    def begin(keys: Array, hparams: Any, source: Any) -> Members:
        copy_keys, member_keys = jax.vmap(random.split, out_axes=1)(keys)
        # With the same random numbers a copy that takes no step would stay what its parent is.
        member_keys = jax.vmap(random.fold_in)(member_keys, jnp.arange(len(keys)))
        runs = jax.vmap(partial(loop.start, learner, num_updates=num_updates), axes)(member_keys, hparams, source)
        quantiles = jnp.stack([each.quantile(hparams) for each in searched], -1)
        return Members(runs, copy_keys, quantiles, jnp.zeros(len(keys)))

    return begin


def chunk(
    learner: Any,
    length: int,
    population: Population,
    searched: tuple[Searched, ...],
    axes: Any,
    score: str,
    higher_is_better: bool = True,
) -> Any:
    """A function of (members, hparams, source): copy, advance by `length` updates, evaluate. Gives (members, metrics).

    Metrics are the loop's with leaves [M], and of each member its "parent", itself if it copied none, and the value
    of each field searched.
    """

    def advance(members: Members, hparams: Any, source: Any) -> tuple[Members, dict[str, Array]]:
        step = members.runs.step[0]
        parent, quantiles = exchange(random.fold_in(members.key[0], step), members, population)
        begun = step > 0
        parent = jnp.where(begun, parent, jnp.arange(len(parent)))
        quantiles = jnp.where(begun, quantiles, members.quantiles)
        runs = members.runs._replace(state=jax.tree.map(lambda leaf: leaf[parent], members.runs.state))
        for place, each in enumerate(searched):
            hparams = each.place(hparams, quantiles[:, place])
        runs, metrics = jax.vmap(partial(loop.chunk, learner, length), axes)(runs, hparams, source)
        found = metrics[score] if higher_is_better else -metrics[score]
        found = jnp.where(jnp.isnan(found), -jnp.inf, found)
        values = {each.field.name: fields.at(hparams, each.field.path) for each in searched}
        metrics = {**metrics, "parent": parent, **values}
        return Members(runs, members.key, quantiles, found), metrics

    return advance


def exchange(key: Array, members: Members, population: Population) -> tuple[Array, Array]:
    """Whose state each member goes on with [M], itself or one of the best, and its quantiles [M, F]."""
    num, num_fields = members.quantiles.shape
    count = population.copying(num)
    order = jnp.argsort(members.score)
    pick_key, step_key, chance_key, fresh_key = random.split(key, 4)
    best = random.choice(pick_key, order[-count:], (count,))
    parent = jnp.arange(num).at[order[:count]].set(best)
    steps = population.step * random.rademacher(step_key, (num, num_fields), jnp.float32)
    moved = jnp.clip(members.quantiles[parent] + steps, 0.0, 1.0)
    is_fresh = random.bernoulli(chance_key, population.fresh, (num, num_fields))
    changed = jnp.where(is_fresh, random.uniform(fresh_key, (num, num_fields)), moved)
    copied = (parent != jnp.arange(num))[:, None]
    return parent, jnp.where(copied, changed, members.quantiles)


def over_seeds(function: Any, axes: Any, num_members: int) -> Any:
    """`function` of (keys or members, hparams, source) of one population, made one of S populations.

    What has a lane axis, as `axes` say, has [S * M] lanes, those of a population side by side; and so has the result.
    """

    def apart(axis: Any, tree: Any) -> Any:
        # Sizes in full: arrays without elements cannot be reshaped by what is left over.
        split = lambda leaf: leaf.reshape(len(leaf) // num_members, num_members, *leaf.shape[1:])  # noqa: E731
        return tree if axis is None else jax.tree.map(split, tree)

    def several(*arguments: Any) -> Any:
        split = jax.tree.map(apart, axes, arguments, is_leaf=lambda axis: axis is None)
        given = jax.vmap(function, axes)(*split)
        return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), given)

    return several
