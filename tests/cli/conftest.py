import os
import shutil
import signal

import jax
import pytest
from cli_runs import CARTPOLE, alive, run, started


@pytest.fixture(autouse=True)
def leftovers():
    """End the processes that a failed test left, their children too."""
    yield
    while started:
        process = started.pop()
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A run that nothing broke; read it, or copy it (`broken`) to change it."""
    folder = tmp_path_factory.mktemp("cli") / "reference"
    assert run(*CARTPOLE, "--out", folder) == 0
    return folder


@pytest.fixture
def broken(reference, tmp_path):
    """A copy of the run as it stood before its end: no result yet. The test breaks it further."""
    folder = shutil.copytree(reference, tmp_path / "broken")
    (folder / "result.json").unlink()
    (folder / "curve.png").unlink()
    return folder


@pytest.fixture
def nans():
    """Let NaNs happen, as they do outside the tests."""
    jax.config.update("jax_debug_nans", False)
    yield
    jax.config.update("jax_debug_nans", True)
