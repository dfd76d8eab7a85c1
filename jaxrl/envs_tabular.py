"""Small tasks as MDPs, by name, most of them from the examples of Sutton and Barto (2018).

A grid world is a list of rows: S start, . free, # wall, H hole and G goal, which end the task, and C cliff, from which
one is put back to the start. States count row by row; actions are left, down, right, up, as in FrozenLake.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jax import random

from jaxrl import mdp
from jaxrl.core import checks
from jaxrl.envs import Env
from jaxrl.mdp import MDP

Layout = tuple[str, ...]

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # rows and columns
LAKE = ("S...", ".H.H", "...H", "H..G")
LARGE_LAKE = (
    "S.......",
    "........",
    "...H....",
    ".....H..",
    "...H....",
    ".HH...H.",
    ".H..H.H.",
    "...H...G",
)
CLIFF = ("............", "............", "............", "SCCCCCCCCCCG")
ROOMS = (
    ".....#.....",
    ".....#.....",
    "...........",
    "S....#.....",
    ".....#.....",
    "#.####.....",
    ".....###.##",
    ".....#.....",
    ".....#.....",
    "..........G",
    ".....#.....",
)


def grid_world(layout: Sequence[str], rewards: Mapping[str, float], *, success: float = 1.0) -> MDP:
    """The MDP of a map. Entering a cell gives `rewards` of its character, 0 if not there; a wall leaves one in place.

    A step goes where it was aimed at with chance `success`, else to either side.

    Raises:
        ValueError: rows of different lengths, unknown characters, no start.
    """
    height, width = len(layout), len(layout[0])
    cells = "".join(layout)
    if any(len(row) != width for row in layout) or set(cells) - set("S.#HGC") or "S" not in cells:
        raise ValueError(f"{list(layout)} must be rows of one length, of S . # H G C, with an S to start at.")
    size = height * width
    start = np.array([cell == "S" for cell in cells], float)
    start /= start.sum()
    transition, reward = np.zeros((4, size, size)), np.zeros((size, 4))
    for state in range(size):
        row, column = divmod(state, width)
        for aimed in range(4):
            for turn, chance in ((0, success), (-1, (1 - success) / 2), (1, (1 - success) / 2)):
                down, right = MOVES[(aimed + turn) % 4]
                to_row, to_column = min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1)
                entered = to_row * width + to_column
                entered = state if cells[entered] == "#" else entered
                reward[state, aimed] += chance * rewards.get(cells[entered], 0.0)
                transition[aimed, state] += chance * (start if cells[entered] == "C" else np.eye(size)[entered])
    terminal = np.array([cell in "HG" for cell in cells])
    return mdp.create(transition, reward, terminal, start)


def frozen_lake(layout: Sequence[str] = LAKE, success: float = 1 / 3) -> MDP:
    """Gymnasium's FrozenLake: 1 at the goal, nothing else; on ice most steps slip aside."""
    return grid_world(layout, {"G": 1.0}, success=success)


def cliff_walking() -> MDP:
    """Example 6.6: each step costs 1, one into the cliff 100 and the way back to the start."""
    return grid_world(CLIFF, {"S": -1.0, ".": -1.0, "G": -1.0, "C": -100.0})


def random_walk(num_states: int = 5) -> MDP:
    """Example 6.2: `num_states` in a row, the first step from the middle, each either way by a coin.

    The right end pays 1. States 0 and num_states + 1 are the ends, state i is worth i / (num_states + 1).
    """
    size = num_states + 2
    transition = np.zeros((1, size, size))
    inner = np.arange(1, size - 1)
    transition[0, inner, inner - 1] = transition[0, inner, inner + 1] = 0.5
    reward = np.zeros((size, 1))
    reward[-2] = 0.5  # the mean of 1 to the right and 0 to the left
    return mdp.create(transition, reward, np.isin(np.arange(size), (0, size - 1)), np.eye(size)[size // 2])


def maximization_bias(num_actions: int = 10) -> MDP:
    """Example 6.7: left of state 0 lies state 1, where each action ends with a reward of mean -0.1 and deviation 1.

    Action 1 leaves state 0 to the right, which ends at once with 0 and is best; all other actions go left.
    """
    transition = np.zeros((num_actions, 3, 3))
    transition[:, 0, 1] = transition[:, 1, 2] = 1.0
    transition[1, 0] = (0.0, 0.0, 1.0)
    reward, deviation = np.zeros((3, num_actions)), np.zeros((3, num_actions))
    reward[1], deviation[1] = -0.1, 1.0
    return mdp.create(transition, reward, [False, False, True], [1, 0, 0], deviation)


def bandit(means: Sequence[float] | None = None, deviation: float = 1.0, num_arms: int = 10, seed: int = 0) -> MDP:
    """One step, one state, an arm to choose (section 2.3): Gaussian rewards about `means`.

    Means not given are drawn, `num_arms` of them, standard normal, the same for the same `seed`.
    """
    drawn = np.random.default_rng(seed).normal(size=num_arms) if means is None else np.asarray(means, float)
    transition = np.zeros((len(drawn), 2, 2))
    transition[:, 0, 1] = 1.0
    reward = np.stack([drawn, np.zeros_like(drawn)])
    return mdp.create(transition, reward, [False, True], [1, 0], deviation)


def garnet(num_states: int = 20, num_actions: int = 3, branching: int = 4, num_terminal: int = 1, seed: int = 0) -> MDP:
    """A random MDP, the same for the same `seed`: see `mdp.garnet`."""
    return mdp.garnet(random.key(seed), num_states, num_actions, branching, num_terminal)


@dataclass(frozen=True)
class Task:
    """How an MDP is made, and what its arrays do not say."""

    build: Callable[..., MDP]
    max_steps: int  # time limit
    layout: Layout | None = None  # the map, of a grid world


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "Bandit": Task(bandit, 1),
        "CliffWalking": Task(cliff_walking, 500, CLIFF),
        "FourRooms": Task(lambda: grid_world(ROOMS, {"G": 1.0}, success=2 / 3), 500, ROOMS),
        "FrozenLake": Task(frozen_lake, 100, LAKE),
        "FrozenLake8x8": Task(lambda success=1 / 3: frozen_lake(LARGE_LAKE, success), 200, LARGE_LAKE),
        "Garnet": Task(garnet, 100),
        "MaximizationBias": Task(maximization_bias, 10),
        "RandomWalk": Task(random_walk, 500),
    }
)


def names() -> list[str]:
    """Every task, as `make` takes it."""
    return list(TASKS)


def get(name: str) -> Task:
    """The task called `name`, "CliffWalking" say.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in TASKS:
        raise ValueError(checks.unknown("tabular environment", name, TASKS))
    return TASKS[name]


def make(name: str, max_steps_in_episode: int | None = None, **kwargs: Any) -> tuple[Env, MDP]:
    """The environment `name` and its parameters, an MDP. Keyword arguments go to the function that builds it.

    Raises:
        ValueError: unknown name or arguments.
    """
    task = get(name)
    try:
        built = task.build(**kwargs)
    except TypeError as error:
        raise ValueError(f"tabular/{name} does not take {', '.join(kwargs)}: {error}") from error
    max_steps = task.max_steps if max_steps_in_episode is None else max_steps_in_episode
    return mdp.as_env(built, max_steps, f"tabular/{name}")
