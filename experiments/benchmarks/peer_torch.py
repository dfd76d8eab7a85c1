"""A plain PyTorch loop as a contestant: the autoencoder or the PixelCNN of the task (see `protocol.py`)."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
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


class Masked(nn.Conv2d):
    """A convolution whose kernel is multiplied by a mask: nothing below or to the right, itself only if `center`."""

    def __init__(self, in_size, out_size, kernel, center):
        super().__init__(in_size, out_size, kernel, padding=kernel // 2)
        mask = torch.zeros(kernel, kernel)
        mask[: kernel // 2] = 1
        mask[kernel // 2, : kernel // 2 + center] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)

    def visible(self) -> int:
        """The number of its parameters that the mask leaves."""
        return int(self.mask.sum()) * self.in_channels * self.out_channels + self.out_channels


class PixelCNN(nn.Module):
    """A masked convolution, residual blocks with one each, two layers that see a pixel alone; Bernoulli likelihood."""

    def __init__(self, side, features, num_blocks, first_kernel, kernel, head):
        super().__init__()
        self.side = side
        wide = 2 * features
        self.first = Masked(1, wide, first_kernel, center=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(wide, features, 1),
                nn.ReLU(),
                Masked(features, features, kernel, center=True),
                nn.ReLU(),
                nn.Conv2d(features, wide, 1),
            )
            for _ in range(num_blocks)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(wide, head, 1), nn.ReLU(), nn.Conv2d(head, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the log-likelihood, mean over `x`."""
        x = x.view(-1, 1, self.side, self.side)
        return functional.binary_cross_entropy_with_logits(self(x), x, reduction="sum") / len(x)


def build(task: dict[str, Any]) -> nn.Module:
    """The network of a task.

    Raises:
        ValueError: a number of parameters that is not the task's.
    """
    if task["algorithm"] == "vae":
        return Autoencoder(task["side"] ** 2, task["hidden"], task["latent_size"])
    sizes = ("side", "features", "num_blocks", "first_kernel", "kernel", "head")
    model = PixelCNN(**{name: task[name] for name in sizes})
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    count = sum(
        conv.visible() if isinstance(conv, Masked) else sum(each.numel() for each in conv.parameters())
        for conv in convolutions
    )
    if count != task["num_parameters"]:
        raise ValueError(f"{count:,} parameters where the task has {task['num_parameters']:,}.")
    return model


def begin_at_mean(model: Autoencoder, images: torch.Tensor) -> None:
    """Let `model` begin with the mean of `images` at its outputs, as the other contestant does."""
    with torch.no_grad():
        model.decoder[-1].bias += torch.logit(images.mean(0), eps=0.001)


def batches(images: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """All of `images` in a new order, again and again."""
    while True:
        for chosen in torch.randperm(len(images), device=images.device).split(size):
            yield images[chosen]


def start(task: dict[str, Any]) -> protocol.Ready:
    """Nothing is compiled; one batch warms caches. A round trains a new model; its score is left out of its seconds."""
    size, batch_size = task["side"] ** 2, task["batch_size"]
    bound = task.get("max_grad_norm", math.inf) * size
    stored = np.load(task["file"])
    train, test = (torch.from_numpy(stored[split]).float().flatten(1) for split in ("train", "test"))
    train = train[: task["num_images"]]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, test = train.to(device), test.to(device)

    def fit(steps):
        model = build(task).to(device)
        if task["algorithm"] == "vae":
            begin_at_mean(model, train)
        optimizer = torch.optim.Adam(model.parameters(), lr=task["learning_rate"])
        for batch in islice(batches(train, batch_size), steps):
            optimizer.zero_grad()
            model.loss(batch).backward()
            if bound < math.inf:
                nn.utils.clip_grad_norm_(model.parameters(), bound)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return model

    def score(model):
        with torch.no_grad():
            return sum(model.loss(batch).item() * len(batch) for batch in test.split(batch_size)) / len(test)

    def play(number):
        torch.manual_seed(number)
        steps = task["torch_steps"] // batch_size
        begin = time.perf_counter()
        model = fit(steps)
        seconds = time.perf_counter() - begin
        return protocol.Round(steps * batch_size, seconds, score(model), steps * batch_size)

    begin = time.perf_counter()
    fit(1)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return protocol.Ready(play, time.perf_counter() - begin, name, ("torch",))


if __name__ == "__main__":
    protocol.serve(start)
