"""Log-probability of examples given a decoder's outputs, in nats, summed over features. Axes: D features."""

import math
from typing import Literal

from jax import Array, nn
from jax import numpy as jnp

Likelihood = Literal["bernoulli", "gaussian", "logistic"]  # bits, real numbers, integers 0 .. levels - 1 scaled


def log_prob(likelihood: Likelihood, outputs: Array, scale: Array, x: Array, levels: int | None) -> Array:
    """Log-probability [...] of `x` [..., D] under one of the likelihoods below; bits have no use for `scale`."""
    if likelihood == "bernoulli":
        return bernoulli(outputs, x)
    if likelihood == "gaussian":
        return gaussian(outputs, scale, x)
    assert levels is not None
    return discretized_logistic(outputs, scale, x, levels)


def mean(likelihood: Likelihood, outputs: Array) -> Array:
    """The mean [..., D] that `outputs` [..., D] stand for."""
    return nn.sigmoid(outputs) if likelihood == "bernoulli" else outputs


def outputs_of(likelihood: Likelihood, mean: Array) -> Array:
    """The outputs [..., D] that stand for `mean` [..., D]; chances are kept 0.001 from 0 and 1, as Burda et al. do."""
    if likelihood != "bernoulli":
        return mean
    mean = jnp.clip(mean, 0.001, 0.999)
    return jnp.log(mean) - jnp.log1p(-mean)


def bernoulli(logits: Array, x: Array) -> Array:
    """Log-probability [...] of `x` [..., D] in [0, 1] under independent Bernoulli variables with `logits` [..., D].

    Between 0 and 1 it is the expected log-probability of `x` binarised: a loss, but no likelihood of `x` itself.
    """
    return (x * logits - softplus(logits)).sum(-1)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), to an absolute error of 1e-7. `jax.nn.softplus` is exact where it is tiny, at twice the cost."""
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


def gaussian(mean: Array, scale: Array, x: Array) -> Array:
    """Log-density [...] of `x` [..., D] under independent normal variables with `mean` [..., D] and `scale`."""
    return (-0.5 * jnp.square((x - mean) / scale) - jnp.log(scale) - 0.5 * math.log(2 * math.pi)).sum(-1)


def discretized_logistic(mean: Array, scale: Array, x: Array, levels: int) -> Array:
    """Log-probability [...] of `x` [..., D] in 0, 1 / (levels - 1), ..., 1 under logistic variables rounded to these.

    Salimans et al. 2017, arXiv:1701.05517, section 2.1: what is below 0 counts as 0, and what is above 1 as 1.
    """
    return _rounded_logistic(mean, scale, x, levels).sum(-1)


def logistic_mixture(outputs: Array, x: Array, levels: int) -> Array:
    """Log-probability [...] of `x` [...] in 0, 1 / (levels - 1), ..., 1 under mixtures of logistics rounded to these.

    Salimans et al. 2017, equation 2: `outputs` [..., 3 K] are the logit, the mean and the log-scale of each part, of
    values taken from -1 to 1. Log-scales are kept from -7, which leaves hardly more than a level, to 7, which leaves
    hardly more than the first and the last.
    """
    logits = outputs[..., : outputs.shape[-1] // 3]
    return nn.logsumexp(logits + logistic_parts(outputs, x, levels), -1) - nn.logsumexp(logits, -1)


def logistic_parts(outputs: Array, x: Array, levels: int) -> Array:
    """Log-probability [..., K] of `x` [...] under each part of a `logistic_mixture`."""
    _, mean, scale = _parts(outputs)
    return _rounded_logistic(mean, scale, x[..., None], levels)


def logistic_mixture_ends(outputs: Array, levels: int) -> Array:
    """Chances [..., L - 1] that a variable of a `logistic_mixture` is at most each level but the last."""
    logits, mean, scale = _parts(outputs)
    ends = (jnp.arange(levels - 1)[:, None] + 0.5) / (levels - 1)
    below = nn.sigmoid((ends - mean[..., None, :]) / scale[..., None, :])
    return (nn.softmax(logits)[..., None, :] * below).sum(-1)


def _parts(outputs: Array) -> tuple[Array, Array, Array]:
    """Logits, means and scales [..., K] of a mixture of variables from 0 to 1."""
    logits, mean, log_scale = jnp.split(outputs, 3, axis=-1)
    return logits, 0.5 + 0.5 * mean, 0.5 * jnp.exp(jnp.clip(log_scale, -7.0, 7.0))


def _rounded_logistic(mean: Array, scale: Array, x: Array, levels: int) -> Array:
    """Log-probability [...] of each `x` [...]."""
    half = 0.5 / (levels - 1)
    below = -softplus((mean - x - half) / scale)  # log chance of at most x, of at least x, and of neither being more
    above = -softplus((x - half - mean) / scale)
    between = jnp.log(-jnp.expm1(-2.0 * half / scale))
    # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), in which no large numbers cancel; at an end only one factor is left.
    low, high = x < half, x > 1.0 - half
    return jnp.where(high, 0.0, below) + jnp.where(low, 0.0, above) + jnp.where(low | high, 0.0, between)
