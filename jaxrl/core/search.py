"""Which lanes are worth their steps: all to the end, or fewer and fewer (successive halving)."""

from dataclasses import dataclass

from jaxrl.core import checks


@dataclass(frozen=True)
class Everything:
    """Every lane to the end of its run."""

    def stops(self, num_chunks: int) -> list[int]:
        """Chunks done when lanes may be dropped, the end of the run included."""
        return [num_chunks]

    def kept(self, num_points: int) -> int:
        """How many of the best points go on from a stop."""
        return num_points


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943, figure 3).

    At each stop the worst points are dropped, with all their seeds, and the others go on for `factor` times as long as
    they have run: each stage costs about as many steps as the one before. A point that is never dropped is run as it
    would have been alone, schedules included.
    """

    factor: int = 3  # one point in so many goes on
    stages: int = 3  # the last one ends with the run

    def stops(self, num_chunks: int) -> list[int]:
        """Chunks done when lanes may be dropped, the end of the run included.

        Raises:
            ValueError: fewer chunks than the first stage needs parts, or no factor or stages to speak of.
        """
        checks.at_least_one(stages=self.stages)
        if self.factor < 2:
            raise ValueError(f"factor={self.factor} must be at least 2: one point in so many goes on.")
        first = self.factor ** (self.stages - 1)
        if num_chunks < first:
            raise ValueError(
                f"The first of {self.stages} stages is a part in {first} of the run, which has only {num_chunks} "
                f"evaluations: use at least {first} of them, or fewer stages."
            )
        return [round(num_chunks / self.factor ** (self.stages - 1 - stage)) for stage in range(self.stages)]

    def kept(self, num_points: int) -> int:
        """How many of the best points go on from a stop."""
        return max(1, num_points // self.factor)
