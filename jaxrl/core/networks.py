"""Networks as pairs of pure functions, described by frozen dataclasses. The only file of `core` that knows flax.

A user's own network is any `Network(init, apply)`; nothing else is asked of it.
Axes: B batch (any number of leading axes for vectors), H height, W width, C channels, D features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
from flax import linen as nn
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import checks, products

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


@dataclass(frozen=True)
class Recurrent:
    """A torso and on top of it a recurrent layer, which remembers what it read before."""

    cell: Literal["lstm", "gru"] = "lstm"
    size: int = 64  # of the memory
    torso: MLP | CNN = MLP((64,))  # between the inputs and the recurrent layer

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"A recurrent layer of size={self.size} remembers nothing: use at least 1.")


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


def convolve(
    inputs: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Literal["VALID", "SAME"] | Sequence[tuple[int, int]],
) -> Array:
    """`inputs` [..., H, W, C] with `kernel` [rows, columns, C, D], as one product of all patches with the kernel.

    In a loop on a CPU the gradient of XLA's own convolution takes 25 times as long, and with a kernel for each lane of
    a vmap it becomes a grouped one, which is slow everywhere.
    """
    sides = kernel.shape[:2]
    pads = lax.padtype_to_pads(inputs.shape[-3:-1], sides, strides, padding) if isinstance(padding, str) else padding
    x = jnp.pad(inputs, [(0, 0)] * (inputs.ndim - 3) + [*pads, (0, 0)])
    rows, columns = (
        [slice(first, length - side + first + 1, stride) for first in range(side)]
        for length, side, stride in zip(x.shape[-3:-1], sides, strides, strict=True)
    )
    patches = jnp.concatenate([x[..., row, column, :] for row in rows for column in columns], axis=-1)
    return products.product(patches, kernel.reshape(-1, kernel.shape[-1]))


def transposed_convolve(inputs: Array, kernel: Array, stride: int) -> Array:
    """`inputs` [..., H, W, C] with `kernel` [side, side, C, D] to [..., H * stride, W * stride, D], as one product.

    Each pixel adds to the patch that it stands for its value times the kernel. Equal to `lax.conv_transpose` with
    padding SAME and the kernel turned by 180 degrees; see `convolve` for why it is not that.
    """
    side, _, channels, features = kernel.shape
    # A patch is reach x reach blocks of stride x stride pixels, the last ones filled up with zeros.
    reach = -(-side // stride)
    fill = reach * stride - side
    kernel = jnp.pad(kernel, [(0, fill), (0, fill), (0, 0), (0, 0)])
    kernel = kernel.reshape(reach, stride, reach, stride, channels, features).transpose(4, 0, 2, 1, 3, 5)
    blocks = jnp.split(products.product(inputs, kernel.reshape(channels, -1)), reach**2, axis=-1)
    batch = [(0, 0)] * (inputs.ndim - 3)
    x: Any = sum(
        jnp.pad(block, [*batch, (row, reach - 1 - row), (column, reach - 1 - column), (0, 0)])
        for block, (row, column) in zip(blocks, product(range(reach), repeat=2), strict=True)
    )
    *axes, rows, columns, _ = x.shape
    x = x.reshape(*axes, rows, columns, stride, stride, features).swapaxes(-4, -3)
    x = x.reshape(*axes, rows * stride, columns * stride, features)
    first = (side - stride) // 2
    height, width = (first + stride * length for length in inputs.shape[-3:-1])
    return x[..., first:height, first:width, :]


class _Conv(nn.Module):
    """A convolution, see `convolve`."""

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
        return convolve(inputs, kernel, self.strides, self.padding) + bias


class _TransposedConv(nn.Module):
    """A transposed convolution, see `transposed_convolve`."""

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
        return transposed_convolve(inputs, kernel, self.stride) + bias


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
        keys, longest = random.split(self.make_rng("noise")), max(in_size, self.size)
        gaussian = lax.map(lambda key: random.normal(key, (longest,), self.dtype), keys)
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


Memory = tuple[Any, ...]  # of arrays [..., size]


class RecurrentNetwork(NamedTuple):
    """A network with a memory, step by step or over time; both forms have the same parameters.

    Over time, what came before a step that `started` [T, N] bool an episode is forgotten.
    """

    init: Callable[..., Any]  # (key) -> params
    memory: Callable[..., Memory]  # (*axes) -> memory before a first step, leaves [*axes, size]
    step: Callable[..., Any]  # (params, memory, inputs [..., *in_shape]) -> (memory after it, outputs)
    scan: Callable[..., Any]  # (params, memory, inputs [T, N, *in_shape], started) -> (memory, outputs [T, N, ...])


def recurrent(description: Recurrent, in_shape: tuple[int, ...], out_size: int, out_scale: float) -> RecurrentNetwork:
    """The network of a description, with outputs [..., out_size] read off the memory by a layer of gain `out_scale`.

    Over time, everything but the memory's part of the gates is computed for all steps at once: in the loop there is
    one product for all gates.

    Raises:
        ValueError: a torso that does not suit the inputs.
    """
    size = description.size
    torso, top = build(description.torso, in_shape), build(MLP(hidden=()), (size,), out_size, out_scale)
    gates, advance = (4, _lstm) if description.cell == "lstm" else (3, _gru)
    num_states = 2 if description.cell == "lstm" else 1

    def init(key: Array) -> dict[str, Any]:
        torso_key, input_key, hidden_key, top_key = random.split(key, 4)
        torso_params = torso.init(torso_key)
        (in_size,) = out_shape(torso, in_shape)

        def kernel(key: Array, rows: int) -> Array:  # orthogonal for each gate
            return jnp.concatenate([orthogonal()(key, (rows, size)) for key in random.split(key, gates)], axis=1)

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
