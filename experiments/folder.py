"""A run folder: config.json, metrics.jsonl, checkpoints/, summary.json and pictures.

What is on disk is always enough to continue. `config.json` is written whole before the first update. Metrics reach the
disk before the checkpoint that follows them, so `metrics.jsonl` never has fewer lines than the last checkpoint needs;
what it has more, whole lines or half ones, is cut off by `resume` and written again.
"""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.experiment import Experiment, decode, encode

CONFIG, METRICS, CHECKPOINTS, SUMMARY = "config.json", "metrics.jsonl", "checkpoints", "summary.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "chex", "gymnax", "numpy", "orbax-checkpoint")


def create(path: str | None, experiment: Experiment, content: dict[str, Any]) -> Path:
    """A new run folder with its config.json, `content` and more; a dated one under `runs` if no `path` is given.

    Raises:
        ValueError: there is a run in that folder already.
    """
    check_free(path)
    if path is None:
        date = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
        name = f"{date}-{experiment.algorithm}-{experiment.source}"
        folder = _made(Path("runs") / name.replace(" ", "-").replace("/", "-"))
    else:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / CONFIG,
        {
            "command": f"python -m experiments {shlex.join(sys.argv[1:])}",
            "experiment": encode(experiment),
            **content,
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "machine": platform.platform(),
            "processor": f"{os.cpu_count()} x {processor()}",
            "git": git_revision(),
        },
    )
    return folder


def check_free(path: str | None) -> None:
    """Refuse a folder that holds a run or cannot be written, before any work is done for it.

    Raises:
        ValueError: with what to do instead.
    """
    if path is not None and (Path(path) / CONFIG).exists():
        raise ValueError(
            f"{path} already holds a run: continue it with `python -m experiments resume {path}`, "
            "or choose another --run-dir."
        )
    place = Path(path or "runs").absolute()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise ValueError(f"No run can be written to {path or 'runs'}: {place} is no folder that you may write to.")


def _made(path: Path) -> Path:
    """A new folder of that name, or with a number behind it that no other process has taken meanwhile."""
    number, candidate = 1, path
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")


def open_run(path: str | Path) -> tuple[Path, dict[str, Any], Experiment]:
    """An existing run folder, its config.json, and the experiment described there.

    Raises:
        ValueError: not a run folder, or its config.json cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"There is no run folder {path}.")
    if not (folder / CONFIG).exists():
        raise ValueError(f"{path} is no run folder: it has no {CONFIG}.")
    try:
        config = json.loads((folder / CONFIG).read_text())
        return folder, config, decode(config["experiment"])
    except (KeyError, TypeError, AttributeError, ImportError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a run: {error}") from error


def command(name: str, path: str | Path) -> str:
    """The line that does `name` to the run in `path`, to be pasted."""
    return f"python -m experiments {name} {shlex.quote(str(path))}"


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def git_revision() -> str | None:
    """The revision of the code, with a plus sign if files differ from it; None outside a git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # the code's own repository, not one around it
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write a whole file or none."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w") as file:
        file.write(json.dumps(strict(content), indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def strict(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsFile:
    """The growing `metrics.jsonl`, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open it. From here on no other process writes checkpoints beside it.

        Raises:
            ValueError: another process does.
        """
        self.path = folder / METRICS
        self.file = open(self.path, "ab+")  # noqa: SIM115
        _lock(self.file, folder)

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def cut(self, keep: int) -> None:
        """Leave its first `keep` lines.

        Raises:
            ValueError: it has fewer.
        """
        self.file.seek(0)
        kept = self.file.readlines()[:keep]
        if len(kept) < keep or not all(line.endswith(b"\n") for line in kept):
            raise ValueError(f"{self.path} has fewer than the {keep} lines that the last checkpoint goes with.")
        self.file.truncate(sum(map(len, kept)))

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write `rows` and see them to the operating system."""
        self.file.write("".join(json.dumps(strict(row), allow_nan=False) + "\n" for row in rows).encode())
        self.file.flush()

    def sync(self) -> None:
        """See all rows to the disk."""
        os.fsync(self.file.fileno())


def _lock(file: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"Another process is writing to {folder}: wait for it or stop it.") from None
    except OSError:  # a file system without locks
        return


def rows(
    metrics: dict[str, np.ndarray], update: int, step: int, lanes: Sequence[dict[str, int]]
) -> list[dict[str, Any]]:
    """Metrics with leaves [S] of one evaluation as a row for each of `lanes`, numbers as short as float32 allows."""
    return [
        {
            "update": update,
            "step": step,
            **lane,
            **{name: float(str(leaf[place])) for name, leaf in metrics.items()},
        }
        for place, lane in enumerate(lanes)
    ]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every whole row written so far."""
    if not (folder / METRICS).exists():
        return []
    lines = (folder / METRICS).read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """Metric `name` as [evaluations, seeds], NaN where it was no number."""
    updates = {update: place for place, update in enumerate(sorted({row["update"] for row in rows}))}
    seeds = {seed: place for place, seed in enumerate(sorted({row["seed"] for row in rows}))}
    table = np.full((len(updates), len(seeds)), np.nan)
    for row in rows:
        value = row.get(name)
        table[updates[row["update"]], seeds[row["seed"]]] = np.nan if value is None else value
    return table
