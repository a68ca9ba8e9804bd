import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("STREAMTRAIN_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture
def published():
    """Folder with the data sets as they are published."""
    if not FOLDER.is_dir():
        pytest.skip(f"no data sets in {FOLDER} (STREAMTRAIN_DATA names another folder)")
    return FOLDER
