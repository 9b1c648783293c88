"""Pictures to try a detector on, made from two public-domain photographs that ship with the installed packages. Offline.

python -m inference.examples outputs/examples
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from data.faces import FaceCutter
from data.forge import face_swap, self_blend
from data.images import read_image

COLLINS = ("skimage", "data/astronaut.png")  # Eileen Collins, NASA
HOPPER = ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")  # Grace Hopper, US Navy


def photograph(package: str, file: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises: ImageError where the package does not hold it."""
    found = find_spec(package)
    return read_image(Path(found.origin if found and found.origin else package).parent / file)


NAMES = {  # the file of each
    "a photograph": "photograph",
    "the same, retouched": "blended",
    "the same with another face": "swapped",
    "two people": "two_people",
}


def examples() -> dict[str, np.ndarray]:
    """What it is called -> (H, W, 3) uint8 RGB: a photograph; the same with a slightly changed copy of its face blended in; the
    same with another face; and both people in one picture."""
    collins, hopper = (photograph(*source) for source in (COLLINS, HOPPER))
    found = FaceCutter("one")([collins, hopper])
    swapped, _ = face_swap(collins, hopper, *found.landmarks)
    blended, _ = self_blend(collins, found.landmarks[0], seed=1)
    height = min(len(collins), len(hopper))
    pictures = (
        collins,
        blended,
        swapped,
        np.concatenate([collins[:height], hopper[:height]], axis=1),
    )
    return dict(zip(NAMES, pictures, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help=f"where {', '.join(NAMES.values())} go, as PNG")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for title, image in examples().items():
        path = folder / f"{NAMES[title]}.png"
        Image.fromarray(image).save(path)
        print(f"written: {path} ({title})")


if __name__ == "__main__":
    main()
