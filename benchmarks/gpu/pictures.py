"""Pictures for a visit: two photographs, turned, scaled, lit, mirrored and blurred at random.

python -m benchmarks.gpu.pictures FOLDER COUNT       # several processes; 224 to 360 px, JPEG
"""

from __future__ import annotations

import argparse
import os
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent.parent
CARRIED = Path(os.environ.get("GPU_CARRIED") or ROOT / "outputs" / "gpu" / "carry")
PHOTOGRAPHS = ("astronaut.png", "hopper.jpg")
MIDDLES, SIZES = ((224, 115), (264, 228)), (115, 240)  # of the faces, px
TOGETHER = 16  # pictures that a process draws at a time


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """Eileen Collins and Grace Hopper, uint8 RGB; carried, or from the packages they come with."""
    return tuple(cv2.imread(str(path))[..., ::-1].copy() for path in photograph_files())


def photograph_files() -> list[Path]:
    if all((CARRIED / name).is_file() for name in PHOTOGRAPHS):
        return [CARRIED / name for name in PHOTOGRAPHS]
    skimage, matplotlib = (
        Path(find_spec(name).origin).parent for name in ("skimage", "matplotlib")
    )
    hopper = matplotlib / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    return [skimage / "data" / "astronaut.png", hopper]


def picture(number: int) -> np.ndarray:
    """(side, side, 3) uint8 RGB, side 224 to 360; the same for the same number."""
    which, rng = number % 2, np.random.default_rng(number)
    side = int(rng.integers(224, 361))
    cut = SIZES[which] / rng.uniform(0.42, 0.62)  # of the square that is cut out
    middle = MIDDLES[which]
    turn = cv2.getRotationMatrix2D(middle, rng.uniform(-15, 15), side / cut)
    turn[:, 2] += side / 2 - np.array(middle) + rng.uniform(-0.06, 0.06, 2) * side
    how = {"flags": cv2.INTER_AREA, "borderMode": cv2.BORDER_REFLECT}
    image = cv2.warpAffine(photographs()[which], turn, (side, side), **how)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
    light = rng.uniform(0.7, 1.2, 3), rng.uniform(-15, 15)
    image = image * light[0] + light[1] + rng.normal(0, 3, image.shape)
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


def draw(first: int, folder: Path, count: int) -> None:
    for number in range(first, min(first + TOGETHER, count)):
        path = folder / ("real", "fake")[number // 2 % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(number)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


def draw_all(folder: Path, count: int, processes: int, times: int = 1) -> None:
    """A dataset of `count` pictures, each `times` times; its folder appears when all are there."""
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True)
    work, starts = partial(draw, folder=part, count=count), range(0, count, TOGETHER)
    if processes == 1:  # no fork, which hangs where threads of the caller hold a lock
        for start in starts:
            work(start)
    else:
        with get_context("fork").Pool(processes, cv2.setNumThreads, (1,)) as pool:
            pool.map(work, starts, chunksize=1)
    for path in sorted(part.rglob("*.jpg")):
        for again in range(1, times):
            path.with_stem(f"{path.stem}_{again}").hardlink_to(path)
    part.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--times", type=int, default=1, help="each picture so often")
    options = parser.parse_args()
    draw_all(options.folder, options.count, max(1, (os.cpu_count() or 1) * 3 // 4), options.times)
