"""Contestants in turn on one task, so that a noisy machine disturbs all alike; medians and ratios of the rounds.

Every contestant is a process of its own, so that compilation, threads and peak memory are its own as well. All get
networks of the same layers, the same batches, environment steps, and gradient steps for each of them. What they do
differently nevertheless:

- Rejax's PPO bounds each entry of a gradient (`optax.clip`), and actor and critic have an optimiser each; ours bounds
  the norm of all gradients together, for one optimiser, as Stable-Baselines3 does. Rejax's clips values as well.
- Rejax's initial weights are Flax's, and so are ours in PPO and DQN; ours are orthogonal, with a small last layer of
  the actor, in DDPG, TD3 and SAC. Stable-Baselines3 and the image models, ours and PyTorch's, start as they do anyway.
- Rejax takes a time limit for an end, after which it expects nothing; the others bootstrap there.
- Rejax has no DDPG: its TD3 without delay and noise stands for it, with two critics where the others have one. Its
  actors of TD3 and DDPG ascend the mean of both critics, the others' of TD3 the first alone. Both wait one gradient
  step longer.
- Rejax's SAC moves the actor before the critics and holds the log standard deviation within [-10, 2], ours within
  [-5, 2]. It acts by its policy in the warm-up, the others at random.
- Of rejax's DQN's actions that are scored, 0.5 % are at random; of the others' none.
- Rejax and Stable-Baselines3 lower DQN's epsilon from the first step on, ours from the end of the warm-up.
- Stable-Baselines3 trains once, its rounds being parts of that after the warm-up, which the others' rounds include; it
  is scored over 10 episodes instead of 128.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.benchmarks import images, protocol, tasks

HERE = Path(__file__).parent
OURS = "jaxrl"
ENVIRONMENT = {
    "JAX_ENABLE_COMPILATION_CACHE": "0",  # a program from a cache would count as compiled at once
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # or the first contestant on a GPU would leave the next no memory
}


@dataclass(frozen=True)
class Row:
    """One contestant on one task: medians over all rounds, steps of all seeds together."""

    task: str
    contestant: str
    seeds: int
    steps_per_second: float
    slowest: float  # of the rounds, steps per second
    fastest: float
    ours_over_theirs: float  # median over rounds of the ratio of speeds
    metric: str  # what the score is
    score: float | None  # median over rounds; of a contestant whose rounds are one training, the last
    steps_scored: int  # environment steps or images per seed behind the score
    compile_seconds: float
    peak_megabytes: float  # of the whole process
    device: str  # on which it trained
    versions: dict[str, str]  # of its packages


def contestants(task: tasks.Task, peers: Path | None) -> dict[str, list[str]]:
    """Commands by name; `peers` is the Python of the other libraries' environment, None leaves them out."""
    commands = {OURS: [sys.executable, "-m", "experiments.benchmarks.ours"]}
    if peers is None:
        return commands
    if isinstance(task, tasks.Images):
        return commands | {"pytorch": [str(peers), str(HERE / "peer_torch.py")]}
    commands["rejax"] = [str(peers), str(HERE / "peer_rejax.py")]
    # It has no MinAtar, and trains no two seeds in one process.
    if task.seeds == 1 and "MinAtar" not in task.env:
        commands["stable-baselines3"] = [str(peers), str(HERE / "peer_sb3.py")]
    return commands


class Contestant:
    """A running process that waits for its next round."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.process = process
        self.about = self.hear()
        self.rounds: list[dict[str, Any]] = []

    def hear(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            RuntimeError: it ended instead, with the end of what it had printed.
        """
        assert self.process.stdout is not None
        printed = []
        for line in self.process.stdout:
            if line.startswith(protocol.MARK):
                return json.loads(line.removeprefix(protocol.MARK))
            printed.append(line)
        raise RuntimeError(f"{self.name} ended with code {self.process.wait()}:\n{''.join(printed[-20:])}")

    def play(self, number: int) -> None:
        """Train round `number`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        self.rounds.append(self.hear())

    def speeds(self) -> list[float]:
        """Of every round, steps per second."""
        return [one["steps"] / one["seconds"] for one in self.rounds]


@contextmanager
def started(name: str, command: list[str], task: Any) -> Iterator[Contestant]:
    """A contestant that has compiled; it ends with the context."""
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(HERE.parent.parent) if name == OURS else str(HERE)}
    process = subprocess.Popen(
        [*command, tasks.to_json(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        yield Contestant(name, process)
    finally:
        process.kill()
        process.wait()


def run(name: str, task: tasks.Task, rounds: int, peers: Path | None) -> list[Row]:
    """All contestants on `task`, `rounds` rounds each, in alternation. The first row is ours.

    Raises:
        RuntimeError: a contestant failed.
    """
    with ExitStack() as stack:
        if isinstance(task, tasks.Images):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            task = dataclasses.replace(task, file=str(images.write(task.side, folder)))
        everyone = [stack.enter_context(started(*pair, task)) for pair in contestants(task, peers).items()]
        for number in range(rounds):
            for one in everyone:
                one.play(number)
    mine = everyone[0].speeds()
    return [_row(name, task, one, mine) for one in everyone]


def _row(name: str, task: tasks.Task, one: Contestant, mine: list[float]) -> Row:
    speeds = one.speeds()
    in_parts = one.name == "stable-baselines3"
    scores = [played["score"] for played in one.rounds if played["score"] is not None]
    return Row(
        task=name,
        contestant=one.name,
        seeds=task.seeds,
        steps_per_second=statistics.median(speeds),
        slowest=min(speeds),
        fastest=max(speeds),
        ours_over_theirs=statistics.median(ours / theirs for ours, theirs in zip(mine, speeds, strict=True)),
        metric="nats per image" if isinstance(task, tasks.Images) else "return",
        score=(scores[-1] if in_parts else statistics.median(scores)) if scores else None,
        steps_scored=one.rounds[-1]["steps_scored"],
        compile_seconds=one.about["compile_seconds"],
        peak_megabytes=max(played["peak_bytes"] for played in one.rounds) / 1e6,
        device=one.about["device"],
        versions=one.about["versions"],
    )
