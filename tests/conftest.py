"""Shared fixtures: where the real faces are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of labelled research images beside the project, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "index.csv").is_file():
        pytest.skip("needs the research images in ../shared/data, which are not distributed with the project")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """Eileen Collins, (512, 512, 3) uint8 RGB: one real face that ships with scikit-image (public domain, NASA)."""
    from skimage import data

    return data.astronaut()
