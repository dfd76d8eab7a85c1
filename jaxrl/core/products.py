"""A matrix product whose weight gradient takes a CPU no longer than the product itself.

The gradient of x @ kernel for the kernel contracts over the rows of both its factors. XLA's fast products on a CPU
contract over the columns of the left one; other products run at half their speed, at a tenth if one factor is narrow.
So the narrower factor is transposed first, and a barrier keeps the compiler from folding that into the product.
Axes: B rows, I inputs, O outputs.
"""

from typing import Any

import jax
from jax import Array, lax


@jax.custom_jvp
def product(x: Array, kernel: Array) -> Array:
    """`x` [..., I] times `kernel` [I, O]: [..., O]."""
    return x @ kernel


@product.defjvp
def _product_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, kernel = primals
    x_dot, kernel_dot = tangents
    rows = x.reshape(-1, x.shape[-1])
    return x @ kernel, x_dot @ kernel + _by_kernel(rows, kernel_dot).reshape(*x.shape[:-1], -1)


def _by_kernel(x: Array, kernel: Array) -> Array:
    """The product [B, O] as a map of `kernel`, written such that its transpose, the gradient, is a fast product.

    With fewer rows than inputs or outputs, transposing would cost more than it saves.
    """
    barrier = lax.optimization_barrier
    if x.shape[0] < max(kernel.shape):
        return x @ kernel
    if kernel.shape[0] < kernel.shape[1]:
        return lax.dot_general(barrier(x.T), kernel, (((0,), (0,)), ((), ())))
    return barrier(lax.dot_general(barrier(kernel.T), x, (((1,), (1,)), ((), ())))).T


def dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any = None, **kwargs: Any) -> Array:
    """`product` as flax's dense layers call it."""
    return product(x, kernel)
