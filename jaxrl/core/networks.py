"""Networks as pairs of pure functions, described by frozen dataclasses. The only file of `core` that knows flax.

A user's own network is any `Network(init, apply)`; nothing else is asked of it.
Axes: B batch (any number of leading axes for vectors), H height, W width, C channels, D features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from flax import linen as nn
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import checks, convolutions, products

Activation = Literal["tanh", "relu", "silu", "gelu", "elu", "leaky_relu"]
Dtype = Literal["float32", "bfloat16"]


class Network(NamedTuple):
    """`init(key) -> params` and `apply(params, inputs) -> outputs`.

    The networks built here also take `apply(params, inputs, key)`, which turns dropout on.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


@dataclass(frozen=True)
class MLP:
    """Fully connected layers; the inputs are flattened by whoever builds the network."""

    hidden: tuple[int, ...] = (64, 64)  # width of each hidden layer
    activation: Activation = "tanh"
    layer_norm: bool = False  # after each hidden layer, before its activation
    dropout: float = 0.0  # chance of dropping a hidden unit while training
    residual: bool = False  # add the input of each hidden layer that keeps its width
    dtype: Dtype = "float32"  # of the arithmetic; parameters stay float32


@dataclass(frozen=True)
class CNN:
    """Convolutions over [H, W, C], then fully connected layers. The defaults suit MinAtar's 10x10 grids."""

    channels: tuple[int, ...] = (16,)  # of each convolution
    kernels: tuple[int, ...] = (3,)  # side of each kernel
    strides: tuple[int, ...] = (1,)
    padding: Literal["VALID", "SAME"] = "VALID"
    hidden: tuple[int, ...] = (128,)  # fully connected layers on top
    activation: Activation = "relu"
    layer_norm: bool = False
    dropout: float = 0.0
    residual: bool = False  # add the input of each layer that keeps its shape
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError(
                f"A CNN needs one kernel and one stride per convolution, got channels={self.channels}, "
                f"kernels={self.kernels}, strides={self.strides}."
            )


@dataclass(frozen=True)
class TransposedCNN:
    """Fully connected layers, then transposed convolutions up to an image [H, W, C]: a `CNN` the other way round.

    Each convolution makes the image as many times larger as its stride; the first reads an image as many times smaller
    than the last gives. The defaults suit 28x28 pixels.
    """

    hidden: tuple[int, ...] = (256,)  # fully connected layers, before the one that gives the smallest image
    channels: tuple[int, ...] = (64, 32)  # of the image that each transposed convolution reads
    kernels: tuple[int, ...] = (4, 4)  # side of each kernel
    strides: tuple[int, ...] = (2, 2)
    activation: Activation = "relu"
    layer_norm: bool = False
    dropout: float = 0.0
    residual: bool = False  # add the input of each layer that keeps its shape
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if not self.channels or not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError(
                f"A TransposedCNN needs channels, one kernel and one stride per convolution, got "
                f"channels={self.channels}, kernels={self.kernels}, strides={self.strides}."
            )
        if any(kernel < stride for kernel, stride in zip(self.kernels, self.strides, strict=True)):
            raise ValueError(
                f"A kernel smaller than its stride leaves pixels that nothing reaches: make kernels={self.kernels} at "
                f"least strides={self.strides}."
            )


NATURE_CNN = CNN((32, 64, 64), (8, 4, 3), (4, 2, 1), hidden=(512,))  # Mnih et al. 2015, for 84x84 pixels


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """Initialiser with orthonormal rows or columns, times `scale` (Saxe et al. 2013, arXiv:1312.6120).

    The orthogonal polar factor of a Gaussian matrix is as uniform over orthogonal matrices as its QR factor, and
    Newton-Schulz iterations find it with matrix products alone. They batch under vmap, shard without communication
    and run on every device; batched QR factorisations deadlock jaxlib 0.10.2 on two cores.
    """

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        gaussian = random.normal(key, (max(rows, columns), min(rows, columns)))
        # The largest singular value is near sqrt(rows) + sqrt(columns); the iteration converges from below sqrt(3).
        matrix = gaussian / (math.sqrt(rows) + math.sqrt(columns))

        def newton_schulz(_: int, matrix: Array) -> Array:
            gram = jnp.matmul(matrix.T, matrix, precision=lax.Precision.HIGHEST)
            return 1.5 * matrix - 0.5 * jnp.matmul(matrix, gram, precision=lax.Precision.HIGHEST)

        # Each step multiplies a small singular value by 1.5: 50 of them carry 1e-8 to 1.
        matrix = lax.fori_loop(0, 50, newton_schulz, matrix)
        matrix = matrix if rows >= columns else matrix.T
        return (scale * matrix).reshape(shape).astype(dtype)

    return init


class _Conv(nn.Module):
    """A convolution, see `convolutions.convolve`."""

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: Literal["VALID", "SAME"]
    kernel_init: Callable[..., Array]
    dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        size = (*self.kernel_size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, size).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return convolutions.convolve(inputs, kernel, self.strides, self.padding) + bias


class _TransposedConv(nn.Module):
    """A transposed convolution, see `convolutions.transposed_convolve`."""

    features: int
    side: int  # of the kernel
    stride: int
    kernel_init: Callable[..., Array]
    dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        size = (self.side, self.side, inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, size).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return convolutions.transposed_convolve(inputs, kernel, self.stride) + bias


class _NoisyDense(nn.Module):
    """A dense layer whose weights are Gaussian, with learnt standard deviations (Fortunato et al. 2018).

    arXiv:1706.10295, equations 9 to 11, with factorised noise: row i and column j of the kernel share f(e_i) f(e_j),
    f(e) = sign(e) sqrt(|e|) of Gaussians e. Without a key it is the layer of the means.
    """

    size: int
    kernel_init: Callable[..., Array]
    dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        in_size = inputs.shape[-1]
        std = nn.initializers.constant(0.5 / math.sqrt(in_size))
        kernel = self.param("kernel", self.kernel_init, (in_size, self.size)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.size,)).astype(self.dtype)
        kernel_std = self.param("kernel_std", std, (in_size, self.size)).astype(self.dtype)
        bias_std = self.param("bias_std", std, (self.size,)).astype(self.dtype)
        if not self.has_rng("noise"):
            return inputs @ kernel + bias
        # In a loop, because XLA would fuse random numbers with what they multiply, and draw them for every input anew.
        key, longest = self.make_rng("noise"), max(in_size, self.size)
        gaussian = lax.map(lambda i: random.normal(random.fold_in(key, i), (longest,), self.dtype), jnp.arange(2))
        noise = jnp.sign(gaussian) * jnp.sqrt(jnp.abs(gaussian))
        row, column = noise[0, :in_size], noise[1, : self.size]
        if inputs.ndim > 1:
            return inputs @ (kernel + kernel_std * row[:, None] * column) + bias + bias_std * column
        # A kernel for a single input would take longer to make than to multiply.
        return inputs @ kernel + bias + ((inputs * row) @ kernel_std + bias_std) * column


class _Stack(nn.Module):
    """The module behind every description here."""

    description: MLP | CNN | TransposedCNN
    out_size: int | None
    out_scale: float | None
    noisy: bool = False
    image: tuple[int, ...] = ()  # [H, W, C] that a TransposedCNN makes

    @nn.compact
    def __call__(self, inputs: Array, training: bool = False) -> Array:
        spec = self.description
        activation = getattr(jax.nn, spec.activation) if spec.activation != "tanh" else jnp.tanh
        kernel_init = orthogonal(math.sqrt(2))
        dtype = jnp.dtype(spec.dtype)
        common: dict[str, Any] = {"kernel_init": kernel_init, "dtype": dtype}

        def hidden_layer(layer: nn.Module, x: Array) -> Array:
            y = layer(x)
            y = nn.LayerNorm(dtype=dtype)(y) if spec.layer_norm else y
            y = activation(y)
            y = x + y if spec.residual and x.shape == y.shape else y
            return nn.Dropout(spec.dropout, deterministic=not training)(y) if spec.dropout else y

        x = inputs.astype(dtype)
        if isinstance(spec, CNN):
            for i, (channels, kernel, stride) in enumerate(zip(spec.channels, spec.kernels, spec.strides, strict=True)):
                sides, strides = (kernel, kernel), (stride, stride)
                layer = _Conv(channels, sides, strides, spec.padding, **common, name=f"Conv_{i}")
                x = hidden_layer(layer, x)
            x = x.reshape(*x.shape[:-3], -1)
        plain = partial(nn.Dense, dot_general=products.dot_general)
        dense: Callable[..., nn.Module] = _NoisyDense if self.noisy else plain
        for size in spec.hidden:
            x = hidden_layer(dense(size, **common), x)
        if isinstance(spec, TransposedCNN):
            height, width, out_channels = self.image
            enlargement = math.prod(spec.strides)
            small = height // enlargement, width // enlargement, spec.channels[0]
            x = hidden_layer(dense(math.prod(small), **common), x).reshape(*x.shape[:-1], *small)
            last = len(spec.channels) - 1
            sizes = zip((*spec.channels[1:], out_channels), spec.kernels, spec.strides, strict=True)
            for i, (channels, kernel, stride) in enumerate(sizes):
                # An output pixel sums over one stride-th of the kernel's rows and of its columns.
                gain = stride * (math.sqrt(2) if i < last or self.out_scale is None else self.out_scale)
                name = f"TransposedConv_{i}"
                enlarge = _TransposedConv(channels, kernel, stride, orthogonal(gain), dtype, name=name)
                x = hidden_layer(enlarge, x) if i < last else enlarge(x)
        elif self.out_size is not None:
            out_init = kernel_init if self.out_scale is None else orthogonal(self.out_scale)
            x = dense(self.out_size, kernel_init=out_init, dtype=dtype)(x)
        return x.astype(jnp.float32)


def build(
    description: MLP | CNN,
    in_shape: tuple[int, ...],
    out_size: int | None = None,
    out_scale: float | None = None,
    *,
    noisy: bool = False,
) -> Network:
    """The network of a description.

    `apply(params, inputs [..., *in_shape], key=None)` gives [..., out_size] float32, or the last hidden layer if
    `out_size` is None. Hidden layers start orthogonal with gain sqrt(2), the output layer with gain `out_scale`.
    A key turns on dropout, and the noise in the weights of the fully connected layers if they are `noisy`.

    Raises:
        ValueError: a CNN given anything but images [H, W, C], or images smaller than its kernels; layers without units.
    """
    checks.at_least_one(**{f"hidden[{layer}]": size for layer, size in enumerate(description.hidden)})
    if isinstance(description, CNN):
        _check_images(description, in_shape)
    module = _Stack(description, out_size, out_scale, noisy)
    flat = not isinstance(description, CNN)

    def prepare(inputs: Array) -> Array:
        return inputs.reshape(*inputs.shape[: inputs.ndim - len(in_shape)], -1) if flat else inputs

    return _network(module, jnp.zeros(in_shape if flat else (1, *in_shape)), prepare)


def _check_images(description: CNN, in_shape: tuple[int, ...]) -> None:
    if len(in_shape) != 3:
        raise ValueError(f"A CNN reads images [height, width, channels], not inputs of shape {in_shape}: use an MLP.")
    if description.padding == "SAME":
        return
    height, width, _ = in_shape
    for kernel, stride in zip(description.kernels, description.strides, strict=True):
        if min(height, width) < kernel:
            raise ValueError(
                f"kernels={description.kernels} and strides={description.strides} leave {height}x{width} pixels of "
                f"{in_shape[0]}x{in_shape[1]}, too few for a kernel of {kernel}: use smaller ones, or padding='SAME'."
            )
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1


def _network(module: nn.Module, example: Array, prepare: Callable[[Array], Array]) -> Network:
    """The functions of a module whose inputs are like `example` and `prepare`d for it."""

    def init(key: Array) -> Any:
        return module.init(key, prepare(example)).get("params", {})

    def apply(params: Any, inputs: Array, key: Array | None = None) -> Any:
        rngs = None if key is None else {"dropout": key, "noise": key}  # each layer folds its own path in
        return module.apply({"params": params}, prepare(inputs), key is not None, rngs=rngs)

    return Network(init, apply)


def image_generator(
    description: MLP | TransposedCNN,
    in_size: int,
    image: tuple[int, ...],
    out_scale: float | None = None,
) -> Network:
    """Network with `apply(params, inputs [..., in_size], key=None) -> [..., *image]` float32, `image` [H, W, C].

    An MLP, whose outputs are given the shape, makes an `image` of any shape.

    Raises:
        ValueError: a TransposedCNN asked for anything but images, or for sides that its strides do not divide.
    """
    if isinstance(description, MLP):
        flat = build(description, (in_size,), math.prod(image), out_scale)

        def reshaped(params: Any, inputs: Array, key: Array | None = None) -> Array:
            outputs = flat.apply(params, inputs, key)
            return outputs.reshape(*outputs.shape[:-1], *image)

        return Network(flat.init, reshaped)
    if len(image) != 3:
        raise ValueError(f"A TransposedCNN makes images [height, width, channels], not shape {image}: use an MLP.")
    enlargement = math.prod(description.strides)
    if image[0] % enlargement or image[1] % enlargement:
        raise ValueError(
            f"strides={description.strides} enlarge an image {enlargement} times, and {image[0]}x{image[1]} pixels are "
            f"no multiple of that: use other strides, or images of another size."
        )
    return _network(_Stack(description, None, out_scale, image=image), jnp.zeros(in_size), lambda inputs: inputs)


def out_shape(network: Network, in_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what `network` makes of one input of `in_shape`; nothing is computed."""
    made = jax.eval_shape(lambda key: network.apply(network.init(key), jnp.zeros((1, *in_shape))), random.key(0))
    return made.shape[1:]


def action_values(
    description: MLP | CNN,
    in_shape: tuple[int, ...],
    num_actions: int,
    num_outputs: int = 1,
    *,
    dueling: bool = False,
    noisy: bool = False,
) -> Network:
    """Network with `apply(params, inputs [..., *in_shape], key=None) -> [..., num_actions, num_outputs]`.

    With `dueling`, the last hidden layer is split in two streams: one gives the value of the state, the other the
    advantages of the actions, less their mean (Wang et al. 2016, arXiv:1511.06581, equation 9).

    Raises:
        ValueError: a CNN given anything but images; dueling streams without a hidden layer.
    """
    shape = num_actions, num_outputs
    if not dueling:
        plain = build(description, in_shape, num_actions * num_outputs, 1.0, noisy=noisy)

        def outputs(params: Any, inputs: Array, key: Array | None = None) -> Array:
            flat = plain.apply(params, inputs, key)
            return flat.reshape(*flat.shape[:-1], *shape)

        return Network(plain.init, outputs)

    if not description.hidden:
        raise ValueError("Dueling streams are the last hidden layer twice: give the network at least one.")
    torso = build(replace(description, hidden=description.hidden[:-1]), in_shape, noisy=noisy)
    features = out_shape(torso, in_shape)
    activation, layer_norm, dtype = description.activation, description.layer_norm, description.dtype
    residual, dropout = description.residual, description.dropout
    stream = MLP(description.hidden[-1:], activation, layer_norm, dropout, residual, dtype)
    value = build(stream, features, num_outputs, 1.0, noisy=noisy)
    advantage = build(stream, features, num_actions * num_outputs, 1.0, noisy=noisy)

    def init(key: Array) -> dict[str, Any]:
        torso_key, value_key, advantage_key = random.split(key, 3)
        return {
            "torso": torso.init(torso_key),
            "value": value.init(value_key),
            "advantage": advantage.init(advantage_key),
        }

    def apply(params: dict[str, Any], inputs: Array, key: Array | None = None) -> Array:
        torso_key, value_key, advantage_key = (None, None, None) if key is None else random.split(key, 3)
        x = torso.apply(params["torso"], inputs, torso_key)
        v = value.apply(params["value"], x, value_key)
        a = advantage.apply(params["advantage"], x, advantage_key)
        a = a.reshape(*a.shape[:-1], *shape)
        return v[..., None, :] + a - a.mean(-2, keepdims=True)

    return Network(init, apply)
