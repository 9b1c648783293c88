"""The person in genuine photographs: which of them count, and all of them as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from data import images
from data.images import ImageError
from data.reader import Reader
from features.reference import output_of, pooled, similarities
from features.regions import REGIONS
from inference.comparison import Comparison

SOMEBODY = "the person"  # whose name is not known
UNLIKE = 0.01  # share of genuine pairs that are less alike than a photograph that is left out
WHOLE = REGIONS.index("full")

Given = Path | str | np.ndarray | Image.Image  # a photograph: a file, uint8 RGB (H, W, 3), an image


@dataclass(frozen=True)
class Photograph:
    """One that was given. view: (128, 128, 3) uint8 RGB of `HEAD`; left_out: why it does not count."""

    name: str
    left_out: str = ""
    note: str = ""
    view: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Person:
    """Genuine photographs of one person, as one. embedding: output -> (R, D) unit vectors."""

    name: str
    photographs: tuple[Photograph, ...]
    embedding: dict[str, np.ndarray] = field(repr=False)

    @property
    def used(self) -> list[Photograph]:
        return [photograph for photograph in self.photographs if not photograph.left_out]

    @property
    def left_out(self) -> list[str]:
        """A sentence for each photograph that does not count."""
        return [f"{x.name}: left out: {x.left_out}" for x in self.photographs if x.left_out]

    @property
    def notes(self) -> list[str]:
        return [f"{x.name}: {x.note}" for x in self.photographs if x.note and not x.left_out]


@dataclass(frozen=True)
class Faces:
    """Those of one photograph. outputs: output -> (F, R, D); views: (F, 128, 128, 3) uint8 RGB."""

    outputs: dict[str, np.ndarray]
    views: np.ndarray

    def face(self, number: int) -> dict[str, np.ndarray]:
        return {name: x[number] for name, x in self.outputs.items()}


def person_of(
    name: str, names: Sequence[str], faces: Sequence[Faces | str], comparison: Comparison
) -> Person:
    """The person in photographs, at least one of which has a face.

    Of several faces in a photograph the one is taken that is most like the other photographs. Of three
    and more, the one that is least like most of the others is left out, again and again, until all are
    as alike as nearly all genuine pairs. names: of the photographs; faces: of each, or why there are none.
    """
    usable = {place: found for place, found in enumerate(faces) if isinstance(found, Faces)}
    chosen = _choose(usable, comparison)
    unlike: set[int] = set()
    while len(kept := [place for place in usable if place not in unlike]) > 2:
        like = {place: _to_others(place, kept, usable, chosen, comparison) for place in kept}
        least = min(like, key=like.get)
        if like[least] >= _least(comparison):
            break
        unlike.add(least)
    apart = len(kept) == 2 and (
        _to_others(kept[0], kept, usable, chosen, comparison) < _least(comparison)
    )
    photographs = []
    for place, found in enumerate(faces):
        if isinstance(found, str):
            photographs.append(Photograph(names[place], left_out=found))
            continue
        notes = []
        if (count := len(found.views)) > 1:
            which = "most like the other photographs" if len(usable) > 1 else "in the middle"
            notes.append(f"has {count} faces; the one {which} was taken")
        if apart and place == kept[1]:
            notes.append("is less alike to the other one than 99 of 100 pairs of one person")
        reason = "its face is unlike those of the others" if place in unlike else ""
        view = found.views[chosen[place]]
        photographs.append(Photograph(names[place], reason, "; ".join(notes), view))
    together = [usable[place].face(chosen[place]) for place in kept]
    embedding = {x: pooled(np.stack([each[x] for each in together])) for x in comparison.outputs}
    return Person(name, tuple(photographs), embedding)


def _choose(usable: Mapping[int, Faces], comparison: Comparison) -> dict[int, int]:
    """Photograph -> which of its faces: by those with a single face, if there are any."""
    alone = [place for place, found in usable.items() if len(found.views) == 1]
    chosen = dict.fromkeys(usable, 0)
    for place, found in usable.items():
        others = [usable[other].face(0) for other in alone or usable if other != place]
        if len(found.views) > 1 and others:
            chosen[place] = int(_likeness(found.outputs, others, comparison).argmax())
    return chosen


def _to_others(
    place: int,
    kept: Sequence[int],
    usable: Mapping[int, Faces],
    chosen: Mapping[int, int],
    comparison: Comparison,
) -> float:
    others = [usable[other].face(chosen[other]) for other in kept if other != place]
    own = {name: x[None] for name, x in usable[place].face(chosen[place]).items()}
    return float(_likeness(own, others, comparison)[0])


def _likeness(
    faces: Mapping[str, np.ndarray], others: Sequence[Mapping], comparison: Comparison
) -> np.ndarray:
    """(F,) median similarity of whole faces to each of the others."""
    name = output_of(comparison.columns[comparison.column("full")])
    known = np.stack([other[name][WHOLE] for other in others])
    return np.median(similarities(faces[name][:, None, WHOLE], known), axis=1)


def _least(comparison: Comparison) -> float:
    """Similarity that nearly all genuine pairs of whole faces reach."""
    return float(np.quantile(comparison.of(1).genuine[:, comparison.column("full")], UNLIKE))


def pixels_of(given: Given, path: Path, reader: Reader) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a photograph. path: its name. Raises: ImageError."""
    if isinstance(given, str | Path):
        return reader.image(Path(given))
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.shape[2:] == (3,):
        given = Image.fromarray(given)
    if not isinstance(given, Image.Image):
        raise ImageError(path, "neither a file, a PIL image, nor uint8 RGB of shape (H, W, 3)")
    return images.pixels_of(given, path)
