"""A plain PyTorch loop as a contestant: the variational autoencoder of the task (see `protocol.py`)."""

import time
from collections.abc import Callable
from typing import Any

import protocol
import torch
from torch import nn
from torch.nn import functional


class Autoencoder(nn.Module):
    """Two tanh layers each way, Bernoulli likelihood."""

    def __init__(self, size, hidden, latent_size):
        super().__init__()
        first, second = hidden
        self.encoder = nn.Sequential(
            nn.Linear(size, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, 2 * latent_size)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_size, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, size)
        )

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the evidence lower bound, mean over `x`."""
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        logits = self.decoder(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))
        distortion = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        rate = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        return (distortion + rate) / len(x)


def start(task: dict[str, Any]) -> tuple[Callable[[int], protocol.Round], float]:
    """Nothing is compiled; one batch warms caches."""
    size = task["side"] ** 2
    images = torch.randint(0, 2, (task["num_images"], size)).float()
    model = Autoencoder(size, task["hidden"], task["latent_size"])
    optimizer = torch.optim.Adam(model.parameters(), lr=task["learning_rate"])

    def step(batch):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()

    def play(number):
        done = 0
        begin = time.perf_counter()
        while done < task["torch_steps"]:
            for chosen in torch.randperm(len(images)).split(task["batch_size"]):
                step(images[chosen])
                done += len(chosen)
        return protocol.Round(done, time.perf_counter() - begin, None)

    begin = time.perf_counter()
    step(images[: task["batch_size"]])
    return play, time.perf_counter() - begin


if __name__ == "__main__":
    protocol.serve(start)
