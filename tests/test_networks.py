"""Networks: what they compute, how they start, and that starting many of them ends."""

import math
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import lax, random
from jax import numpy as jnp
from jaxprs import primitives

from jaxrl.core import networks

ROOT = Path(__file__).parents[1]
FACTORISATIONS = {"qr", "geqrf", "householder_product", "svd", "eigh", "cholesky", "lu", "triangular_solve"}


def build(description, in_shape=(6,), out_size=3, **kwargs):
    network = networks.build(description, in_shape, out_size, **kwargs)
    return network, jax.jit(network.init)(random.key(0))


# Orthogonal initialisation


@pytest.mark.parametrize("shape", [(8, 8), (8, 3), (3, 8), (64, 64), (200, 1), (1, 5), (3, 3, 4, 16), (3, 3, 16, 4)])
def test_rows_or_columns_are_orthonormal(shape):
    for seed in range(3):
        matrix = networks.orthogonal(2.0)(random.key(seed), shape)
        assert matrix.shape == shape and matrix.dtype == jnp.float32
        matrix = np.asarray(matrix, np.float64).reshape(-1, shape[-1])
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-4)


def test_orthogonal_matrices_are_drawn_evenly():
    """As the uniform (Haar) measure has it: signs, sizes of entries, trace and determinant."""
    count, size = 2000, 3
    matrices = jax.jit(jax.vmap(lambda key: networks.orthogonal()(key, (size, size))))(
        random.split(random.key(0), count)
    )
    error = 5 / math.sqrt(count)
    np.testing.assert_allclose(matrices.mean(0), 0, atol=error / math.sqrt(size))
    np.testing.assert_allclose((matrices**2).mean(0), 1 / size, atol=error * math.sqrt(2 / size**2))
    # E[(tr Q)^2] = 1; a QR without the correction of its signs has another.
    trace = np.trace(matrices, axis1=1, axis2=2)
    np.testing.assert_allclose((trace**2).mean(), 1, atol=error * (trace**2).std())
    np.testing.assert_allclose(np.linalg.det(matrices).mean(), 0, atol=error)
    np.testing.assert_allclose(np.abs(np.linalg.det(matrices)), 1, atol=1e-3)


@pytest.mark.slow
def test_a_lane_starts_as_it_would_alone():
    network = networks.build(networks.MLP((5, 4)), (6,), 3)
    keys = random.split(random.key(0), 3)
    lanes, alone = jax.jit(jax.vmap(network.init))(keys), jax.jit(network.init)(keys[1])
    jax.tree.map(lambda lane, one: np.testing.assert_allclose(lane[1], one, atol=1e-5), lanes, alone)


def test_nothing_is_factorised():
    network = networks.build(networks.CNN((3,), hidden=(5,)), (6, 6, 2), 3)
    program = jax.make_jaxpr(jax.vmap(network.init))(random.split(random.key(0), 2))
    assert not FACTORISATIONS & set(primitives(program))
    # The list is one that catches what it is for.
    theirs = jax.make_jaxpr(lambda key: nn.initializers.orthogonal()(key, (4, 4)))(random.key(0))
    assert FACTORISATIONS & set(primitives(theirs))


@pytest.mark.slow
def test_200_vmapped_initialisations_end():
    """Batched QR factorisations deadlock jaxlib 0.10.2 on two cores, so this runs where it can be ended."""
    program = """
        import jax
        from jax import random
        from jaxrl import envs, policies
        from jaxrl.core import networks

        env, _ = envs.make("CartPole-v1")
        network = policies.actor_critic(env.spec, policies.head(env.spec.action, "gaussian"), networks.MLP())
        params = jax.jit(jax.vmap(network.init))(random.split(random.key(0), 200))
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 3]
        print(len(kernels), {len(kernel) for kernel in kernels}, all(abs(kernel).max() > 0 for kernel in kernels))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "6 {200} True", done.stderr


def test_the_last_layer_has_its_own_scale():
    for scale in (0.01, 1.0):
        _, params = build(networks.MLP((8,)), out_scale=scale)
        hidden, last = (params[name]["kernel"] for name in ("Dense_0", "Dense_1"))
        np.testing.assert_allclose(last.T @ last, scale**2 * np.eye(3), atol=1e-5)
        np.testing.assert_allclose(hidden @ hidden.T, 2 * np.eye(6), atol=1e-4)
        assert not params["Dense_0"]["bias"].any()


# What networks compute


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu", "gelu", "elu", "leaky_relu"])
def test_mlp_by_hand(activation):
    network, params = build(networks.MLP((5, 4), activation))
    x = random.normal(random.key(1), (7, 6))
    expected = x
    for layer in ("Dense_0", "Dense_1"):
        expected = getattr(nn, activation)(expected @ params[layer]["kernel"] + 0.0)
    expected = expected @ params["Dense_2"]["kernel"]
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def test_leading_axes_are_batch_and_inputs_of_any_shape_are_flattened():
    network, params = build(networks.MLP((5,)), in_shape=(2, 3))
    x = random.normal(random.key(1), (4, 3, 2, 3))
    outputs = network.apply(params, x)
    assert outputs.shape == (4, 3, 3) and outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs[1, 2], network.apply(params, x[1, 2]), rtol=1e-5, atol=1e-6)


CNN = networks.CNN((3, 4), (3, 2), (1, 2), hidden=(5,))


@pytest.mark.slow
def test_cnn_over_any_leading_axes():
    """Also over booleans, as MinAtar's grids are, and none or two leading axes."""
    network, params = build(CNN, in_shape=(6, 5, 2))
    assert params["Conv_0"]["kernel"].shape == (3, 3, 2, 3) and params["Conv_1"]["kernel"].shape == (2, 2, 3, 4)
    assert params["Dense_0"]["kernel"].shape == (2 * 1 * 4, 5)
    x = random.bernoulli(random.key(1), 0.5, (3, 2, 6, 5, 2))
    outputs = network.apply(params, x)
    assert outputs.shape == (3, 2, 3) and outputs.dtype == jnp.float32
    flat = network.apply(params, x.reshape(6, 6, 5, 2).astype(jnp.float32))
    np.testing.assert_allclose(outputs.reshape(6, 3), flat, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs[2, 1], network.apply(params, x[2, 1]), rtol=1e-5, atol=1e-6)
    same, same_params = build(networks.CNN((3,), padding="SAME", hidden=()), in_shape=(6, 5, 2))
    assert same_params["Dense_0"]["kernel"].shape == (6 * 5 * 3, 3) and same.apply(same_params, x).shape == (3, 2, 3)


def test_cnn_convolves():
    """One kernel that is a single 1 shifts the image."""
    network = networks.build(networks.CNN((1,), hidden=()), (5, 5, 1))
    params = network.init(random.key(0))
    kernel = jnp.zeros((3, 3, 1, 1)).at[2, 1].set(1.0)
    params = {"Conv_0": {**params["Conv_0"], "kernel": kernel}}
    image = random.uniform(random.key(1), (5, 5, 1))
    np.testing.assert_allclose(network.apply(params, image), image[2:, 1:4].ravel(), rtol=1e-6)


@pytest.mark.parametrize("in_shape", [(), (4,), (6, 5), (2, 6, 5, 2)])
def test_cnn_refuses_what_is_no_image(in_shape):
    with pytest.raises(ValueError, match=r"height, width, channels.*use an MLP"):
        networks.build(CNN, in_shape, 3)


@pytest.mark.parametrize("description", [networks.MLP((5, 0)), networks.CNN(hidden=(5, -8))])
def test_layers_without_units_are_refused(description):
    with pytest.raises(ValueError, match=r"hidden\[1\]=.* must be at least 1"):
        networks.build(description, (10, 10, 2), 3)


def test_cnn_refuses_images_smaller_than_its_kernels():
    description = networks.CNN((4, 4), (3, 3), (2, 1))
    networks.build(description, (7, 8, 1))
    with pytest.raises(ValueError, match=r"strides=\(2, 1\) leave 2x3 pixels of 6x8, too few for a kernel of 3"):
        networks.build(description, (6, 8, 1))
    networks.build(replace(description, padding="SAME"), (6, 8, 1))


def test_cnn_lists_must_match():
    with pytest.raises(ValueError, match=r"channels=\(16, 32\).*kernels=\(3,\)"):
        networks.CNN((16, 32))


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (5, 3), (2, 2), (4, 1)])
def test_transposed_convolution_is_laxs(kernel, stride):
    """Value and gradients. No two sizes are alike, so that no two axes can be taken for each other."""
    description = networks.TransposedCNN((), (2,), (kernel,), (stride,), activation="tanh")
    network = networks.image_generator(description, 5, (3 * stride, 4 * stride, 7))
    params = jax.jit(network.init)(random.key(0))
    x = random.normal(random.key(1), (6, 5))

    def theirs(params):
        image = jnp.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]).reshape(6, 3, 4, 2)
        layer = params["TransposedConv_0"]
        kernel, axes = layer["kernel"][::-1, ::-1], ("NHWC", "HWIO", "NHWC")
        return lax.conv_transpose(image, kernel, (stride, stride), "SAME", dimension_numbers=axes) + layer["bias"]

    weight = random.normal(random.key(2), (6, 3 * stride, 4 * stride, 7))

    def both(function):
        value, pull = jax.vjp(function, params)
        return value, pull(weight)

    ours, expected = jax.jit(lambda: (both(lambda params: network.apply(params, x)), both(theirs)))()
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=1e-4), ours, expected)


@pytest.mark.slow
def test_image_generators():
    """Over any leading axes and none; values keep their size from layer to layer; layers are named in their order."""
    deep = networks.TransposedCNN((64,), (32, 32, 16), (4, 3, 4), (2, 1, 2), activation="elu")
    for description in (deep, networks.MLP((64,))):
        network = networks.image_generator(description, 8, (12, 8, 3))
        params = jax.jit(network.init)(random.key(0))
        x = random.normal(random.key(1), (20, 2, 8))
        images = jax.jit(network.apply)(params, x)
        assert images.shape == (20, 2, 12, 8, 3) and images.dtype == jnp.float32
        np.testing.assert_allclose(network.apply(params, x[0, 0]), images[0, 0], rtol=1e-4, atol=1e-5)
        assert 0.2 < images.std() < 2  # 0.11 if strides did not count
    assert set(jax.eval_shape(networks.image_generator(deep, 8, (12, 8, 3)).init, random.key(0))) == {
        *("Dense_0", "Dense_1", "TransposedConv_0", "TransposedConv_1", "TransposedConv_2")
    }
    same = networks.TransposedCNN((), (2,), (3,), (1,), residual=True)  # the last layer gives the image, no residue
    network = networks.image_generator(same, 8, (4, 4, 2))
    silent = jax.tree.map(jnp.zeros_like, jax.jit(network.init)(random.key(0)))
    assert not network.apply(silent, jnp.ones(8)).any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: networks.TransposedCNN((8,), (4, 4), (4,), (2, 2)), r"one kernel.*channels=\(4, 4\)"),
        (lambda: networks.TransposedCNN(kernels=(4, 1)), r"kernels=\(4, 1\) at least strides=\(2, 2\)"),
        (lambda: networks.image_generator(networks.TransposedCNN(), 3, (28, 30, 1)), r"enlarge an image 4 .*28x30"),
        (lambda: networks.image_generator(networks.TransposedCNN(), 3, (28,)), "use an MLP"),
    ],
)
def test_image_sizes_that_do_not_fit_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_without_an_output_layer_the_features_come_out():
    network, params = build(networks.MLP((5, 4)), out_size=None)
    assert set(params) == {"Dense_0", "Dense_1"}
    assert network.apply(params, jnp.ones((2, 6))).shape == (2, 4)


# Options


def test_layer_norm_stands_between_layer_and_activation():
    network, params = build(networks.MLP((8,), "relu", layer_norm=True), out_size=None)
    x = random.normal(random.key(1), (4, 6))
    before = x @ params["Dense_0"]["kernel"]
    expected = (before - before.mean(-1, keepdims=True)) / jnp.sqrt(before.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(network.apply(params, x), jax.nn.relu(expected), rtol=1e-3, atol=1e-4)
    # The scale of the inputs has no say.
    np.testing.assert_allclose(network.apply(params, 100 * x), jax.nn.relu(expected), rtol=1e-2, atol=1e-3)


def test_residual_blocks_add_the_input_where_the_width_stays():
    network, params = build(networks.MLP((6, 5, 5), residual=True), out_size=None)
    x = random.normal(random.key(1), (4, 6))
    kernels = [params[f"Dense_{layer}"]["kernel"] for layer in range(3)]
    first = x + jnp.tanh(x @ kernels[0])
    second = jnp.tanh(first @ kernels[1])
    expected = second + jnp.tanh(second @ kernels[2])
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-4, atol=1e-5)
    description = networks.CNN((2,), padding="SAME", hidden=(), residual=True)
    network, params = build(description, in_shape=(4, 4, 2), out_size=None)
    silent = jax.tree.map(jnp.zeros_like, params)
    image = random.normal(random.key(1), (4, 4, 2))
    np.testing.assert_allclose(network.apply(silent, image), image.ravel())


def test_dropout_needs_a_key():
    rate = 0.25
    network, params = build(networks.MLP((4000,), dropout=rate), out_size=None)
    x = random.normal(random.key(1), (6,))
    plain = network.apply(params, x)
    np.testing.assert_array_equal(plain, build(networks.MLP((4000,)), out_size=None)[0].apply(params, x))
    dropped = network.apply(params, x, random.key(2))
    np.testing.assert_allclose((dropped == 0).mean(), rate, atol=0.03)
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], plain[kept] / (1 - rate), rtol=1e-5)
    np.testing.assert_array_equal(dropped, network.apply(params, x, random.key(2)))
    assert (dropped != network.apply(params, x, random.key(3))).any()


@pytest.mark.parametrize(("kind", "in_shape"), [(networks.MLP, (6,)), (networks.CNN, (6, 5, 2))])
def test_bfloat16_computes_near_float32_on_float32_parameters(kind, in_shape):
    plain, params = build(kind(hidden=(16,)), in_shape)
    half = networks.build(kind(hidden=(16,), dtype="bfloat16"), in_shape, 3)
    assert jax.eval_shape(half.init, random.key(0)) == jax.eval_shape(lambda: params)
    x = random.normal(random.key(1), (16, *in_shape))
    exact, rounded = plain.apply(params, x), half.apply(params, x)
    assert rounded.dtype == jnp.float32
    error = jnp.abs(exact - rounded).max() / jnp.abs(exact).max()
    assert 0 < error < 0.03
    dots = [line for line in str(jax.make_jaxpr(half.apply)(params, x)).splitlines() if "dot_general" in line]
    assert dots and all("bf16" in line for line in dots)
    gradients = jax.eval_shape(jax.grad(lambda params: half.apply(params, x).sum()), params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("dueling", [False, True])
def test_the_last_hidden_layer_adds_its_input_if_asked_to(dueling):
    x, outputs = random.normal(random.key(1), (5, 8)), []
    for residual in (False, True):
        network = networks.action_values(networks.MLP((8,), residual=residual), (8,), 3, dueling=dueling)
        outputs.append(network.apply(network.init(random.key(0)), x))
    assert abs(outputs[0] - outputs[1]).max() > 0.01
