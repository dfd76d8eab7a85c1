"""Imports only go down, each third-party library has its one door, and only `experiments` touches the world.

The whole rule is the four tables below. To change the house, change them in the same commit and say why.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Floor: the floors its files may import from. A file belongs to the longest floor that its path begins with.
FLOORS = {
    "jaxrl/core": ["jaxrl/core"],
    "jaxrl": ["jaxrl", "jaxrl/core"],
    "jaxrl/algorithms": ["jaxrl", "jaxrl/core"],
    "generative": ["generative", "jaxrl/core"],
    "generative/models": ["generative", "jaxrl/core"],
    "experiments": ["experiments", "generative", "generative/models", "jaxrl", "jaxrl/algorithms", "jaxrl/core"],
}

# Library: the only files that may import it, so that it can be replaced in one place.
DOORS = {
    "flax": ["jaxrl/core/networks.py", "generative/layers.py"],
    "gymnax": ["jaxrl/envs_gymnax.py"],
    "brax": ["jaxrl/envs*"],
    "orbax": ["jaxrl/core/checkpoint.py"],
    "sklearn": ["generative/datasets.py", "generative/disentanglement.py"],
    "pooch": ["generative/datasets.py"],
    "scipy": ["jaxrl/core/sweep.py", "generative/waves.py"],
    "xarray": ["jaxrl/core/results.py", "experiments/*"],
    "matplotlib": ["experiments/*"],
    "tensorboardX": ["experiments/*"],
    "tqdm": ["experiments/*"],
    "tyro": ["experiments/*"],
}

# Libraries that are slow to import or optional: inside the function that needs them, never at the top of a file.
LATE = ["brax", "orbax", "pooch", "scipy", "sklearn", "tensorboardX", "xarray"]

# What the library, everything but `experiments`, may not do: the names, the files excused, the mend.
# A plain name counts where it is imported or used, ".name" as any object's method, "import name" as a module only.
WORLD = [
    (["print", "breakpoint", "jax.debug"], [], "return it as a metric; experiments prints"),
    (["import time", "import datetime", "import timeit"], [], "measure in experiments; the library owns no clock"),
    (
        [".open for writing", ".write_text", ".write_bytes", ".to_netcdf", ".mkdir"],
        ["jaxrl/core/checkpoint.py", "jaxrl/core/results.py"],
        "let experiments write files",
    ),
    (["jax.jit"], [], "leave jit to the caller, who knows what else goes into the program"),
    (
        ["jax.pure_callback", "jax.experimental.io_callback"],
        [],
        "a callback in a scan unrolls under vmap: return metrics",
    ),
]


def files() -> list[str]:
    """Every Python file of ours, "jaxrl/core/loop.py" say."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for package in ("jaxrl", "generative", "experiments")
        for path in (ROOT / package).rglob("*.py")
    )


def floor_of(path: str) -> str:
    return max((floor for floor in FLOORS if path.startswith(f"{floor}/")), key=len)


def imports(tree: ast.Module, path: str) -> Iterator[tuple[ast.stmt, str]]:
    """Dotted names of everything imported; `from a import b` gives a.b, a module or a name in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.split("/")[: -node.level] if node.level else []
            base = [*package, *([node.module] if node.module else [])]
            yield from ((node, ".".join([*base, alias.name])) for alias in node.names)


def file_of(module: str, known: list[str]) -> str | None:
    """The file of ours that an imported dotted name lies in, None if it is not ours."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        stem = "/".join(parts[:end])
        for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
            if candidate in known:
                return candidate
    return None


def dotted(node: ast.expr) -> str:
    """`jax.debug.print` of the expression that says so; what hangs on a call or an index counts from there."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def deeds(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything imported, used or opened for writing."""
    for statement, module in imports(tree, path):
        yield statement.lineno, f"import {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            yield node.lineno, dotted(node)
        if isinstance(node, ast.Call) and f".{dotted(node.func)}".endswith(".open"):
            # open(path, mode), gzip.open(path, mode) or path.open(mode)
            modes = node.args[1:2] if isinstance(node.func, ast.Name) else node.args[:2]
            modes = [*modes, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            if any(
                isinstance(mode, ast.Constant) and re.fullmatch("[rbt]*[wax+][bt+]*", str(mode.value)) for mode in modes
            ):
                yield node.lineno, ".open for writing"


def does(name: str, deed: str) -> bool:
    """Whether a name that `deeds` gave is one that WORLD speaks of."""
    if deed.startswith("."):
        return name.endswith(deed)
    name = name if deed.startswith("import ") else name.removeprefix("import ")
    return name == deed or name.startswith(f"{deed}.")


def faults(path: str, source: str, known: list[str]) -> list[str]:
    """Every breach of the tables in one file, each with what to do about it."""
    tree = ast.parse(source)
    floor = floor_of(path)
    found = []
    for statement, module in imports(tree, path):
        where = f"{path}:{statement.lineno} imports {module}"
        library = module.split(".")[0]
        if (target := file_of(module, known)) is not None:
            if floor_of(target) not in FLOORS[floor]:
                found.append(
                    f"{where}, of the floor {floor_of(target)}: {floor} may import only from "
                    f"{' and '.join(FLOORS[floor])}. Move what both need to the highest floor that both may import."
                )
        elif library in DOORS:
            if not any(fnmatch(path, door) for door in DOORS[library]):
                found.append(f"{where}: {library} has its door in {' and '.join(DOORS[library])} alone. Go through it.")
            if library in LATE and statement in tree.body:
                found.append(
                    f"{where} at the top: {library} is slow or optional. Import it in the function that uses it."
                )
    if floor != "experiments":
        for line, name in sorted(set(deeds(tree, path))):
            for names, excused, mend in WORLD:
                if path not in excused and any(does(name, deed) for deed in names):
                    found.append(f"{path}:{line}: {name}. Rather {mend}.")
    return found


@pytest.mark.parametrize("path", files())
def test_file_keeps_to_its_floor(path: str) -> None:
    found = faults(path, (ROOT / path).read_text(), files())
    assert not found, "\n".join(found)


PLANTED = [
    ("jaxrl/core/loop.py", "from jaxrl import envs", "of the floor jaxrl:"),
    ("jaxrl/core/loop.py", "import jaxrl.envs", "of the floor jaxrl:"),
    ("jaxrl/core/loop.py", "from ..envs import make", "of the floor jaxrl:"),
    ("jaxrl/core/loop.py", "def f():\n    from generative import data", "of the floor generative:"),
    ("jaxrl/envs.py", "from jaxrl.algorithms import ppo", "of the floor jaxrl/algorithms:"),
    ("jaxrl/envs.py", "from experiments import presets", "of the floor experiments:"),
    ("jaxrl/algorithms/dqn.py", "from jaxrl.algorithms import ppo", "of the floor jaxrl/algorithms:"),
    ("jaxrl/algorithms/dqn.py", "from jaxrl.algorithms.ppo import loss", "of the floor jaxrl/algorithms:"),
    ("jaxrl/algorithms/dqn.py", "from . import ppo", "of the floor jaxrl/algorithms:"),
    ("jaxrl/algorithms/dqn.py", "import generative.data", "of the floor generative:"),
    ("generative/data.py", "from generative.models import vae", "of the floor generative/models:"),
    ("generative/data.py", "from jaxrl import envs", "of the floor jaxrl:"),
    ("generative/models/gan.py", "from generative.models.vae import loss", "of the floor generative/models:"),
    ("jaxrl/algorithms/ppo.py", "from flax import linen as nn", "flax has its door in"),
    ("experiments/cli.py", "import gymnax", "gymnax has its door in"),
    ("jaxrl/core/loop.py", "def f():\n    import orbax.checkpoint", "orbax has its door in"),
    ("jaxrl/core/checkpoint.py", "import orbax.checkpoint", "at the top"),
    ("jaxrl/core/results.py", "import xarray", "at the top"),
    ("experiments/log.py", "import tensorboardX", "at the top"),
    ("jaxrl/core/loop.py", "print(1)", "experiments prints"),
    ("jaxrl/core/loop.py", "import jax\njax.debug.print('{}', 1)", "experiments prints"),
    ("jaxrl/core/loop.py", "from jax import debug\ndebug.print('{}', 1)", "experiments prints"),
    ("jaxrl/core/loop.py", "from time import perf_counter", "no clock"),
    ("jaxrl/core/loop.py", "import datetime", "no clock"),
    ("generative/data.py", "open('x', 'w')", "write files"),
    ("generative/data.py", "path.open(mode='ab')", "write files"),
    ("generative/data.py", "(path / 'x').write_text('')", "write files"),
    ("jaxrl/core/loop.py", "import jax\n@jax.jit\ndef f(x): return x", "leave jit to the caller"),
    ("jaxrl/core/loop.py", "from jax import jit", "leave jit to the caller"),
    ("jaxrl/core/loop.py", "from jax.experimental import io_callback", "unrolls under vmap"),
]
ALLOWED = [
    ("jaxrl/core/loop.py", "from jaxrl.core import schedule"),
    ("jaxrl/core/loop.py", "def f(time, step):\n    return step.time + time"),
    ("jaxrl/core/checkpoint.py", "def f():\n    import orbax.checkpoint\n    path.write_text('')"),
    ("jaxrl/algorithms/ppo.py", "from jaxrl import envs, rollout\nfrom jaxrl.core import fit\nimport optax"),
    ("jaxrl/envs_brax.py", "def f():\n    import brax"),
    ("generative/data.py", "open('x', 'rb')\nopen('w.txt')"),
    ("generative/models/vae.py", "from generative import data\nfrom jaxrl.core import fit"),
    ("experiments/cli.py", "import time, jax\nfrom jaxrl.algorithms import ppo\njax.jit(print)"),
]
KNOWN = [*{path for path, *_ in [*PLANTED, *ALLOWED]}, "jaxrl/core/schedule.py", "jaxrl/core/fit.py"]
KNOWN += ["jaxrl/rollout.py", "experiments/presets/__init__.py"]
KNOWN += [f"{package}/__init__.py" for package in FLOORS]


@pytest.mark.parametrize(("path", "source", "message"), PLANTED)
def test_planted_breach_is_found(path: str, source: str, message: str) -> None:
    found = faults(path, source, KNOWN)
    assert len(found) >= 1
    assert all(message in fault for fault in found), found


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert faults(path, source, KNOWN) == []


@pytest.mark.parametrize(
    ("floors", "strangers"),
    [
        (["jaxrl/core", "generative"], ["gymnax", "matplotlib", "pandas", *LATE, "tensorstore", "tqdm", "tyro"]),
        (
            ["jaxrl/core", "jaxrl/algorithms"],
            ["gymnax", "matplotlib", "pandas", "libtpu", *(set(LATE) - {"scipy"}), "tensorstore", "tqdm", "tyro"],
        ),
        (["jaxrl/core", "jaxrl", "generative"], ["brax", "orbax", "pooch", "sklearn", "tensorstore", "tqdm", "tyro"]),
    ],
    ids=["core and generative", "core and algorithms", "whole library"],
)
def test_importing_the_library_stays_light(floors: list[str], strangers: list[str]) -> None:
    """Nothing comes in by way of others either. (Gymnax itself draws in matplotlib and pandas.)"""
    ours = [path for path in files() if path.startswith(tuple(f"{floor}/" for floor in floors))]
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in ours]
    script = f"import sys, {', '.join(modules)}; print(*({{*{strangers!r}, 'tensorflow', 'torch'}} & {{*sys.modules}}))"
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == []
