"""Checkpoints come back bit for bit, or say why not; a kill or a damaged file costs one checkpoint at most."""

import hashlib
import os
import random as python_random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl.core import checkpoint

ROOT = Path(__file__).parents[1]


class State(NamedTuple):
    params: Any
    opt_state: Any
    count: Any


def tree_at(step: int) -> State:
    """Every kind of leaf, every one a function of the step."""
    key = random.fold_in(random.key(7), step)
    return State(
        params={
            "kernel": random.normal(key, (4, 3)),
            "half": random.normal(key, (5,)).astype(jnp.bfloat16),
            "odd": jnp.array([jnp.nan, -jnp.nan, -0.0, jnp.inf, 1e-45], jnp.float32) * (step + 1),
            "a/b": jnp.float32(step),
            "a": {"b": jnp.float32(-step)},
        },
        opt_state=((), None, random.split(key, 3), random.key(step, impl="rbg")),
        count=[
            jnp.int32(step),
            jnp.arange(6, dtype=jnp.uint8).reshape(2, 3) + jnp.uint8(step % 200),
            jnp.array([True, False, step % 2 == 0]),
            jnp.zeros((0, 3), jnp.int16),
            random.split(key, 0),
        ],
    )


def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    data = random.key_data(leaf) if is_key else leaf
    return str(leaf.dtype), leaf.shape, np.asarray(data).tobytes()


def assert_same(tree: Any, expected: Any) -> None:
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True):
        assert bits(leaf) == bits(want), jax.tree_util.keystr(path)


def shapes_of(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, of steps 10 and 20. Copy before changing anything."""
    folder = tmp_path_factory.mktemp("saved")
    for step in (10, 20):
        checkpoint.save(folder, tree_at(step), step, metadata={"lines": 3 * step})
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize("template", [tree_at(0), shapes_of(tree_at(0))], ids=["arrays", "shapes"])
def test_round_trip_is_bit_equal(saved: Path, template: State) -> None:
    loaded = checkpoint.load(saved, template)
    assert (loaded.step, loaded.metadata) == (20, {"lines": 60})
    assert_same(loaded.tree, tree_at(20))


def test_what_comes_back_is_what_jit_saw_before(saved: Path) -> None:
    """Same types, weak or strong, committed or not, so that a resumed run is not compiled anew; and donatable."""
    traces = []

    def advance(tree: State) -> State:
        traces.append(1)
        return jax.tree.map(lambda leaf: leaf, tree)

    advance = jax.jit(advance, donate_argnums=0)
    advance(tree_at(20))
    advance(checkpoint.load(saved, shapes_of(tree_at(0))).tree)
    advance(checkpoint.load(saved, tree_at(0)).tree)
    assert len(traces) == 1
    assert advance._cache_size() == 1


def test_shardings_of_the_template_are_used(saved: Path) -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree_at(0))
    tree = checkpoint.load(saved, template).tree
    assert all(leaf.committed and leaf.sharding == sharding for leaf in jax.tree.leaves(tree))


def test_single_leaf_and_plain_numbers(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1.5, 1)
    assert checkpoint.load(tmp_path, 0.0).tree == 1.5
    checkpoint.save(tmp_path, random.key(3), 2)
    assert_same(checkpoint.load(tmp_path, random.key(0)).tree, random.key(3))


def test_only_arrays_and_text_on_disk(saved: Path) -> None:
    for path in files_of(saved):
        assert path.suffix not in {".pkl", ".pickle"}
        assert not path.read_bytes().startswith(b"\x80"), f"{path} starts like a pickle"  # opcode PROTO


def test_sums_are_what_sha256sum_reads(saved: Path) -> None:
    newest = max(saved.iterdir())
    for line in (newest / checkpoint.SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((newest / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("keep", [1, 3])
def test_keep(tmp_path: Path, keep: int) -> None:
    for step in range(4):
        checkpoint.save(tmp_path, {"x": jnp.full(2, step)}, step, keep=keep)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{i + 1:06d}-step-{i}" for i in range(4 - keep, 4)]
    with pytest.raises(ValueError, match="keep=0"):
        checkpoint.save(tmp_path, {"x": jnp.ones(2)}, 5, keep=0)


@pytest.mark.slow
def test_every_damage_to_every_file_is_noticed_and_named(copy: Path, subtests: pytest.Subtests) -> None:
    newest = max(copy.iterdir())
    victims = files_of(newest)
    assert len(victims) >= 5

    def flip_bit(path: Path, where: float) -> None:
        content = bytearray(path.read_bytes())
        content[int(where * (len(content) - 1))] ^= 1 << python_random.Random(0).randrange(8)
        path.write_bytes(content)

    damages = {
        "first byte": lambda path: flip_bit(path, 0.0),
        "middle byte": lambda path: flip_bit(path, 0.5),
        "last byte": lambda path: flip_bit(path, 1.0),
        "last byte cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
        "emptied": lambda path: os.truncate(path, 0),
        "removed": lambda path: path.unlink(),
    }
    for path in victims:
        whole = path.read_bytes()
        for damage, inflict in damages.items():
            if not whole:  # nothing to flip in an empty file
                continue
            with subtests.test(file=path.relative_to(newest).as_posix(), damage=damage):
                inflict(path)
                with pytest.warns(UserWarning, match=newest.name) as caught:
                    loaded = checkpoint.load(copy, tree_at(0))
                assert loaded.step == 10
                assert_same(loaded.tree, tree_at(10))
                if path.name != checkpoint.SUMS:
                    assert path.name in str(caught[0].message)
            path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (newest / ".DS_Store").write_text("left by a file manager")
        assert checkpoint.load(copy, tree_at(0)).step == 20


def test_a_run_goes_on_after_a_damaged_checkpoint(copy: Path) -> None:
    """The damaged one, of a later step, neither hides what is saved after it nor pushes it out."""
    (max(copy.iterdir()) / checkpoint.FACTS).unlink()
    checkpoint.save(copy, tree_at(15), 15)
    assert checkpoint.load(copy, tree_at(0)).step == 15
    checkpoint.save(copy, tree_at(20), 20)
    assert_same(checkpoint.load(copy, tree_at(0)).tree, tree_at(20))


def test_none_whole_and_none_at_all(copy: Path, tmp_path: Path) -> None:
    for path in copy.iterdir():
        (path / checkpoint.SUMS).unlink()
    with pytest.warns(match="Damaged"), pytest.raises(ValueError, match=r"all 2 are damaged.*step-20.*step-10"):
        checkpoint.load(copy, tree_at(0))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        checkpoint.load(tmp_path / "nowhere", tree_at(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.params.update(kernel=jnp.zeros((4, 5))), r"'kernel'.*float32\[4,3\].*float32\[4,5\]"),
        (lambda tree: tree.params.update(half=jnp.zeros(5)), r"'half'.*bfloat16\[5\].*float32\[5\]"),
        (lambda tree: tree.params.update(new=jnp.zeros(5)), r"'new'.*stored nothing, expected float32\[5\]"),
        (lambda tree: tree.params.pop("half"), r"'half'.*stored bfloat16\[5\], expected nothing"),
        (lambda tree: tree.count.__setitem__(3, jnp.zeros((0, 4), jnp.int16)), r"int16\[0,3\].*int16\[0,4\]"),
        (lambda tree: tree.count.__setitem__(4, random.split(random.key(0), 2)), r"key<fry>\[0\].*key<fry>\[2\]"),
        (lambda tree: tree.params.update(kernel=random.key(0)), r"float32\[4,3\].*key<fry>\[\]"),
    ],
)
def test_mismatch_names_leaf_and_both_shapes(saved: Path, change: Any, message: str) -> None:
    template = tree_at(0)
    change(template)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(saved, template)


@pytest.mark.slow
def test_interrupted_at_any_call_that_touches_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """Stop a save at its first, second, ... such call: the newest whole checkpoint is the old one or the new one."""
    for step in (1, 2):
        checkpoint.save(tmp_path, tree_at(step), step)
    for stop_at in range(200):
        with subtests.test(stop_at=stop_at):
            folder = Path(shutil.copytree(tmp_path, tmp_path.with_name(f"stopped-{stop_at}")))
            calls = iter(range(10_000))

            def stopping(call: Any, calls: Any = calls, stop_at: int = stop_at) -> Any:
                def wrapped(*args: Any, **kwargs: Any) -> Any:
                    if next(calls) == stop_at:
                        raise KeyboardInterrupt
                    return call(*args, **kwargs)

                return wrapped

            with monkeypatch.context() as patch:
                patch.setattr(checkpoint.os, "fsync", stopping(os.fsync))
                patch.setattr(checkpoint.shutil, "rmtree", stopping(shutil.rmtree))
                for name in ("mkdir", "rename", "write_text"):
                    patch.setattr(Path, name, stopping(getattr(Path, name)))
                try:
                    checkpoint.save(folder, tree_at(3), 3, keep=1)
                    finished = True
                except KeyboardInterrupt:
                    finished = False
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                loaded = checkpoint.load(folder, tree_at(0))
            assert loaded.step in ((3,) if finished else (2, 3))
            assert_same(loaded.tree, tree_at(loaded.step))
            checkpoint.save(folder, tree_at(4), 4)
            assert sorted(path.name.partition("-step-")[2] for path in folder.iterdir()) == [str(loaded.step), "4"]
        if finished:
            break
    assert finished and stop_at > 15


def test_all_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    flush, rename = os.fsync, Path.rename

    def record(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        flush(descriptor)

    def check(path: Path, target: Path) -> None:
        missing = [entry for entry in [path, *path.rglob("*")] if entry.stat().st_ino not in flushed]
        assert not missing
        flushed.clear()
        rename(path, target)

    monkeypatch.setattr(checkpoint.os, "fsync", record)
    monkeypatch.setattr(Path, "rename", check)
    checkpoint.save(tmp_path, tree_at(1), 1)
    assert tmp_path.stat().st_ino in flushed  # and the rename itself after it


CHILD = """
import sys
import numpy as np
from jaxrl.core import checkpoint

step = int(sys.argv[2])
while True:
    step += 1
    tree = {"value": np.full(3, step, np.int32), "large": np.full(200_000, step, np.float32)}
    checkpoint.save(sys.argv[1], tree, step, metadata={"lines": 10 * step})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    template = {"value": jnp.zeros(3, jnp.int32), "large": jnp.zeros(200_000)}
    generator = python_random.Random(0)
    reported = 0
    leftovers = 0
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(reported)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == f"{reported + 1}\n"
        time.sleep(generator.uniform(0.0, 0.2))
        child.send_signal(signal.SIGKILL)
        reported = int([str(reported + 1), *child.stdout.read().split()][-1])
        child.wait()
        leftovers += (tmp_path / checkpoint.TEMPORARY).exists()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = checkpoint.load(tmp_path, template)
        assert loaded.step in (reported, reported + 1)  # killed between the rename and the report
        assert loaded.metadata == {"lines": 10 * loaded.step}
        assert all((leaf == loaded.step).all() for leaf in jax.tree.leaves(loaded.tree))
        reported = loaded.step
    assert leftovers, "no kill hit a save: nothing was tested"
