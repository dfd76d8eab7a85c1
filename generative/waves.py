"""Sounds made here or read from a WAV file, in the mu-law levels that WaveNet predicts.

Axes: N examples, T samples of an example.
"""

import struct
import warnings
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


def read_wav(path: str | Path) -> tuple[np.ndarray, int]:
    """The mean of a WAV file's channels, in [-1, 1], and its rate in samples a second.

    Integers of 8 to 32 bits are read and real numbers, which are cut off beyond -1 and 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, cut short or of another kind.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of notes that came with the sound
            warnings.filterwarnings("error", "Reached EOF prematurely")
            rate, values = wavfile.read(path)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError, struct.error, wavfile.WavFileWarning) as error:
        raise ValueError(f"{path} is no whole WAV file of plain samples ({error}): replace or convert it.") from error
    kind = values.dtype
    if np.issubdtype(kind, np.integer):
        half = 2.0 ** (8 * kind.itemsize - 1)
        values = values / half - (1 if kind == np.uint8 else 0)
    return np.clip(values.reshape(len(values), -1).mean(-1, dtype=np.float64), -1, 1), rate
