"""TensorBoard event files beside metrics.jsonl, one series per seed."""

from pathlib import Path
from typing import Any

try:
    from tensorboardX import SummaryWriter
except ImportError as error:
    raise ValueError("--tensorboard needs tensorboardX: pip install tensorboardX") from error

from experiments.experiment import Experiment


class Writer:
    """Call it with the rows of one evaluation."""

    def __init__(self, path: Path, experiment: Experiment, step: int) -> None:
        self.writers = {
            experiment.seed + lane: SummaryWriter(
                str(path / "tensorboard" / f"seed-{experiment.seed + lane}"), purge_step=step + 1 if step else None
            )
            for lane in range(experiment.seeds)
        }

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            writer = self.writers[row["seed"]]
            for name, value in row.items():
                if name not in ("seed", "step"):
                    writer.add_scalar(name, value, row["step"])
            writer.flush()
