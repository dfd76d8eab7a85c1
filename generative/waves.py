"""Sounds made here or read from a WAV file, in the mu-law levels that WaveNet predicts.

Axes: N examples, T samples of an example.
"""

import wave
from pathlib import Path

import numpy as np


def encode(x: np.ndarray, levels: int) -> np.ndarray:
    """Sound pressure `x` [...] in [-1, 1] as integers below `levels`, finer where it is quiet (ITU-T G.711)."""
    mu = levels - 1
    compressed = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    return np.rint((compressed + 1) / 2 * mu).astype(np.uint8 if levels <= 256 else np.int32)


def decode(x: np.ndarray, levels: int) -> np.ndarray:
    """The inverse of `encode` up to rounding: integers [...] below `levels` as sound pressure in [-1, 1]."""
    mu = levels - 1
    compressed = 2 * np.asarray(x, np.float64) / mu - 1
    return np.sign(compressed) * np.expm1(np.abs(compressed) * np.log1p(mu)) / mu


def sines(generator: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Sums [N, T] of three sines each, with periods of 8 to 64 samples and random phases, in [-1, 1]."""
    period = np.exp(generator.uniform(np.log(8), np.log(64), size=(count, 3, 1)))
    phase, height = generator.uniform(0, 2 * np.pi, period.shape), generator.uniform(0.2, 1, period.shape)
    waves = height / height.sum(1, keepdims=True) * np.sin(2 * np.pi * np.arange(length) / period + phase)
    return waves.sum(1)


def strings(generator: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Plucked strings [N, T] of 8 to 64 samples' period (Karplus and Strong 1983): noise that a loop slowly smooths."""
    plucked = np.zeros((count, length))
    for sound, period in zip(plucked, generator.integers(8, 65, size=count), strict=True):
        loop = generator.uniform(-1, 1, size=period + 1)
        for start in range(0, length, period):
            part = min(period, length - start)
            sound[start : start + part] = loop[:part]
            smoothed = 0.498 * (loop[:-1] + loop[1:])
            loop = np.append(smoothed, smoothed[0])
    return plucked


def read_wav(path: str | Path) -> np.ndarray:
    """The first channel of a WAV file of 8, 16 or 32 bits, in [-1, 1].

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or of another kind.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels = file.getsampwidth(), file.getnchannels()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no WAV file of integers ({error}): convert it.") from error
    kinds = {1: "u1", 2: "<i2", 4: "<i4"}
    if width not in kinds:
        raise ValueError(f"{path} has samples of {8 * width} bits: convert it to 16.")
    values = np.frombuffer(raw, np.dtype(kinds[width]))[::channels].astype(np.float64)
    return (values - 128) / 128 if width == 1 else values / 2 ** (8 * width - 1)
