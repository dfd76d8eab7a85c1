"""Compiling for TPUs that are not there. What needs libtpu is skipped where it is not installed."""

import dataclasses
import importlib.util
from functools import cache, partial

import jax
import pytest
from jax import lax
from jax import numpy as jnp
from learners import LEARNERS, Case, dqn_on

from experiments import cli, counting, preflight, registry
from experiments.experiment import default
from jaxrl.core import loop

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'jaxrl-generative[tpu]'"
)


def test_products_are_counted_through_loops():
    def program(x):
        def step(x, _):
            return jnp.tanh(x @ jnp.ones((4, 4))), None

        x, _ = lax.scan(step, x, None, length=10)
        return lax.cond(x.sum() > 0, lambda x: x @ jnp.ones((4, 5)), lambda x: x[:, :1] @ jnp.ones((1, 5)), x)

    counted = counting.products(jax.make_jaxpr(program)(jnp.ones((3, 4))).jaxpr)
    assert counted == 10 * 2 * 3 * 4 * 4 + 2 * 3 * 4 * 5


def test_convolutions_are_counted():
    def program(image, kernel):
        return lax.conv_general_dilated(image, kernel, (1, 1), "VALID")

    counted = counting.products(jax.make_jaxpr(program)(jnp.ones((2, 3, 8, 8)), jnp.ones((7, 3, 5, 5))).jaxpr)
    assert counted == 2 * (2 * 7 * 4 * 4) * (3 * 5 * 5)


def test_unknown_topologies_are_refused():
    with pytest.raises(ValueError, match="v5e-1"):
        preflight.topology("v5-1")


def test_missing_libtpu_is_named(monkeypatch):
    from jax.experimental import topologies

    def missing(*args, **kwargs):
        raise RuntimeError("JAX TPU support not installed; cannot generate TPU topology.")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    with pytest.raises(ValueError, match=r"pip install 'jaxrl-generative\[tpu\]'"):
        preflight.check(default("td_prediction"), "v5e-1")


@needs_libtpu
def test_a_plan(capsys):
    words = "preflight td_prediction --env tabular/RandomWalk --topology v5e-4"
    assert cli.main([*words.split(), "--seeds", "8"]) == 0
    printed = capsys.readouterr().out
    assert "8 seeds on 4 devices" in printed and "fits" in printed and "collectives  none" in printed
    assert cli.main([*words.split(), "--seeds", "6"]) == 2
    assert "--seeds 8" in capsys.readouterr().err


@pytest.mark.parametrize(("room", "asked", "found"), [(8, 4, (4, 8)), (7, 4, (2, 4)), (3, 5, (1, 2)), (1, 5, (1, 2))])
def test_sizes_for_which_there_is_room(room, asked, found, monkeypatch):
    def compiled(experiment, devices, lanes):
        return preflight.Compiled(100 + lanes, lanes, {}, 0.1) if lanes <= room else None

    monkeypatch.setattr(preflight, "_compile", compiled)
    fewer, small, more, large = preflight._two_sizes(default("dqn"), None, asked)
    assert (fewer, more) == found and small.argument_bytes == fewer and large.argument_bytes == more
    room = 0
    with pytest.raises(ValueError, match="not even with one lane"):
        preflight._two_sizes(default("dqn"), None, asked)


@needs_libtpu
@pytest.mark.slow
def test_a_program_that_does_not_fit_says_how_many_lanes_do():
    large = default("dqn")
    config = dataclasses.replace(large.config, capacity=30_000_000)
    plan = preflight.check(dataclasses.replace(large, config=config, seeds=32), "v5e-1")
    assert not plan.fits and 0 < plan.most_lanes < 32
    devices = preflight.topology("v5e-1").devices()
    fewer = preflight._compile(dataclasses.replace(large, config=config), devices, plan.most_lanes)
    assert fewer is not None and fewer.bytes_per_device <= plan.device_bytes


# Over several chips each runs the program of one: a few show it.
SPREAD = ("ppo", "dqn", "td_control", "vae", "gan")


@cache
def smallest() -> dict[str, Case]:
    """The first case of every learner's module."""
    cases: dict[str, Case] = {}
    for make in LEARNERS.values():
        case = make()
        cases.setdefault(type(case.hparams).__module__, case)
    return cases


def test_every_learner_has_a_case():
    assert {learner.module for learner in registry.LEARNERS.values()} == set(smallest())


def compiled(case: Case, topology: str) -> tuple[preflight.Compiled, int]:
    """A case as a lane on each device, and the bytes of its arguments without padding."""
    devices = preflight.topology(topology).devices()
    learner, hparams, source, _ = case
    arguments = jax.tree.map(loop.strong, (hparams, source))
    start, chunk = (
        jax.vmap(function, (0, None, None))
        for function in (partial(loop.start, learner, num_updates=4), partial(loop.chunk, learner, 2))
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(devices.size))
    shapes = jax.eval_shape(lambda: (start(keys, *arguments), *arguments))
    return preflight.compile(chunk, shapes, devices), preflight.argument_bytes(shapes, devices.size)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "topology"), [*((name, "v5e-1") for name in registry.LEARNERS), *((name, "v5e-8") for name in SPREAD)]
)
def test_every_learner_compiles_and_needs_no_communication(algorithm, topology):
    program, _ = compiled(smallest()[registry.LEARNERS[algorithm].module], topology)
    assert 0 < program.bytes_per_device < 2**27
    assert program.collectives == {}


@needs_libtpu
@pytest.mark.slow
def test_images_in_replay_are_not_padded_to_tiles():
    program, plain = compiled(dqn_on("Breakout-MinAtar", capacity=20_000), "v5e-1")
    assert plain > 20_000 * 4 * 10 * 10 * 4
    assert program.bytes_per_device < 4 * plain  # as [M, 10, 10, 4] they would take 13 times theirs
