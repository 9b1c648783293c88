"""Shared fixtures: where the real faces are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from models.weights import WEIGHTS
from tests.official import write_all

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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Steps of a few milliseconds: several threads would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def official_weights() -> Iterator[Path]:
    """A folder with the files of the published experts in their official formats, with random values: no SHA-256 holds."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, entry in WEIGHTS.items():
            patch.setitem(WEIGHTS, name, replace(entry, sha256=None, size=None))
        yield write_all(Path(folder))
