"""The arrows: a module imports from its own layer and from those to its left, and importing rlx stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rlx"
LAYERS = ["types", "ops", "nets", "envs", "core", "lm", "algorithms", "experiments", "cli"]
MODULES = sorted(PACKAGE.rglob("*.py"))


def rlx_imports(path):
    """Dotted names below rlx that a file imports, wherever it does so: `from rlx.core.learn import x` -> core.learn."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("rlx").removeprefix(".") for name in names if name.split(".")[0] == "rlx")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path):
    layer, *rest = path.relative_to(PACKAGE).with_suffix("").parts
    if layer in ("__init__", "__main__"):
        return
    for name in rlx_imports(path):
        if not name:  # `import rlx`: the public names, algorithms included
            assert layer in ("experiments", "cli"), f"{layer} imports rlx itself"
            continue
        assert name.split(".")[0] in LAYERS[: LAYERS.index(layer) + 1], f"{layer} imports {name}"
        if layer == "algorithms" and name.startswith("algorithms.") and rest != ["__init__"]:
            assert name.split(".")[1] == rest[0], f"one algorithm imports another: {name}"


def test_import_is_light():
    heavy = [
        "orbax",
        "matplotlib",
        "tyro",
        "scipy.stats",
        "torch",
        "pygame",
        "moviepy",
        "imageio_ffmpeg",
        "gymnax",
        "brax",
    ]
    code = f"import sys, rlx; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
