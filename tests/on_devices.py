"""What `test_devices.py` runs in a process of its own, with as many CPU devices as the environment says.

Prints one line of JSON: numbers for the test to judge.
"""

import json
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import random
from learners import LEARNERS

from experiments import experiment, training
from jaxrl import envs
from jaxrl.algorithms import dqn
from jaxrl.core import devices, loop, memory, networks, sweep

# Compared within a tolerance, so these need not be the programs that a user gets, and compile in half the time.
QUICK = {"xla_backend_optimization_level": 0}
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(compiled: Any) -> int:
    """How many operations of a compiled program communicate."""
    return sum(len(re.findall(rf"\b{kind}(?:-start)?\(", compiled.as_text())) for kind in COLLECTIVES)


def distance(one: Any, two: Any) -> float:
    """The largest relative difference between the numbers of two trees, in units of the tolerance."""

    def numbers(tree: Any) -> list[Any]:
        leaves = (leaf for leaf in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))
        return [np.asarray(leaf, float) for leaf in leaves if leaf.size]

    pairs = zip(numbers(one), numbers(two), strict=True)
    return max(float((np.abs(a - b) / (1e-4 + 1e-3 * np.abs(a))).max()) for a, b in pairs)


def lanes(name: str) -> dict[str, Any]:
    """16 lanes over all devices and on one."""
    made, hparams, source, _ = LEARNERS[name]()
    (group,) = sweep.grid(hparams, source=source, seeds=8, **{hparams._fields[0]: [0.01, 0.02]}).groups
    train = group.map(partial(loop.train, made, num_updates=4, eval_every=2))
    mesh = devices.mesh()
    where = devices.shardings(mesh, group.axes)
    arguments = jax.device_put(group.arguments(), where)
    over = jax.jit(devices.lanes_over(mesh, train, group.axes)).lower(*arguments).compile(QUICK)
    spread = over(*arguments)
    together = jax.jit(train).lower(*group.arguments()).compile(QUICK)(*group.arguments())
    return {
        "devices": mesh.size,
        "collectives": collectives(over),
        "distance": distance(together, spread),
        "shards": [shard.data.shape[0] for shard in spread[1]["diverged"].addressable_shards],
    }


def split(name: str) -> dict[str, Any]:
    """One run over all devices and on one."""
    made, hparams, source, _ = LEARNERS[name]()

    def train() -> tuple[Any, Any]:
        arguments = random.key(0), hparams, source
        compiled = jax.jit(partial(loop.train, made, num_updates=2, eval_every=2)).lower(*arguments).compile(QUICK)
        return compiled, compiled(*arguments)

    whole, together = train()
    with jax.set_mesh(devices.mesh(devices.BATCH)):
        over, spread = train()
    flops = [compiled.cost_analysis()["flops"] for compiled in (whole, over)]
    return {"collectives": collectives(over), "distance": distance(together, spread), "share": flops[1] / flops[0]}


def trained(name: str) -> dict[str, Any]:
    """Two seeds of the default experiment, made small, as the command line splits them and as it does not."""
    base = experiment.default(name)
    config = replace(base.config, num_envs=8, num_steps=16, network=networks.MLP((8,)), eval_episodes=2)
    whole = experiment.build(replace(base, config=config, steps=256, evaluations=1, seeds=2))
    over = training.over_devices(whole)

    def train(program: experiment.Program) -> tuple[Any, Any]:
        arguments = program.hparams, program.source
        runs = program.start(program.keys, *arguments)
        compiled = program.advance.lower(runs, *arguments).compile(QUICK)
        return compiled, compiled(runs, *arguments)

    (_, together), (compiled, spread) = train(whole), train(over)
    return {"collectives": collectives(compiled), "distance": distance(together, spread)}


def memory_of(name: str) -> dict[str, Any]:
    """Bytes that 64 lanes of DQN with a buffer of 10,000 need, as foretold and as the system counts them."""
    env, env_params = envs.make(name)
    config = dqn.Config(4, 5, 5, 1, 32, 10_000, 100, networks.MLP((32,)), eval_episodes=1)
    learner = dqn.make(env, config)
    (group,) = sweep.grid(dqn.Hyperparams(), source=env_params, seeds=64).groups
    keys, hparams, source = group.arguments()
    start = jax.jit(group.map(partial(loop.start, learner, num_updates=4)))
    chunk = jax.jit(group.map(partial(loop.chunk, learner, 2)), donate_argnums=0)
    runs = jax.eval_shape(start, keys, hparams, source)
    begin = start.lower(keys, hparams, source).compile(QUICK)
    advance = chunk.lower(runs, hparams, source).compile(QUICK)
    before = system_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    runs = begin(keys, hparams, source)
    jax.block_until_ready(advance(runs, hparams, source))
    foretold = max(memory.needed(begin), memory.needed(advance))
    return {"foretold": foretold, "measured": system_bytes("VmHWM") - before}


def system_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    asked = {"lanes": lanes, "split": split, "trained": trained, "memory": memory_of}[sys.argv[1]]
    print(json.dumps(asked(sys.argv[2])))
