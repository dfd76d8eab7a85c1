"""Sounds: the mu-law, and WAV files from the bytes to a model and back."""

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from experiments import cli, folder, sampling
from generative import datasets, waves


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


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_every_width_is_read(tmp_path, bits):
    """From the lowest number to the highest, of two channels whose mean is half of the first."""
    width, top = bits // 8, 2 ** (bits - 1)
    offset = top if bits == 8 else 0
    values = np.array([[-top, 0], [0, 0], [top // 2, 0], [top - 1, top - 1]]) + offset
    write(tmp_path / "a.wav", values.astype("<i8")[..., None].view("u1")[..., :width].tobytes(), width, channels=2)
    x, rate = waves.read_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(x, [-0.5, 0, 0.25, 1], atol=2 / top)
    assert rate == 8000


def test_real_numbers_and_extended_headers_are_read(tmp_path):
    wavfile.write(tmp_path / "a.wav", 22050, np.array([0.25, -1.5, 1], np.float32))
    x, rate = waves.read_wav(tmp_path / "a.wav")
    np.testing.assert_array_equal(x, [0.25, -1, 1])
    assert rate == 22050
    values = np.array([0, 2**14, -(2**15)], "<i2").tobytes()
    header = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 44100, 88200, 2, 16, 22, 16, 4, 1)
    header += bytes.fromhex("000000001000800000aa00389b71")  # of any such file
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(values)) + values
    (tmp_path / "b.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    x, rate = waves.read_wav(tmp_path / "b.wav")
    np.testing.assert_array_equal(x, [0, 0.5, -1])
    assert rate == 44100


def test_what_is_written_is_read(tmp_path):
    x = np.sin(np.arange(500))
    sampling.write_wav(tmp_path / "a.wav", x, 11025)
    read, rate = waves.read_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(read, x, atol=1e-4)
    assert rate == 11025


def test_a_file_is_found_in_the_data_folder(tmp_path, monkeypatch):
    sampling.write_wav(tmp_path / "a.wav", np.zeros(80), 11025)
    monkeypatch.setenv(datasets.FOLDER_VARIABLE, str(tmp_path))
    spec, _ = datasets.load("wav", file="a.wav", length=8)
    assert (spec.shape, spec.rate) == ((8,), 11025)
    with pytest.raises(FileNotFoundError, match=f"wav: b.wav is no file, .* in {tmp_path}: name the folder"):
        datasets.load("wav", file="b.wav")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "b.wav").write_bytes(b"RIFF, or so it says")
    with pytest.raises(ValueError, match=r"b\.wav is no whole WAV file"):
        waves.read_wav(tmp_path / "b.wav")
    sampling.write_wav(tmp_path / "c.wav", np.zeros(20))
    whole = (tmp_path / "c.wav").read_bytes()
    for length in (0, 30, 44, len(whole) - 20, len(whole) - 1):
        (tmp_path / "b.wav").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"b\.wav is no whole WAV file"):
            waves.read_wav(tmp_path / "b.wav")
    with pytest.raises(ValueError, match=r"which file\? Give --data-kwargs file=name\.wav"):
        datasets.load("wav", tmp_path)
    with pytest.raises(ValueError, match=r"the 20 samples of .* give fewer than 3 pieces of length=8"):
        datasets.load("wav", tmp_path, file="c.wav", length=8)


@pytest.mark.slow
def test_a_model_learns_from_a_file_and_writes_one(tmp_path, monkeypatch):
    """Better than a uniform guess after a moment; what is drawn is a WAV file of all samples one after another."""
    monkeypatch.chdir(tmp_path)
    sampling.write_wav("a.wav", np.sin(np.arange(4096) / 3), 11025)
    words = "train wavenet --data wav --data-folder . --data-kwargs file=a.wav length=64 levels=16 --num-layers 3"
    assert cli.main([*words.split(), *"--steps 3200 --evaluations 1 --learning-rate 0.003 --run-dir run".split()]) == 0
    last = folder.read_metrics(Path("run"))[-1]
    assert last["eval/nll"] < 0.7 * 64 * np.log(16)
    assert cli.main("sample run --count 3 --out drawn.wav".split()) == 0
    drawn, rate = waves.read_wav("drawn.wav")
    assert drawn.shape == (3 * 64,) and rate == 11025
