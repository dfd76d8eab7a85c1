"""PixelRNN: its recurrences against plain loops, what they see, and planted bugs. See also `test_autoregressive`."""

import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from test_autoregressive import Case, Made, jit

from generative import checks, masks
from generative.models import pixelrnn

SMALL = {
    recurrence: Case(pixelrnn, pixelrnn.Config(recurrence, 6, 1, first_kernel=3, head=8))
    for recurrence in ("row", "diagonal")
}


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 5), (5, 1)])
def test_diagonals_are_columns_once_skewed(shape):
    height, width = shape
    x = jnp.arange(1.0, 1 + height * width).reshape(1, height, width, 1)
    skewed = pixelrnn.skew(x)
    assert skewed.shape == (1, height, width + height - 1, 1)
    expected = np.zeros(skewed.shape)
    for row in range(height):
        expected[0, row, row : row + width] = x[0, row]
    np.testing.assert_array_equal(skewed, expected)
    np.testing.assert_array_equal(pixelrnn.unskew(skewed, width), x)


def plain(gates, kernel, seen, cell_from):
    """Equation 3, pixel by pixel: the states seen and the cell kept, [rows down, columns right], are zero outside."""
    batch_size, height, width, size = gates.shape
    size //= 4
    states, cells = np.zeros((2, batch_size, height + 1, width + 2, size))  # padded above and to both sides
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for row in range(height):
        for column in range(width):
            near = [states[:, row + 1 + down, column + 1 + right] for down, right in seen]
            a = gates[:, row, column] + sum(h @ k for h, k in zip(near, kernel, strict=True))
            o, f, i, g = np.split(a, 4, axis=-1)
            before = cells[:, row + 1 + cell_from[0], column + 1 + cell_from[1]]
            cell = sigmoid(f + 1) * before + sigmoid(i) * np.tanh(g)
            cells[:, row + 1, column + 1] = cell
            states[:, row + 1, column + 1] = sigmoid(o) * np.tanh(cell)
    return states[:, 1:, 1:-1]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 5), (4, 2)])
def test_recurrences_are_those_of_a_plain_loop(shape):
    generator = np.random.default_rng(0)
    gates = generator.normal(size=(2, *shape, 4 * 3)).astype(np.float32)
    kernel = generator.normal(size=(3, 3, 4 * 3)).astype(np.float32)
    above = [(-1, -1), (-1, 0), (-1, 1)]
    np.testing.assert_allclose(
        jit(pixelrnn.rows, static_argnums=2)(gates, kernel, 1), plain(gates, kernel, above, (-1, 0)), atol=1e-5
    )
    np.testing.assert_allclose(
        jit(pixelrnn.diagonals, static_argnums=2)(gates, kernel[:2], 1),
        plain(gates, kernel[:2], [(0, -1), (-1, 0)], (0, -1)),
        atol=1e-5,
    )


@pytest.mark.slow
def test_row_lstm_sees_a_cone_and_diagonal_bilstm_everything():
    """Kernels of side 3: one more column to each side per row above, and to the left one more per layer."""
    shape = 4, 6, 1
    rows, columns = np.divmod(np.arange(24), 6)
    up, right = rows[:, None] - rows, columns - columns[:, None]
    earlier = masks.earlier(np.arange(24))
    cone = earlier & (right <= up) & (-right <= up + 2)
    row, diagonal = (Made(case._replace(shape=shape)) for case in SMALL.values())
    report = checks.check_receptive(row.outputs, shape, random.key(0), expected=cone)
    assert report.passed and (earlier & ~cone).any(), report.message
    report = checks.check_receptive(diagonal.outputs, shape, random.key(0))
    assert report.passed, report.message


# Planted bugs


@pytest.mark.slow
def test_states_from_the_right_of_the_same_row_are_found(monkeypatch):
    monkeypatch.setattr(pixelrnn, "lowered", lambda x: x)
    report = checks.check_causal(Made(SMALL["diagonal"]).outputs, (3, 3, 1), random.key(0))
    assert not report.passed and "(0, 0, 0) have a derivative by (0, 0, 0)" in report.message
    assert {(0, 2), (3, 5)} <= {tuple(leak) for leak in report.leaks.tolist()}  # later columns of the row


@pytest.mark.slow
@pytest.mark.parametrize("recurrence", ["row", "diagonal"])
def test_states_of_a_row_one_off_are_found(monkeypatch, recurrence):
    above = pixelrnn.Above
    monkeypatch.setattr(pixelrnn, "Above", lambda state, cell, right: above(jnp.roll(state, 1, axis=0), cell, right))
    report = checks.check_sampler(Made(SMALL[recurrence]).samplers(50), random.key(1), 2)
    assert not report.passed and "examples of naive are not those of cached, first example" in report.message
