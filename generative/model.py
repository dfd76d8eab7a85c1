"""The shape every generative model has."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Model(NamedTuple):
    """A learner, and what can be asked of it once trained. `x` is examples [N, *shape] in the data's own dtype.

    Models whose Config says `conditional` take the classes `label` [N] as a last argument of what can be asked.
    """

    init: Callable[..., Any]  # (key, hparams, source) -> state
    update: Callable[..., Any]  # (key, state, hparams, source) -> (state, metrics)
    evaluate: Callable[..., Any]  # (key, state, hparams, source) -> metrics
    sample: Callable[..., Any] | None = None  # (key, state, count) -> [count, *shape], in [0, 1] for images of integers
    reconstruct: Callable[..., Any] | None = None  # (key, state, x) -> [N, *shape]
    log_likelihood: Callable[..., Any] | None = None  # (key, state, hparams, x, num_samples) -> [N] nats
    encode: Callable[..., Any] | None = None  # (key, state, x) -> codes [N, Z]
    decode: Callable[..., Any] | None = None  # (state, codes [N, Z]) -> [N, *shape]
    translate: Callable[..., Any] | None = None  # (key, state, x [N, *image]) -> [N, *image] in [0, 1], for pairs
    # Of autoregressive models; those that read a class also take `label`.
    complete: Callable[..., Any] | None = None  # (key, state, x, given [*shape] bool) -> `x` with the rest drawn
    log_prob: Callable[..., Any] | None = None  # (params, x) -> [N] nats, exact
    nats: Callable[..., Any] | None = None  # (params, x) -> [N, *shape] that each value costs, given those before it
    outputs: Callable[..., Any] | None = None  # (params, x scaled to [0, 1]) -> [N, *shape, P], for `checks`
    order: Any = None  # [D] variables in the order of `nats` and `outputs`
