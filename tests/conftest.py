"""Strictness by machine, set in the environment before JAX is imported, so that subprocesses inherit it."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlx-tests"  # compiled programs: quick reruns

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_DEBUG_NANS": "True",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
}

VECTORS = ROOT.parent / "shared" / "vectors" / "vectors.json"


@pytest.fixture(autouse=True)
def few_programs():
    """Drop compiled programs before they are too many: each takes a dozen memory maps, of which Linux grants 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 15_000:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="session")
def vectors():
    """Numbers that other libraries (verl, OpenRLHF) gave for the same inputs; kept beside the repository."""
    if not VECTORS.is_file():
        pytest.skip(f"{VECTORS} is not there")
    return json.loads(VECTORS.read_text())
