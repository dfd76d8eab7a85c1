"""Recurrent networks, LSTM and GRU, as pure functions: a step, or many with all but the memory computed at once.

Axes: T steps, N environments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import networks


@dataclass(frozen=True)
class Recurrent:
    """A torso and on top of it a recurrent layer, which remembers what it read before."""

    cell: Literal["lstm", "gru"] = "lstm"
    size: int = 64  # of the memory
    torso: networks.MLP | networks.CNN = networks.MLP((64,))  # between the inputs and the recurrent layer

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"A recurrent layer of size={self.size} remembers nothing: use at least 1.")


Memory = tuple[Any, ...]  # of arrays [..., size]


class RecurrentNetwork(NamedTuple):
    """A network with a memory, step by step or over time; both forms have the same parameters.

    Over time, what came before a step that `started` [T, N] bool an episode is forgotten.
    """

    init: Callable[..., Any]  # (key) -> params
    memory: Callable[..., Memory]  # (*axes) -> memory before a first step, leaves [*axes, size]
    step: Callable[..., Any]  # (params, memory, inputs [..., *in_shape]) -> (memory after it, outputs)
    scan: Callable[..., Any]  # (params, memory, inputs [T, N, *in_shape], started) -> (memory, outputs [T, N, ...])


def build(description: Recurrent, in_shape: tuple[int, ...], out_size: int, out_scale: float) -> RecurrentNetwork:
    """The network of a description, with outputs [..., out_size] read off the memory by a layer of gain `out_scale`.

    Over time, everything but the memory's part of the gates is computed for all steps at once: in the loop there is
    one product for all gates.

    Raises:
        ValueError: a torso that does not suit the inputs.
    """
    size = description.size
    torso = networks.build(description.torso, in_shape)
    top = networks.build(networks.MLP(hidden=()), (size,), out_size, out_scale)
    gates, advance = (4, _lstm) if description.cell == "lstm" else (3, _gru)
    num_states = 2 if description.cell == "lstm" else 1

    def init(key: Array) -> dict[str, Any]:
        torso_key, input_key, hidden_key, top_key = random.split(key, 4)
        torso_params = torso.init(torso_key)
        (in_size,) = networks.out_shape(torso, in_shape)

        def kernel(key: Array, rows: int) -> Array:  # orthogonal for each gate
            return jnp.concatenate(
                [networks.orthogonal()(key, (rows, size)) for key in random.split(key, gates)], axis=1
            )

        # The gate that keeps the memory starts nearly open (Gers et al. 2000; Jozefowicz et al. 2015).
        bias = jnp.zeros((gates, size)).at[0].set(1.0).reshape(-1)
        return {
            "torso": torso_params,
            "input": kernel(input_key, in_size),
            "hidden": kernel(hidden_key, size),
            "bias": bias,
            "top": top.init(top_key),
        }

    def memory(*axes: int) -> Memory:
        return tuple(jnp.zeros((*axes, size)) for _ in range(num_states))

    def project(params: dict[str, Any], inputs: Array) -> Array:
        return torso.apply(params["torso"], inputs) @ params["input"] + params["bias"]

    def step(params: dict[str, Any], memory: Memory, inputs: Array) -> tuple[Memory, Array]:
        memory = advance(params["hidden"], memory, project(params, inputs))
        return memory, top.apply(params["top"], memory[0])

    def scan(params: dict[str, Any], memory: Memory, inputs: Array, started: Array) -> tuple[Memory, Array]:
        def one(memory: Memory, now: tuple[Array, Array]) -> tuple[Memory, Array]:
            projected, started = now
            memory = jax.tree.map(lambda leaf: jnp.where(started[..., None], 0.0, leaf), memory)
            memory = advance(params["hidden"], memory, projected)
            return memory, memory[0]

        # Flat: on a CPU the gradient of a product over two axes of a batch takes twice as long under vmap.
        projected = project(params, inputs.reshape(-1, *in_shape)).reshape(*started.shape, -1)
        memory, hidden = lax.scan(one, memory, (projected, started))
        return memory, top.apply(params["top"], hidden.reshape(-1, size)).reshape(*started.shape, out_size)

    return RecurrentNetwork(init, memory, step, scan)


def _lstm(kernel: Array, memory: Memory, projected: Array) -> Memory:
    """Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000. `projected` [..., 4 * size]."""
    hidden, cell = memory
    forget, write, show, candidate = jnp.split(projected + hidden @ kernel, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return jax.nn.sigmoid(show) * jnp.tanh(cell), cell


def _gru(kernel: Array, memory: Memory, projected: Array) -> Memory:
    """Cho et al. 2014, arXiv:1406.1078, with the reset gate after the product. `projected` [..., 3 * size]."""
    (hidden,) = memory
    update, reset, candidate = jnp.split(projected, 3, axis=-1)
    hidden_update, hidden_reset, hidden_candidate = jnp.split(hidden @ kernel, 3, axis=-1)
    update = jax.nn.sigmoid(update + hidden_update)
    candidate = jnp.tanh(candidate + jax.nn.sigmoid(reset + hidden_reset) * hidden_candidate)
    return (update * hidden + (1.0 - update) * candidate,)
