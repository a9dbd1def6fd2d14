import pytest
from lm_files import REAL


@pytest.fixture
def real():
    """A folder of real text and comparisons."""
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there")
    return REAL
