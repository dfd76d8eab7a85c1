"""Every autoregressive model against enumeration and its own naive sampler; the checks against planted bugs."""

import dataclasses
import math
from functools import cached_property, partial
from itertools import permutations
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import lax, nn, random
from jax import numpy as jnp
from jaxprs import equations
from test_datasets import data_folder

from generative import autoregressive, checks, data, datasets, layers, masks
from generative.models import gated_pixelcnn, made, nade, pixelcnn, pixelcnnpp, pixelrnn, wavenet

# A program that runs once need not be fast.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Case(NamedTuple):
    module: Any
    config: Any
    shape: tuple[int, ...] = (3, 3, 1)
    levels: int = 2


SMALL_PIXELCNN = pixelcnn.Config(features=18, num_blocks=2, first_kernel=3, head=18)
SMALL_GATED = gated_pixelcnn.Config(features=18, num_layers=2, first_kernel=3, head=18)
QUICK = {
    "made": Case(made, made.Config(hidden=(12, 11))),
    "nade-orders": Case(nade, nade.Config(hidden=(7, 5), training="all_orders", num_orders=3)),
    "pixelcnn": Case(pixelcnn, SMALL_PIXELCNN, (2, 2, 3)),
    "gated": Case(gated_pixelcnn, gated_pixelcnn.Config(6, 2, first_kernel=3, head=18, conditional=True)),
    "wavenet": Case(wavenet, wavenet.Config(6, 8, num_layers=3, conditional=True), (7,), 2),
}
SLOW = {
    "wavenet-levels": Case(wavenet, wavenet.Config(6, 8, num_layers=2, num_cycles=2), (5,), 4),
    "made-visible": Case(made, made.Config(hidden=(), direct=False)),
    "made-masks": Case(made, made.Config(hidden=(40,), num_masks=3, direct=False)),
    "made-levels": Case(made, made.Config(hidden=(30,), resample=True, order="raster"), (2, 2, 1), 5),
    "nade": Case(nade, nade.Config(hidden=(7,), order="random")),
    "nade-levels": Case(nade, nade.Config(hidden=(9, 8), activation="relu"), (2, 2, 1), 5),
    "pixelcnn-binary": Case(pixelcnn, pixelcnn.Config(features=8, num_blocks=1, head=8)),
    "pixelcnn-levels": Case(pixelcnn, SMALL_PIXELCNN, (2, 2, 1), 5),
    "pixelcnn-colors": Case(pixelcnn, SMALL_PIXELCNN, (2, 2, 3), 3),
    "pixelcnn-wide": Case(pixelcnn, pixelcnn.Config(18, 1, first_kernel=5, kernel=5, head=18), (1, 4, 3)),
    # Wide enough that of the few units which carry one colour to the next, not all are off.
    "gated-colors": Case(gated_pixelcnn, dataclasses.replace(SMALL_GATED, features=12, head=36), (2, 2, 3), 3),
    "pixelrnn-row": Case(pixelrnn, pixelrnn.Config("row", 6, 1, first_kernel=5, head=8)),
    "pixelrnn-diagonal": Case(pixelrnn, pixelrnn.Config("diagonal", 12, 1, first_kernel=3, head=18), (2, 2, 3)),
    "pixelrnn-row-colors": Case(pixelrnn, pixelrnn.Config("row", 18, 1, first_kernel=3, head=18), (2, 2, 3)),
    "pixelrnn-diagonal-binary": Case(pixelrnn, pixelrnn.Config("diagonal", 6, 1, first_kernel=3, head=8)),
    "made-colors": Case(made, made.Config(hidden=(30,)), (2, 2, 3)),
    "nade-colors": Case(nade, nade.Config(hidden=(7,)), (2, 2, 3)),
    "pixelcnnpp-halved-colors": Case(pixelcnnpp, pixelcnnpp.Config(5, 1, num_sizes=2, num_logistics=3), (2, 2, 3)),
    "pixelcnnpp": Case(pixelcnnpp, pixelcnnpp.Config(4, 1, num_sizes=2, num_logistics=2, conditional=True)),
    "pixelcnnpp-colors": Case(pixelcnnpp, pixelcnnpp.Config(5, 1, num_sizes=1, num_logistics=3), (2, 1, 3), 4),
    "gated-wide": Case(gated_pixelcnn, gated_pixelcnn.Config(6, 2, first_kernel=5, kernel=5, head=18), (4, 3, 1)),
}
CASES = QUICK | SLOW


class Made:
    """A model with parameters as after some training, and what every test asks of it, compiled once."""

    def __init__(self, case):
        self.case = case
        self.spec, self.source = examples(case.shape, case.levels)
        self.model = case.module.make(self.spec, case.config)
        self.state = disturbed(jit(self.model.init)(random.key(0), case.module.Hyperparams(), self.source))
        self.params = self.state.fit.params
        self.conditional = getattr(case.config, "conditional", False)

    def label(self, count):
        return jnp.ones(count, jnp.int32) if self.conditional else None

    @cached_property
    def log_prob(self):
        return jit(lambda x: self.model.log_prob(self.params, x, self.label(len(x))))

    def outputs(self, x):
        return self.model.outputs(self.params, x, self.label(len(x)))

    def samplers(self, count):
        def sampler(method):
            return jit(lambda key: self.model.sample(key, self.state, count, self.label(count), method))

        return {method: sampler(method) for method in self.case.module.METHODS}


def examples(shape, levels, name="mine"):
    x = np.random.default_rng(0).integers(0, levels, size=(30, *shape), dtype=np.uint8)
    split = data.Examples(x, np.arange(30) % 3)
    return data.from_arrays(name, split, split, levels=levels)


def disturbed(state, scale=0.3):
    """Parameters away from their start, where many are zero."""
    generator = np.random.default_rng(1)  # numpy compiles nothing
    move = lambda leaf: jnp.asarray(leaf + scale * generator.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    return state._replace(fit=state.fit._replace(params=jax.tree.map(move, state.fit.params)))


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES])
def made_model(request):
    return Made(CASES[request.param])


# Exactness


def test_probabilities_sum_to_one(made_model):
    case = made_model.case
    report = checks.check_normalised(made_model.log_prob, case.shape, case.levels)
    assert report.passed and abs(report.total - 1) < 1e-5, report.message


def test_outputs_see_all_variables_before_and_no_other(made_model):
    case, order = made_model.case, made_model.model.order
    report = checks.check_causal(made_model.outputs, case.shape, random.key(0), order)
    assert report.passed, report.message
    np.testing.assert_array_equal(report.derivatives != 0, masks.earlier(order))


def test_methods_draw_the_same_examples(made_model):
    report = checks.check_sampler(made_model.samplers(50), random.key(1), made_model.case.levels)
    assert report.passed, report.message


@pytest.mark.slow
def test_samples_come_as_often_as_their_probabilities_say(made_model):
    fast, _ = made_model.samplers(100_000).items()
    log_prob, levels = made_model.log_prob, made_model.case.levels
    report = checks.check_sampler(dict([fast]), random.key(2), levels, log_prob)
    assert report.passed, report.message


def test_completion_keeps_what_is_given_and_draws_the_rest(made_model):
    model, case, label = made_model.model, made_model.case, made_model.label(6)
    given = np.zeros(case.shape, bool)
    given[1:] = True  # what comes later too
    x = made_model.source.test.x[:6]
    fast, slow = (
        jit(partial(model.complete, method=method))(random.key(3), made_model.state, x, given, label)
        for method in case.module.METHODS
    )
    np.testing.assert_array_equal(fast, slow)
    np.testing.assert_array_equal(fast[:, 1:], data.scale(x, case.levels)[:, 1:])
    assert (fast[:, :1] != data.scale(x, case.levels)[:, :1]).any()


@pytest.mark.slow
def test_nats_of_the_values_sum_to_those_of_the_example(made_model):
    if getattr(made_model.case.config, "num_masks", 1) > 1 or getattr(made_model.case.config, "num_orders", 1) > 1:
        pytest.skip("the members of an ensemble have orders of their own")
    x = made_model.source.test.x
    nats = jit(made_model.model.nats)(made_model.params, x, made_model.label(len(x)))
    assert nats.shape == x.shape
    np.testing.assert_allclose(-nats.reshape(len(x), -1).sum(-1), made_model.log_prob(x), rtol=1e-5)


# Ensembles


@pytest.mark.slow
@pytest.mark.parametrize("name", ["made-masks", "nade-orders"])
def test_an_ensemble_averages_probabilities(name):
    """Its probability is the mean of those of its members, each a model of its own."""
    case = CASES[name]
    whole = Made(case)
    x = whole.source.test.x[:5]
    totals = []
    for number in range(3):
        if name == "made-masks":
            keys = random.split(random.key(0), 3)
            degrees = masks.degrees(keys[number], 9, case.config.hidden, "random")
            y = made.outputs(whole.params, degrees, data.scale(x, 2).reshape(5, 9))
        else:
            order = nade.shuffle.permutation(random.split(random.key(0), 3)[number], 9)
            y = nade.outputs("sigmoid", whole.params, order, data.scale(x, 2).reshape(5, 9))
        totals.append(autoregressive.categorical(2).log_prob(y, x.reshape(5, 9)).sum(-1))
    np.testing.assert_allclose(whole.log_prob(x), np.log(np.exp(totals).mean(0)), rtol=1e-5)
    assert np.ptp(totals, 0).min() > 1e-3  # they do differ


@pytest.mark.parametrize(
    ("case", "scale"),
    [
        (Case(made, made.Config(hidden=(6,), direct=False, num_masks=3, order="raster"), (2, 2, 1)), 2.0),
        pytest.param(
            Case(pixelcnn, pixelcnn.Config(features=8, num_blocks=1, head=8), (2, 2, 1)), 0.0, marks=pytest.mark.slow
        ),
        pytest.param(CASES["nade"]._replace(shape=(2, 2, 1)), 0.0, marks=pytest.mark.slow),
    ],
    ids=["made-masks", "pixelcnn", "nade"],
)
def test_completions_come_as_often_as_their_probabilities_given_the_rest_say(case, scale):
    """Of an ensemble that takes any member at random, whatever it thinks of what is given, they do not."""
    count = 20_000
    model = Made(case)
    model.state = disturbed(model.state, scale)
    model.params = model.state.fit.params
    first = np.asarray(model.model.order)[:2]
    given = np.zeros(4, bool)
    given[first] = True
    given, x = given.reshape(case.shape), np.ones((count, *case.shape), np.uint8)

    def log_prob(inputs):
        kept = (np.asarray(inputs) == 1)[:, given].all(-1)
        logs = np.where(kept, model.log_prob(inputs), -np.inf)
        return logs - np.log(np.exp(logs).sum())

    method = case.module.METHODS[0]
    complete = jit(lambda key: model.model.complete(key, model.state, x, given, model.label(count), method))
    report = checks.check_sampler({"mine": complete}, random.key(0), 2, log_prob)
    assert report.passed, report.message


# NADE


@pytest.mark.slow
def test_nade_gradient():
    """The gradient that runs backwards, against the one of a plain loop over equations 9 and 12."""
    size, hidden, width = 5, 4, 3
    shapes = [(size, hidden), (size, hidden), (size, width, 2), (size, 2)]
    keys = random.split(random.key(0), 7)
    rows = nade.Rows(*(random.normal(key, shape) for key, shape in zip(keys[:4], shapes, strict=True)))
    deeper = ((random.normal(keys[4], (hidden, width)), jnp.ones(width)),)
    params = nade.Params(rows, random.normal(keys[5], (hidden,)), deeper)
    x = random.uniform(keys[6], (6, size))
    order = jnp.array([3, 0, 4, 1, 2])

    def plain(params, x):
        a, y = params.bias, [None] * size
        for variable in order.tolist():
            kernel, bias = params.deeper[0]
            h = nn.sigmoid(nn.sigmoid(jnp.broadcast_to(a, (6, hidden))) @ kernel + bias)
            y[variable] = h @ params.rows.output[variable] + params.rows.offset[variable]
            a = a + x[:, variable, None] * params.rows.kernel[variable] + params.rows.known[variable]
        return jnp.sin(jnp.stack(y, 1)).sum()

    ours = jit(jax.grad(lambda params, x: jnp.sin(nade.outputs("sigmoid", params, order, x)).sum(), (0, 1)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        ours(params, x),
        jit(jax.grad(plain, (0, 1)))(params, x),
    )


@pytest.mark.slow
def test_training_for_all_orders_estimates_their_mean():
    """Over random orders and parts known, the loss is on average the mean negative log-likelihood over all orders."""
    case = Case(nade, nade.Config(hidden=(6,), training="all_orders"), (3,), 3)
    model = Made(case)
    x = jnp.array([[0, 2, 1], [1, 1, 2]])
    conditional = autoregressive.categorical(3)

    def exact(order):
        y = nade.outputs("sigmoid", model.params, order, data.scale(x, 3))
        return -conditional.log_prob(y, x).sum(-1).mean()

    expected = jnp.mean(jax.vmap(exact)(jnp.array(list(permutations(range(3))))))
    estimate = jax.vmap(lambda key: nade.loss(model.params, key, case.config, conditional, jnp.arange(3), x, 3)[0])
    losses = jit(estimate)(random.split(random.key(0), 4000))
    assert losses.mean() == pytest.approx(float(expected), abs=4 * float(losses.std()) / math.sqrt(4000))
    assert losses.std() > 0.05


# MADE


def test_made_without_hidden_layers_is_drawn_alike():
    case = CASES["made-visible"]._replace(shape=(2, 2, 1))
    report = checks.check_sampler(Made(case).samplers(50), random.key(1), 2)
    assert report.passed, report.message


def test_degrees_are_even_and_their_units_found():
    degrees = masks.degrees(random.key(0), 9, (20, 5), "random")
    assert sorted(degrees.variables.tolist()) == list(range(9))
    counts = np.bincount(degrees.hidden[0], minlength=8)
    assert set(counts) == {2, 3} and degrees.hidden[1].max() <= 7
    units = made._by_degree(degrees.hidden[0], 9)
    for degree, row in enumerate(units):
        assert (
            sorted(unit for unit in row.tolist() if unit < 20) == np.flatnonzero(degrees.hidden[0] == degree).tolist()
        )


# WaveNet


@pytest.mark.slow
def test_every_parameter_of_wavenet_is_of_use():
    model = Made(CASES["wavenet"])
    x = data.scale(model.source.test.x, 2)

    def total(params):
        return jnp.square(model.model.outputs(params, x, model.label(len(x)))).sum()

    for leaf in jax.tree.leaves(jit(jax.grad(total))(model.params)):
        assert (jnp.abs(leaf).max() > 1e-6).all()


# Blind spot


@pytest.mark.slow
def test_pixelcnn_has_its_blind_spot_and_gated_none():
    """With kernels of side 3, PixelCNN sees to the right no further than it sees up."""
    shape = 4, 6, 1
    rows, columns = np.divmod(np.arange(24), 6)
    up, right = rows[:, None] - rows, columns - columns[:, None]
    hole = (up > 0) & (right > up)
    earlier = masks.earlier(np.arange(24))
    plain = Made(Case(pixelcnn, pixelcnn.Config(8, 4, first_kernel=3, head=8), shape))
    report = checks.check_receptive(plain.outputs, shape, random.key(0), expected=earlier & ~hole)
    assert report.passed and hole.any(), report.message
    gated = Made(Case(gated_pixelcnn, gated_pixelcnn.Config(6, 4, first_kernel=5, head=8), shape))
    report = checks.check_receptive(gated.outputs, shape, random.key(0))
    assert report.passed, report.message
    report = checks.check_receptive(plain.outputs, shape, random.key(0))
    assert not report.passed and "outputs of (1, 0, 0) do not see (0, 2, 0)" in report.message


# Planted bugs


def colors_case():
    return Case(pixelcnn, SMALL_PIXELCNN, (2, 2, 3))


@pytest.mark.parametrize(
    "case",
    [pytest.param(colors_case(), marks=pytest.mark.slow), Case(gated_pixelcnn, SMALL_GATED)],
    ids=["pixelcnn", "gated"],
)
def test_mask_b_in_the_first_layer_is_found(monkeypatch, case):
    monkeypatch.setattr(
        layers, "first", lambda offsets, channels, size: layers.Conv((*offsets, (0, 0)), channels, size, channels)
    )
    report = checks.check_causal(Made(case).outputs, case.shape, random.key(0))
    size = math.prod(case.shape)
    assert not report.passed and "(0, 0, 0) have a derivative by (0, 0, 0)" in report.message
    assert {(d, d) for d in range(size)} <= {tuple(leak) for leak in report.leaks.tolist()}
    assert set(report.disturbed.tolist()) == set(range(size))


@pytest.mark.slow
def test_mask_a_in_a_later_layer_is_found(monkeypatch):
    """It hides a colour from the next one but one, and breaks no order: the check of reception sees it."""
    build = pixelcnn.build

    def strict(*args):
        net = build(*args)
        return net._replace(hidden=layers.Conv(((0, 0),), net.hidden.in_size, net.hidden.out_size, 3, strict=True))

    monkeypatch.setattr(pixelcnn, "build", strict)
    outputs = Made(colors_case()).outputs
    assert checks.check_causal(outputs, (2, 2, 3), random.key(0)).passed
    report = checks.check_receptive(outputs, (2, 2, 3), random.key(0))
    assert not report.passed and "outputs of (0, 0, 1) do not see (0, 0, 0)" in report.message


def test_swapped_colors_are_found(monkeypatch):
    straight = masks.colors
    monkeypatch.setattr(masks, "colors", lambda *args: straight(*args)[::-1, ::-1])
    report = checks.check_causal(Made(colors_case()).outputs, (2, 2, 3), random.key(0))
    assert not report.passed and "outputs of (0, 0, 0) have a derivative by (0, 0, 1)" in report.message


@pytest.mark.slow
def test_a_residual_around_the_first_layer_is_found():
    model = Made(Case(gated_pixelcnn, SMALL_GATED))
    report = checks.check_causal(lambda x: model.outputs(x) + 1e-3 * x[..., None], (3, 3, 1), random.key(0))
    assert not report.passed
    assert report.leaks.tolist() == [[d, d] for d in range(9)] and report.disturbed.tolist() == list(range(9))


@pytest.mark.parametrize(("row", "column"), [pytest.param(1, 0, marks=pytest.mark.slow), (0, 1)])
def test_a_cache_one_off_is_found(monkeypatch, row, column):
    write = layers.write
    monkeypatch.setattr(
        layers, "write", lambda conv, cache, r, c, *rest: write(conv, cache, r + row, c - column, *rest)
    )
    report = checks.check_sampler(Made(Case(pixelcnn, SMALL_PIXELCNN)).samplers(50), random.key(1), 2)
    assert not report.passed and "examples of naive are not those of cached, first example" in report.message


def test_a_wrong_constant_is_found_where_it_is():
    model = Made(Case(made, made.Config(hidden=(12,))))
    wrong = jnp.zeros((3, 3, 1)).at[1, 2, 0].set(0.01)
    report = checks.check_normalised(lambda x: wrong - model.model.nats(model.params, x), (3, 3, 1), 2)
    assert not report.passed and report.message.startswith("the distribution of (1, 2, 0) does not sum to one")
    assert report.total == pytest.approx(math.exp(0.01), rel=1e-4)
    assert np.flatnonzero(report.errors > 1e-4).tolist() == [5]


@pytest.mark.slow
def test_a_wrong_draw_is_found_by_its_frequencies():
    """Nothing but the frequencies tells that probabilities are taken to a power."""
    model = Made(Case(made, made.Config(hidden=(12,)), (2, 2, 1)))
    conditional = autoregressive.categorical(2)
    noise = random.uniform(random.key(0), (4, 20_000))
    wish = autoregressive.Wish(jnp.zeros((20_000, 4), int), jnp.zeros((20_000, 4), bool))

    def drawn(power):
        def outputs(x):
            return power * model.outputs(data.scale(x, 2).reshape(-1, 2, 2, 1)).reshape(*x.shape, -1)

        drawn = autoregressive.draw_naively(conditional, noise, outputs, wish, model.model.order)
        return {"mine": lambda key: drawn.reshape(-1, 2, 2, 1)}

    right, wrong = (checks.check_sampler(drawn(power), random.key(0), 2, model.log_prob) for power in (1.0, 1.1))
    assert right.passed, right.message
    assert not wrong.passed and "frequencies do not fit" in wrong.message and wrong.worst.shape == (2, 2, 1)


def drawn(counts):
    """As many of each input of two bits as `counts` says, drawn by whatever key."""
    return {"mine": lambda key: np.repeat(checks.enumerate_inputs((2,), 2), counts, axis=0)}


def log_of(*chances):
    return lambda x: np.log(np.asarray(chances), where=np.asarray(chances) > 0, out=np.full(4, -np.inf))


def test_an_input_that_cannot_be_is_found():
    report = checks.check_sampler(drawn([500, 499, 0, 1]), random.key(0), 2, log_of(0.5, 0.5, 0, 0))
    assert not report.passed and report.p_value == 0 and report.worst.tolist() == [1, 1]


def test_rare_inputs_alone_do_not_decide():
    """Two where a tenth is expected happens once in two hundred times, and no chi-square holds of such numbers."""
    report = checks.check_sampler(drawn([500, 498, 1, 1]), random.key(0), 2, log_of(0.5, 0.4999, 5e-5, 5e-5))
    assert report.passed and report.p_value > 0.5, report.message
    assert report.kept == pytest.approx(0.9999)


def test_too_few_samples_are_said_to_be():
    report = checks.check_sampler(drawn([4, 5, 4, 5]), random.key(0), 2, log_of(0.25, 0.25, 0.25, 0.25))
    assert not report.passed and report.p_value is None and "18 samples are too few" in report.message


def test_values_off_the_grid_are_found():
    report = checks.check_sampler({"mine": lambda key: jnp.full((5, 2), 0.4)}, random.key(0), 3)
    assert not report.passed and report.off_grid == 10


# A predictor that knows the frequencies alone


@pytest.mark.parametrize(
    ("module", "config"),
    [(made, made.Config(hidden=(2,))), pytest.param(nade, nade.Config(hidden=(2,)), marks=pytest.mark.slow)],
    ids=["made", "nade"],
)
def test_untrained_models_predict_frequencies(module, config):
    """205.95 nats on the binarised test images: a mix-up of logits and probabilities would show."""
    spec, source = datasets.load("binarized_mnist", data_folder("binarized_mnist.npz"))
    model = module.make(spec, config)
    state = jit(model.init)(random.key(0), module.Hyperparams(), source)
    scores = jit(model.evaluate)(random.key(1), state, module.Hyperparams(), source)
    assert scores["eval/nll"] == pytest.approx(205.95, abs=0.01)
    assert scores["eval/bits_per_dim"] == pytest.approx(205.95 / 784 / math.log(2), abs=1e-4)


# Bad input


@pytest.mark.slow
@pytest.mark.parametrize("module", [made, nade, pixelcnn, gated_pixelcnn, pixelrnn, pixelcnnpp])
def test_bad_data_is_refused(module):
    spec, source = examples((2, 2, 3), 4)
    config = module.Config(**({"features": 9, "head": 9} if module not in (made, nade, pixelcnnpp) else {}))
    model = module.make(spec, config)
    state = jax.eval_shape(model.init, random.key(0), module.Hyperparams(), source)
    params, x = state.fit.params, source.test.x
    with pytest.raises(ValueError, match=r"Values 0 to 4 given to a model of 0 \.\. 3"):
        model.log_prob(params, x.at[0].set(4))
    with pytest.raises(ValueError, match=r"shape \(2, 2, 1\) given to a model of mine, \(2, 2, 3\)"):
        model.log_prob(params, x[..., :1])
    with pytest.raises(ValueError, match="give them as they are"):
        model.complete(random.key(0), state, x / 3, True)
    with pytest.raises(ValueError, match="did you mean naive"):
        model.sample(random.key(0), state, 2, method="native")
    label = jnp.zeros(len(x), int)
    for refuses in (
        lambda: model.sample(random.key(0), state, len(x), label),
        lambda: model.log_prob(params, x, label),
        lambda: model.nats(params, x, label),
        lambda: model.outputs(params, x / 3, label),
    ):
        with pytest.raises(ValueError, match="Labels given to a model that reads none"):
            refuses()
    with pytest.raises(ValueError, match=r"given has shape \(2, 2, 1\) for 30 examples of shape \(2, 2, 3\)"):
        model.complete(random.key(0), state, x, np.ones((2, 2, 1), bool))
    with pytest.raises(ValueError, match="given holds int32: give booleans"):
        model.complete(random.key(0), state, x, np.ones((2, 2, 3), np.int32))
    with pytest.raises(ValueError, match="needs integers"):
        module.make(real_spec(), config)


def real_spec():
    return data.from_arrays("reals", np.zeros((3, 2, 2, 3)), np.zeros((3, 2, 2, 3)))[0]


@pytest.mark.parametrize(
    ("module", "config", "shape"),
    [
        (gated_pixelcnn, gated_pixelcnn.Config(6, 1, head=6, conditional=True), (2, 2, 1)),
        pytest.param(pixelcnnpp, pixelcnnpp.Config(4, 1, 1, 2, True), (2, 2, 1), marks=pytest.mark.slow),
        pytest.param(wavenet, wavenet.Config(6, 8, num_layers=2, conditional=True), (4,), marks=pytest.mark.slow),
    ],
    ids=["gated", "pixelcnnpp", "wavenet"],
)
def test_a_class_out_of_range_is_refused(module, config, shape):
    spec, source = examples(shape, 2)
    model = module.make(spec, config)
    state = jit(model.init)(random.key(0), module.Hyperparams(), source)
    for label in (3, -1):
        with pytest.raises(ValueError, match=r"Labels .* given to a model of the classes 0 .. 2: give one of these"):
            model.log_prob(state.fit.params, source.test.x[:2], jnp.array([0, label]))
    # Where it cannot be refused, it is no number.
    found = jit(model.log_prob)(state.fit.params, source.test.x[:3], jnp.array([0, 3, -1]))
    np.testing.assert_array_equal(np.isnan(found), [False, True, True])
    drawn = jit(lambda label: model.sample(random.key(0), state, 3, label))(jnp.array([0, 3, -1]))
    np.testing.assert_array_equal(np.isnan(drawn).reshape(3, -1).any(1), [False, True, True])
    for asks in (
        lambda: model.log_prob(state.fit.params, source.test.x[:2]),
        lambda: model.complete(random.key(0), state, source.test.x[:2], np.zeros(shape, bool)),
    ):
        with pytest.raises(ValueError, match="given their class: give labels from 0 to 2"):
            asks()
    with pytest.raises(ValueError, match="1 labels given for 2 examples"):
        model.sample(random.key(0), state, 2, jnp.array([1]))
    no_labels, _ = data.from_arrays("plain", np.zeros((3, *shape), bool), np.zeros((3, *shape), bool))
    with pytest.raises(ValueError, match="plain has no labels to condition on"):
        module.make(no_labels, config)


@pytest.mark.parametrize("name", ["made", *(pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != "made")])
def test_a_value_out_of_range_costs_no_number_where_it_cannot_be_refused(name):
    case = CASES[name]
    model = Made(case)
    x = np.array(model.source.test.x[:3])
    x[1].flat[-1], x[2].flat[-1] = case.levels, 255
    np.testing.assert_array_equal(np.isnan(model.log_prob(x)), [False, True, True])
    if getattr(case.config, "num_masks", getattr(case.config, "num_orders", 1)) == 1:
        nats = jit(model.model.nats)(model.params, x, model.label(3)).reshape(3, -1)
        np.testing.assert_array_equal(np.isnan(nats).any(0), np.arange(nats.shape[1]) == nats.shape[1] - 1)


@pytest.mark.parametrize("name", ["made", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nade", "wavenet"))])
def test_sampling_multiplies_in_full_precision(name):
    """Else a GPU or a TPU would round products, and differently in each method of sampling."""
    case = CASES[name]
    spec, source = examples(case.shape, case.levels)
    model = case.module.make(spec, case.config)
    state = jax.eval_shape(model.init, random.key(0), case.module.Hyperparams(), source)
    for method in case.module.METHODS:
        sample = partial(model.sample, count=2, method=method)
        products = [each for each in equations(jax.make_jaxpr(sample)(random.key(0), state)) if is_product(each)]
        assert products and all(each.params["precision"] == (lax.Precision.HIGHEST,) * 2 for each in products)


def is_product(equation):
    return equation.primitive.name == "dot_general"


@pytest.mark.parametrize(
    ("module", "changes", "said"),
    [
        (made, {"num_masks": 0}, "num_masks=0"),
        (made, {"hidden": (5, 0)}, r"hidden\[1\]=0"),
        (nade, {"hidden": ()}, "hidden=0"),
        (nade, {"num_orders": 2}, "knows no other"),
        (pixelcnn, {"kernel": 4}, "kernel=4 must be odd"),
        (pixelcnn, {"features": 8}, "features=8 is shared out among 3 colours: use features=6 or 9"),
        (gated_pixelcnn, {"num_layers": 0}, "num_layers=0"),
        (pixelcnnpp, {"num_sizes": 0}, "num_sizes=0"),
        (pixelcnnpp, {"conditional": True, "num_logistics": 0}, "num_logistics=0"),
        (pixelrnn, {"kernel": 2}, "kernel=2 must be odd"),
        (pixelrnn, {"features": 8}, "features=8 is shared out among 3 colours: use features=6 or 9"),
        (pixelrnn, {"recurrence": "diagonals"}, "use row or diagonal"),
        (wavenet, {}, r"shape \(2, 2, 3\), not sequences"),
        (gated_pixelcnn, {"eval_split": "valid", "features": 6, "head": 6}, "no valid examples"),
    ],
)
def test_what_cannot_work_is_refused(module, changes, said):
    spec, _ = examples((2, 2, 3), 2)
    with pytest.raises(ValueError, match=said):
        module.make(spec, module.Config(**changes))


def test_too_many_inputs_are_not_enumerated():
    with pytest.raises(ValueError, match=r"2\*\*64 inputs"):
        checks.check_normalised(lambda x: x, (8, 8), 2)
