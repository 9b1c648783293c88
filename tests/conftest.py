"""Session fixtures: photographs, the bundled detector, weights of published experts, small dumps.

What takes long to make is made once per run, however many processes pytest-xdist starts.
"""

from __future__ import annotations

import os

# Before torch is imported: on small tensors, several threads wait longer than they compute.
os.environ["OMP_NUM_THREADS"] = "1"

import fcntl
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PUBLISHED = ("fairface", "arcface", "facenet", "clip", "pyfeat")  # experts
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id) -> MadeOnce:
    """made_once(name, make): a folder, filled by the first process that needs it. To read only."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, partial = base / name, base / f"{name}.partial"
        with (base / f"{name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of labelled research images beside the project, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "index.csv").is_file():
        pytest.skip("needs the research images in ../shared/data, which are not distributed")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """Eileen Collins, (512, 512, 3) uint8 RGB; ships with scikit-image (public domain, NASA)."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def hopper() -> np.ndarray:
    """Grace Hopper, (600, 512, 3) uint8 RGB; ships with Matplotlib (public domain, US Navy)."""
    package = Path(find_spec("matplotlib").origin).parent
    with Image.open(package / "mpl-data" / "sample_data" / "grace_hopper.jpg") as image:
        return np.asarray(image)


@pytest.fixture(scope="session")
def portraits(made_once, astronaut) -> Path:
    """A dataset of one face: three pictures in real/, three in fake/, cut at different places."""

    def make(folder: Path) -> None:
        for label in ("real", "fake"):
            (folder / label).mkdir()
            for i in range(3):
                crop = astronaut[5 * i : 5 * i + 240, 60 + 7 * i : 300 + 7 * i]
                Image.fromarray(crop).save(folder / label / f"{i}.png")

    return made_once("portraits", make)


@pytest.fixture(scope="session")
def portraits_dump(made_once, portraits) -> Path:
    """A dump of `portraits` by the bundled experts."""
    from preprocessing_pipeline import Config, main

    return made_once(
        "portraits_dump", lambda folder: main(Config(portraits, folder / "dump", device="cpu"))
    ).joinpath("dump")


@pytest.fixture(scope="session")
def synthetic_dump(made_once) -> Path:
    """A dump of 240 faces without pictures, see tests/synthetic.py."""
    from tests.synthetic import write_dump

    return made_once("synthetic", lambda folder: write_dump(folder / "dump")).joinpath("dump")


@pytest.fixture(scope="session")
def detector():
    """The bundled detector `lite`, loaded. Change it by monkeypatch only."""
    from inference.detector import Detector
    from models.checkpoint import LITE

    return Detector(LITE)


@pytest.fixture
def lite_is_default(monkeypatch) -> None:
    """For command lines that name no detector: the one that is fast and needs no package."""
    from inference import bundled

    monkeypatch.setattr(bundled, "BUNDLED", bundled.LITE)


@pytest.fixture(scope="session")
def official_weights(made_once) -> Iterator[Path]:
    """The files of the published experts in their official formats, with random values (800 MB)."""
    from models.weights import WEIGHTS
    from tests.official import write_all

    with pytest.MonkeyPatch.context() as patch:
        for name, entry in WEIGHTS.items():  # random values have no published SHA-256
            patch.setitem(WEIGHTS, name, replace(entry, sha256=None, size=None))
        yield made_once("official_weights", write_all)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For long series of small steps."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def crops(astronaut: np.ndarray, hopper: np.ndarray):
    """Four aligned crops of the two photographs (training.aligned_crops.AlignedCrops)."""
    from tests.photographs import aligned_crops

    return aligned_crops(astronaut, hopper)


@pytest.fixture(scope="module")
def lit_dump(tmp_path_factory, astronaut) -> Path:
    """A dump of three real faces and a fake that train, and of a real one that tests."""
    import cv2

    from preprocessing_pipeline import Config, main

    root = tmp_path_factory.mktemp("dump") / "faces"
    root.mkdir()
    rows = [*["real,train"] * 3, "fake,train", "real,test"]
    for i in range(len(rows)):
        crop = cv2.convertScaleAbs(astronaut[:300, 60:360], alpha=1 - 0.1 * i)
        cv2.imwrite(str(root / f"{i}.png"), crop[..., ::-1])
    lines = ["path,label,split", *(f"{i}.png,{row}" for i, row in enumerate(rows))]
    (root / "index.csv").write_text("\n".join(lines))
    out = root.parent / "dump"
    return main(Config(root, out=out, experts=("lite",), device="cpu"))


@pytest.fixture(scope="module")
def ensembles(official_weights):
    """Each published expert, with random weights."""
    from models.ensemble import Ensemble

    return {name: Ensemble([name], weights_dir=official_weights) for name in PUBLISHED}


@pytest.fixture(scope="module")
def views(astronaut, ensembles):
    """What each expert sees of three faces."""
    import cv2

    from data.faces import FaceCutter

    turn = cv2.getRotationMatrix2D((224, 119), 20, 1)
    turned = cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    pictures = [astronaut, np.ascontiguousarray(astronaut[..., ::-1]) // 2, turned]
    crops = {name: ensemble.experts[0].crop for name, ensemble in ensembles.items()}
    faces = FaceCutter(crops=crops.values())(pictures)
    assert faces.image.tolist() == [0, 1, 2]
    assert all((view[:, 3] == 255).all() for view in faces.views.values())
    return {name: faces.views[crop] for name, crop in crops.items()}
