"""Sounds: the mu-law, and WAV files from the bytes to a model and back."""

import wave
from pathlib import Path

import numpy as np
import pytest

from experiments import cli, folder, sampling
from generative import data, waves


def write(path, values, width, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 8000, 0, "NONE", "not compressed"))
        file.writeframes(values)


def test_the_law_by_hand():
    """Of G.711's curve with mu = 255, half the pressure is at ln(128.5) / ln(256) of the levels above silence."""
    np.testing.assert_array_equal(waves.encode(np.array([-1.0, 1.0]), 256), [0, 255])
    half = np.log(128.5) / np.log(256)
    assert waves.encode(np.array([0.5]), 256)[0] == round(127.5 * (1 + half))
    levels = np.arange(256)
    np.testing.assert_array_equal(waves.encode(waves.decode(levels, 256), 256), levels)
    steps = np.diff(waves.decode(levels, 256))
    assert (steps > 0).all() and steps[0] > 50 * steps[127]


@pytest.mark.parametrize(("kind", "width"), [("u1", 1), ("<i2", 2), ("<i4", 4)])
def test_every_width_is_read(tmp_path, kind, width):
    """The first of two channels, from the lowest number to the highest."""
    info = np.iinfo(kind)
    values = np.array([info.min, info.max // 2 + (width == 1), info.max], kind)
    write(tmp_path / "a.wav", np.stack([values, values[::-1]], 1).tobytes(), width, channels=2)
    middle = 0.0 if width == 1 else 0.5
    np.testing.assert_allclose(waves.read_wav(tmp_path / "a.wav"), [-1, middle, 1], atol=0.01)


def test_what_is_written_is_read(tmp_path):
    x = np.sin(np.arange(500))
    sampling.write_wav(tmp_path / "a.wav", x)
    np.testing.assert_allclose(waves.read_wav(tmp_path / "a.wav"), x, atol=1e-4)


def test_other_files_are_refused(tmp_path):
    write(tmp_path / "a.wav", bytes(9), 3)
    with pytest.raises(ValueError, match="samples of 24 bits: convert it to 16"):
        waves.read_wav(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"RIFF, or so it says")
    with pytest.raises(ValueError, match="no WAV file of integers"):
        waves.read_wav(tmp_path / "b.wav")
    sampling.write_wav(tmp_path / "c.wav", np.zeros(20))
    with pytest.raises(ValueError, match=r"the 20 samples of .* give fewer than 3 pieces of length=8"):
        data.load("wav", tmp_path, file="c.wav", length=8)


@pytest.mark.slow
def test_a_model_learns_from_a_file_and_writes_one(tmp_path, monkeypatch):
    """Better than a uniform guess after a moment; what is drawn is a WAV file of all samples one after another."""
    monkeypatch.chdir(tmp_path)
    sampling.write_wav("a.wav", np.sin(np.arange(4096) / 3))
    words = "train wavenet --data wav --data-folder . --data-kwargs file=a.wav length=64 levels=16 --num-layers 3"
    assert cli.main([*words.split(), *"--steps 3200 --evaluations 1 --learning-rate 0.003 --run-dir run".split()]) == 0
    last = folder.read_metrics(Path("run"))[-1]
    assert last["eval/nll"] < 0.7 * 64 * np.log(16)
    assert cli.main("sample run --count 3 --out drawn.wav".split()) == 0
    assert waves.read_wav("drawn.wav").shape == (3 * 64,)
