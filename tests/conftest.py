"""Shared fixtures: where the real faces are."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image

from tests.official import write_all
from tests.photographs import AlignedCrops, aligned_crops

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of labelled research images beside the project, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "index.csv").is_file():
        pytest.skip(
            "needs the research images in ../shared/data, which are not distributed with the project"
        )
    return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """Eileen Collins, (512, 512, 3) uint8 RGB: one real face that ships with scikit-image (public domain, NASA)."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def hopper() -> np.ndarray:
    """Grace Hopper, (600, 512, 3) uint8 RGB; ships with Matplotlib (public domain, US Navy)."""
    package = Path(find_spec("matplotlib").origin).parent
    with Image.open(package / "mpl-data" / "sample_data" / "grace_hopper.jpg") as image:
        return np.asarray(image)


@pytest.fixture(scope="session")
def crops(astronaut: np.ndarray, hopper: np.ndarray) -> AlignedCrops:
    """Four aligned crops of the two."""
    return aligned_crops(astronaut, hopper)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Steps of a few milliseconds: several threads would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def official_weights() -> Iterator[Path]:
    """A folder with the files of the published experts in their official formats, with random values. It goes afterwards."""
    with TemporaryDirectory() as folder:
        yield write_all(Path(folder))
