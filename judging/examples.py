"""Pictures to try a detector on, made from two public-domain photographs that ship with the installed packages. Offline."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from data.faces import FaceCutter
from data.forge import face_swap
from data.images import read_image

COLLINS = ("skimage", "data/astronaut.png")  # Eileen Collins, NASA
HOPPER = ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")  # Grace Hopper, US Navy


def photograph(package: str, file: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises: ImageError where the package does not hold it."""
    found = find_spec(package)
    return read_image(Path(found.origin if found and found.origin else package).parent / file)


def examples() -> dict[str, np.ndarray]:
    """What it is called -> (H, W, 3) uint8 RGB: a photograph, the same with another face, and both people in one picture."""
    collins, hopper = (photograph(*source) for source in (COLLINS, HOPPER))
    found = FaceCutter("one")([collins, hopper])
    swapped, _ = face_swap(collins, hopper, *found.landmarks)
    height = min(len(collins), len(hopper))
    return {
        "a photograph": collins,
        "the same with another face": swapped,
        "two people": np.concatenate([collins[:height], hopper[:height]], axis=1),
    }
