"""False alarms of the comparison with photographs when a person's looks have changed.

    python -m benchmarks.changed_looks                    # the test people of the study, a quarter of an hour

Genuine test pictures get other hair, a hat or glasses, painted on, and are compared with photographs of
the person as they are. Painted changes are crude; real ones vary more (docs/reference.md).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from command_line import run
from data.alignment import similarity
from data.claims import GENUINE, claims_of
from data.dump import landmarks_of, read_dump
from data.faces import FaceCutter
from data.feature_dataset import join_dumps
from data.images import read_image
from features.reference import pooled
from inference.comparison import CANNOT_TELL
from inference.person import Person, Photograph
from inference.reference import Comparer

# Of the aligned face (docs/ARCHITECTURE.md): x, y, half width and half height of an ellipse around the
# head, and the line of the brows.
HEAD, BROWS = (0.5, 0.45, 0.66, 0.8), 0.3
EYES = ((0.34, 0.46), (0.66, 0.46))
Change = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Config:
    features: Path = Path("outputs/features/people/reference")
    """A dump of people, with the experts of the bundled comparison."""
    photographs: int = 1
    """Genuine photographs of each person."""
    limit: int = 0
    """Pictures; 0: all."""


def places(shape: tuple[int, ...], landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) x and y of every pixel on the aligned face, as fractions of the template."""
    scale, shift = similarity(landmarks[None])
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    on_face = (columns + 1j * rows - shift[0]) / scale[0] / 112
    return on_face.real, on_face.imag


def above_brows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cx, cy, width, height = HEAD
    return (((x - cx) / width) ** 2 + ((y - cy) / height) ** 2 <= 1) & (y < BROWS)


def beside_face(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cx, cy, width, height = HEAD
    inside = ((x - cx) / width) ** 2 + ((y - cy) / height) ** 2 <= 1
    return inside & (np.abs(x - cx) > 0.42) & (y < 0.8)


def hair(lighter: float) -> Change:
    """Lightness of the hair, roughly, moved by so many grey levels."""

    def change(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        mask = (above_brows(x, y + 0.18) | beside_face(x, y)).astype(np.float32)
        mask = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
        return np.clip(image + lighter * mask, 0, 255).astype(np.uint8)

    return change


def hat(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    mask = above_brows(x, y + 0.1)[..., None]
    return np.where(mask, np.uint8((40, 50, 90)), image)


def glasses(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = image.copy()
    for cx, cy in EYES:
        distance = np.hypot((x - cx) / 0.15, (y - cy) / 0.11)
        found[(distance > 0.85) & (distance < 1.1)] = 30
    found[(np.abs(y - EYES[0][1]) < 0.015) & (np.abs(x - 0.5) < 0.03)] = 30
    return found


CHANGES: dict[str, Change] = {
    "as it is": lambda image, x, y: image,
    "darker hair": hair(-70),
    "lighter hair": hair(90),
    "hat": hat,
    "glasses": glasses,
}


def main(config: Config) -> None:
    dump = read_dump(config.features)
    faces = join_dumps([dump]).split("test")
    claims = claims_of(faces.rows).with_photographs(config.photographs)
    claims = claims.select(claims.kind == GENUINE)
    if config.limit:
        claims = claims.select(np.arange(len(claims))[: config.limit])
    comparer, landmarks = Comparer(), landmarks_of(faces.rows)
    cutter = FaceCutter("one", crops=comparer.crops)
    root, told = Path(dump.meta["data_root"]), {name: Counter() for name in CHANGES}
    pairs = zip(claims.row, claims.photographs, strict=True)
    for row, photographs in tqdm(pairs, total=len(claims), disable=None):
        image = read_image(root / faces.rows["path"][row])
        outputs = comparer.comparison.outputs
        embedding = {name: pooled(faces.arrays[name][photographs]) for name in outputs}
        person = Person("", tuple(Photograph("") for _ in photographs), embedding)
        x, y = places(image.shape, landmarks[row])
        for name, change in CHANGES.items():
            crops = cutter([change(image, x, y)])
            answer = comparer.compare(crops, person)[0].pattern if len(crops) else "no face found"
            told[name][answer] += 1
    print(f"{len(claims)} genuine pictures of people never seen, {config.photographs} photographs")
    for name, counts in told.items():
        quiet = ("consistent", CANNOT_TELL, "no face found")
        alarms = sum(count for pattern, count in counts.items() if pattern not in quiet)
        low, high = binomtest(alarms, len(claims)).proportion_ci(method="exact")
        details = ", ".join(f"{count} {pattern}" for pattern, count in counts.most_common())
        print(f"{name}: false alarms {alarms / len(claims):.1%} ({low:.1%}-{high:.1%}); {details}")


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="benchmarks.changed_looks"))
