"""Speed in steady state, measured in one process in alternation, as medians and as shares of a ceiling.

The ceiling of an agent is its own network acting in the same environments under the same scan, without learning.
Evaluation is left out of both.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import random

from experiments import folder
from jaxrl import envs, rollout
from jaxrl.algorithms import ppo
from jaxrl.core import keys, loop

NUM_STEPS = 128  # of every environment per update, as in the published comparisons


class Case(NamedTuple):
    """A compiled program and the work it does."""

    program: Callable[[], Any]
    steps: int  # environment steps per call, all lanes together
    compile_seconds: float


@dataclass(frozen=True)
class Row:
    """One line of the result: medians over all rounds, steps in all lanes together."""

    name: str
    num_envs: int
    seeds: int
    steps_per_second: float
    slowest: float  # of the rounds, steps per second
    fastest: float
    compile_seconds: float
    ceiling_steps_per_second: float
    share_of_ceiling: float  # median of the ratios within each round


def compiled(function: Callable[..., Any], steps: int, *args: Any) -> Case:
    """`function` compiled for `args` and called once, so that later calls are steady."""
    begin = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - begin
    jax.block_until_ready(program(*args))
    return Case(lambda: jax.block_until_ready(program(*args)), steps, seconds)


def ppo_cartpole(num_envs: int, seeds: int, steps: int) -> tuple[Case, Case]:
    """PPO on CartPole-v1 (4 epochs of 4 minibatches, 64-64 tanh) and its ceiling, about `steps` steps per call."""
    env, env_params = envs.make("CartPole-v1")
    config = ppo.Config(num_envs=num_envs, num_steps=NUM_STEPS, num_epochs=4, num_minibatches=4)
    agent = ppo.make(env, config)
    learner = agent._replace(evaluate=lambda *_: {})
    updates = max(1, steps // (config.steps_per_update * seeds))
    hparams = ppo.Hyperparams(learning_rate=2.5e-4)
    total = updates * config.steps_per_update * seeds

    def start(key):
        return loop.start(learner, key, hparams, env_params, updates)

    def act_only(run, hparams, env_params):
        def policy(key, obs):
            return agent.act(key, run.state, obs), None

        key, length = keys.unrolled(run.key), updates * NUM_STEPS
        return rollout.collect(env, policy, run.state.cursor, env_params, key, length)[0]

    runs = jax.jit(jax.vmap(start))(random.split(random.key(0), seeds))
    over_seeds = partial(jax.vmap, in_axes=(0, None, None))
    training = compiled(over_seeds(partial(loop.chunk, learner, updates)), total, runs, hparams, env_params)
    return training, compiled(over_seeds(act_only), total, runs, hparams, env_params)


def seconds(case: Case) -> float:
    """Of one call."""
    begin = time.perf_counter()
    case.program()
    return time.perf_counter() - begin


def measure(name: str, num_envs: int, seeds: int, pair: tuple[Case, Case], rounds: int) -> Row:
    """Training and ceiling in turn, `rounds` times each."""
    training, ceiling = pair
    times = [(seconds(training), seconds(ceiling)) for _ in range(rounds)]
    speeds = [training.steps / mine for mine, _ in times]
    return Row(
        name,
        num_envs,
        seeds,
        statistics.median(speeds),
        min(speeds),
        max(speeds),
        training.compile_seconds,
        statistics.median(ceiling.steps / bound for _, bound in times),
        statistics.median(bound / mine for mine, bound in times),
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "versions": folder.versions(),
        "git_revision": folder.git_revision(),
    }


def run(rounds: int = 5, steps: int = 2**19, sizes: tuple[int, ...] = (4, 64), lanes: tuple[int, ...] = (1, 32)) -> Any:
    """Every case, printed as it comes. Returns what `write` stores."""
    # A program from the cache would count as compiled at once.
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{'':14}{'envs':>6}{'seeds':>7}{'steps/s':>12}{'slowest':>11}{'fastest':>11}{'ceiling':>12}{'share':>8}")
    rows = []
    for num_envs in sizes:
        for seeds in lanes:
            row = measure("ppo-cartpole", num_envs, seeds, ppo_cartpole(num_envs, seeds, steps), rounds)
            rows.append(row)
            figures = f"{row.steps_per_second:12,.0f}{row.slowest:11,.0f}{row.fastest:11,.0f}"
            bound = f"{row.ceiling_steps_per_second:12,.0f}{row.share_of_ceiling:8.1%}"
            print(f"{row.name:14}{num_envs:6}{seeds:7}{figures}{bound}", flush=True)
    return {"machine": machine(), "rounds": rounds, "rows": [asdict(row) for row in rows]}
