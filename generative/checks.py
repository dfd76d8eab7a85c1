"""Exactness of autoregressive models: reports that say where a model fails, for the models here and a user's own.

A network is given as `outputs(x [B, *shape]) -> [B, *shape, P]`, where `x` is real and P numbers give the distribution
of each variable; examples of a batch must not mix. Variables are numbered along the flattened example and drawn in
`order`, as they are numbered if it is not given. A check costs D passes through the network, or more.
Axes: B batch, D variables, P outputs per variable, L levels.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax, random
from jax import numpy as jnp
from jax.scipy.special import gammaincc

from generative import masks

MOST = 2**22  # inputs that are worth enumerating
SHOWN = 5  # failures that a message names


class Causality(NamedTuple):
    """Whether the outputs of each variable depend on nothing but the variables drawn before it."""

    passed: bool
    message: str
    leaks: np.ndarray  # [K, 2] a variable, and one not drawn before it that its outputs depend on
    disturbed: np.ndarray  # [K] variables whose outputs changed in any bit when it and later ones were disturbed
    derivatives: np.ndarray  # [D, D] largest derivative found of the row's outputs by the column's value


class Reception(NamedTuple):
    """Whether the outputs of each variable see what they are expected to see."""

    passed: bool
    message: str
    missing: np.ndarray  # [K, 2] a variable, and one that it was expected to see and does not
    unexpected: np.ndarray  # [K, 2] a variable, and one that it sees and was not expected to
    seen: np.ndarray  # [D, D] bool, whether the row's outputs depend on the column's value


class Normalisation(NamedTuple):
    """Whether the probabilities of all inputs sum to one."""

    passed: bool
    message: str
    total: float  # sum of all probabilities
    errors: np.ndarray | None  # [D] how far each variable's distribution is from summing to one, if they were given


class Sampling(NamedTuple):
    """Whether every method of sampling gives the same examples, as often as their probabilities say."""

    passed: bool
    message: str
    differing: dict[str, np.ndarray]  # for each method but the first, [K, 2] the example and variable that differ
    off_grid: int  # values that are none of the levels
    p_value: float | None  # of the chi-square test of frequencies, if probabilities were given and samples enough
    kept: float | None  # probability of the inputs that the test counts each by itself, the more the sharper it is
    worst: np.ndarray | None  # the input whose frequency is the furthest from its probability


def check_causal(
    outputs: Callable[[Array], Array], shape: tuple[int, ...], key: Array, order: Any = None, num_inputs: int = 4
) -> Causality:
    """Derivatives that must be zero, and outputs that must not change in any bit when the future is disturbed.

    Both at `num_inputs` random inputs in [0, 1): a rectified unit that is off in one may be on in another.
    """
    input_key, other_key = random.split(key)
    size = math.prod(shape)
    earlier = masks.earlier(np.arange(size) if order is None else order)
    x, other = random.uniform(input_key, (num_inputs, size)), random.uniform(other_key, (num_inputs, size))
    derivatives = _derivatives(outputs, shape, x)
    leaks = np.argwhere((derivatives != 0) & ~earlier)

    def disturbed_outputs(keep: Array) -> Array:
        y = outputs(jnp.where(keep, x, other).reshape(num_inputs, *shape))
        return y.reshape(num_inputs, size, -1)

    # One program for all, so that equal sums are summed in equal order.
    keeps = np.concatenate([np.ones((1, size), bool), earlier])
    whole, *others = np.asarray(lax.map(disturbed_outputs, jnp.asarray(keeps)))
    unseen = ~earlier.T  # [variable from which on all is disturbed, variable that is drawn no later]
    changed = [(whole != y).any((0, 2)) & unseen[first] for first, y in enumerate(others)]
    disturbed = np.flatnonzero(np.any(changed, 0))
    parts = [
        _named(leaks, shape, "outputs of {} have a derivative by {}, which is not drawn before"),
        _named(disturbed[:, None], shape, "outputs of {} change when only it and later variables do"),
    ]
    return Causality(*_verdict(parts, "causal"), leaks, disturbed, derivatives)


def check_receptive(
    outputs: Callable[[Array], Array],
    shape: tuple[int, ...],
    key: Array,
    order: Any = None,
    expected: Any = None,
    num_inputs: int = 4,
) -> Reception:
    """What each variable's outputs depend on, against `expected` bool [D, D]: by default all drawn before."""
    size = math.prod(shape)
    if expected is None:
        expected = masks.earlier(np.arange(size) if order is None else order)
    seen = _derivatives(outputs, shape, random.uniform(key, (num_inputs, size))) != 0
    missing, unexpected = np.argwhere(expected & ~seen), np.argwhere(seen & ~expected)
    parts = [
        _named(missing, shape, "outputs of {} do not see {}"),
        _named(unexpected, shape, "outputs of {} see {}, against expectation"),
    ]
    return Reception(*_verdict(parts, "as expected"), missing, unexpected, seen)


def check_normalised(
    log_prob: Callable[[Array], Array],
    shape: tuple[int, ...],
    levels: int,
    tolerance: float = 1e-5,
    batch_size: int = 4096,
) -> Normalisation:
    """Sum the probabilities of all levels**D inputs.

    `log_prob(x [B, *shape] int32)` gives nats [B], or [B, *shape] for each variable given those before it; the report
    then names the variables whose distributions do not sum to one.

    Raises:
        ValueError: too many inputs to enumerate.
    """
    size = math.prod(shape)
    inputs = enumerate_inputs(shape, levels)
    batches = [inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size)]
    logs = np.concatenate([np.asarray(log_prob(jnp.asarray(x)), np.float64) for x in batches])
    logs = logs.reshape(len(inputs), -1)
    errors = None
    parts = []
    if logs.shape[1] > 1 or size == 1:
        tables = np.exp(logs).T.reshape(size, *[levels] * size)
        errors = np.array([np.abs(table.sum(axis) - 1).max() for axis, table in enumerate(tables)])
        wrong = np.flatnonzero(~(errors <= tolerance))
        parts.append(_named(wrong[:, None], shape, "the distribution of {} does not sum to one"))
    total = float(np.exp(logs.sum(1)).sum())
    if not abs(total - 1) <= tolerance:
        parts.append(f"all probabilities sum to {total:.7g}")
    return Normalisation(*_verdict(parts, "normalised"), total, errors)


def enumerate_inputs(shape: tuple[int, ...], levels: int) -> np.ndarray:
    """All inputs [levels**D, *shape] int32, the last variable changing fastest.

    Raises:
        ValueError: too many of them.
    """
    size = math.prod(shape)
    if levels**size > MOST:
        raise ValueError(f"{levels}**{size} inputs are more than the {MOST} worth enumerating: take a smaller shape.")
    return np.indices([levels] * size, np.int32).reshape(size, -1).T.reshape(-1, *shape)


def check_sampler(
    samplers: Mapping[str, Callable[[Array], Array]],
    key: Array,
    levels: int,
    log_prob: Callable[[Array], Array] | None = None,
    significance: float = 1e-4,
) -> Sampling:
    """Every method with the same key, each `sampler(key) -> [N, *shape]` integers or these divided by levels - 1.

    Products are computed with all 32 bits: of the fewer that GPUs and TPUs take by default, each method has its own
    rounding, and now and then a value falls on the other side.

    With `log_prob(x [B, *shape] int32) -> [B]`, the frequencies of the first method are held against all probabilities
    by a chi-square test, which a right sampler fails with the chance `significance`. That needs small shapes and many
    samples: inputs expected fewer than five times are counted together, and with the rarest other one if they are
    expected fewer than five times even so.
    """
    with jax.default_matmul_precision("float32"):
        drawn = {name: np.asarray(sampler(key)) for name, sampler in samplers.items()}
    first, *others = drawn
    values = {name: x * (levels - 1) if np.issubdtype(x.dtype, np.floating) else x for name, x in drawn.items()}
    whole = {name: np.rint(x).astype(np.int64) for name, x in values.items()}
    shape = whole[first].shape[1:]
    off_grid = sum(
        int(((np.abs(x - whole[name]) > 1e-4) | (whole[name] < 0) | (whole[name] >= levels)).sum())
        for name, x in values.items()
    )
    differing = {name: np.argwhere(_flat(whole[name]) != _flat(whole[first])) for name in others}
    parts = [f"{off_grid} values are none of the {levels} levels"] if off_grid else []
    for name, places in differing.items():
        if len(places):
            example, variable = places[0]
            parts.append(
                f"{len(np.unique(places[:, 0]))} of {len(whole[first])} examples of {name} are not those of {first}, "
                f"first example {example} at {_place(variable, shape)}"
            )
    p_value, kept, worst = None, None, None
    if log_prob is not None and not off_grid:
        p_value, kept, worst = _frequencies(whole[first], log_prob, levels)
        if p_value is None:
            parts.append(
                f"{len(whole[first])} samples are too few to test frequencies: draw more, or of a smaller shape"
            )
        elif not p_value >= significance:
            parts.append(f"frequencies do not fit probabilities (p = {p_value:.2g}), least so at {worst.tolist()}")
    return Sampling(*_verdict(parts, "exact"), differing, off_grid, p_value, kept, worst)


def _frequencies(
    x: np.ndarray, log_prob: Callable[[Array], Array], levels: int
) -> tuple[float | None, float, np.ndarray]:
    """Of a chi-square test of samples `x` [N, *shape]: p-value, `Sampling.kept`, and the input that fits least.

    The p-value is 0 where an impossible input was drawn, and None where no two counts are left to compare.
    """
    inputs = enumerate_inputs(x.shape[1:], levels)
    expected = len(x) * np.exp(np.float64(log_prob(jnp.asarray(inputs))))
    numbers = _flat(x) @ (levels ** np.arange(math.prod(x.shape[1:]))[::-1])
    counts = np.bincount(numbers, minlength=len(inputs))
    rare = expected < 5
    kept = float(expected[~rare].sum() / len(x))
    impossible = np.flatnonzero((expected == 0) & (counts > 0))
    if len(impossible):
        return 0.0, kept, inputs[impossible[0]]
    worst = inputs[np.argmax((counts - expected) ** 2 / np.maximum(expected, 1.0))]
    cells = sorted(zip(expected[~rare], counts[~rare], strict=True))
    pooled = expected[rare].sum(), counts[rare].sum()
    if cells and 0 < pooled[0] < 5:
        pooled = pooled[0] + cells[0][0], pooled[1] + cells[0][1]
        cells = cells[1:]
    expected, counts = np.array([*cells, *([pooled] if pooled[0] else [])]).T
    if len(counts) < 2:
        return None, kept, worst
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(gammaincc((len(counts) - 1) / 2, statistic / 2)), kept, worst


def _derivatives(outputs: Callable[[Array], Array], shape: tuple[int, ...], x: Array) -> np.ndarray:
    """Largest absolute derivative [D, D] at `x` [B, D] of each variable's outputs, in some mixture, by each value."""

    def mixed(x: Array) -> Array:
        y = outputs(x.reshape(len(x), *shape)).reshape(*x.shape, -1)
        return (y * jnp.cos(jnp.arange(1.0, 1.0 + y.shape[-1]))).sum(-1)  # weights that cancel nothing

    def row(variable: Array) -> Array:
        y, pull = jax.vjp(mixed, x)
        return jnp.abs(pull(jnp.zeros_like(y).at[:, variable].set(1.0))[0]).max(0)

    return np.asarray(lax.map(row, jnp.arange(x.shape[1])))


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _place(variable: Any, shape: tuple[int, ...]) -> str:
    return str(tuple(int(part) for part in np.unravel_index(variable, shape)))


def _named(places: np.ndarray, shape: tuple[int, ...], text: str) -> str:
    """The first few rows of `places` [K, ...] in words."""
    named = [text.format(*(_place(variable, shape) for variable in row)) for row in places[:SHOWN]]
    more = [f"and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
    return "; ".join(named + more)


def _verdict(parts: list[str], praise: str) -> tuple[bool, str]:
    faults = [part for part in parts if part]
    return not faults, "; ".join(faults) or praise
