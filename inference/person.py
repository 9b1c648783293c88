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
SAME = 0.98  # similarity in every region from which on two pictures are one
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
    """Genuine photographs of one person, as one.

    embedding: output -> (R, D) unit vectors; each: of those that count, output -> (K, R, D); poor: none
    of them is a good photograph.
    """

    name: str
    photographs: tuple[Photograph, ...]
    embedding: dict[str, np.ndarray] = field(repr=False)
    each: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    poor: bool = False

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
    """Those of one photograph. outputs: output -> (F, R, D); views: (F, 128, 128, 3) uint8 RGB; doubts:
    of each face, what makes it a poor photograph, sentences.
    """

    outputs: dict[str, np.ndarray]
    views: np.ndarray
    doubts: Sequence[Sequence[str]] = ()

    def face(self, number: int) -> dict[str, np.ndarray]:
        return {name: x[number] for name, x in self.outputs.items()}


def person_of(
    name: str, names: Sequence[str], faces: Sequence[Faces | str], comparison: Comparison
) -> Person:
    """The person in photographs, at least one of which has a face.

    Of several faces in a photograph the one is taken that is most like the other photographs. Copies
    count once. Poor photographs are left out where there are better ones. Of three and more, those are
    left out that are unlike the one that most others are like, or unlike most that are like it.

    names: of the photographs; faces: of each, or why there are none. Raises: ImageError: most of three
    or more photographs do not show one person.
    """
    usable = {place: found for place, found in enumerate(faces) if isinstance(found, Faces)}
    chosen = _choose(usable, comparison)
    face = {place: found.face(chosen[place]) for place, found in usable.items()}
    doubts = {x: [*usable[x].doubts[chosen[x]]] if usable[x].doubts else [] for x in usable}
    left_out, kept = dict[int, str](), list[int]()
    for place in usable:
        twin = next((x for x in kept if same_picture(face[place], face[x], comparison)), None)
        if twin is not None:
            left_out[place] = f"a copy of {names[twin]}"
        else:
            kept.append(place)
    if good := [place for place in kept if not doubts[place]]:
        left_out |= {place: "; ".join(doubts[place]) for place in kept if doubts[place]}
        kept = good
    alike = _alike(face, kept, comparison)
    note = {}
    if len(kept) == 2 and not alike[0, 1]:
        note[kept[1]] = "is less alike to the other one than 99 of 100 pairs of one person"
    elif len(kept) > 2:
        middle = int(alike.sum(1).argmax())
        if 2 * alike[middle].sum() <= len(kept):
            told = ", ".join(names[place] for place in kept)
            reason = f"the photographs show several people ({told}); name those of {name} alone"
            raise ImageError(Path(names[kept[middle]]), reason)
        near = np.flatnonzero(alike[middle])
        most = 2 * (alike[near][:, near].sum(1) - 1) >= len(near) - 1  # of one another
        unlike = {*kept} - {kept[place] for place in near[most]}
        left_out |= dict.fromkeys(unlike, "its face is unlike those of the others")
        kept = [place for place in kept if place not in unlike]
    photographs = []
    for place, found in enumerate(faces):
        if isinstance(found, str):
            photographs.append(Photograph(names[place], left_out=found))
            continue
        notes = [note[place]] if place in note else []
        if (count := len(found.views)) > 1:
            which = "most like the other photographs" if len(usable) > 1 else "in the middle"
            notes.append(f"has {count} faces; the one {which} was taken")
        notes += doubts[place] if place in kept else []
        view = found.views[chosen[place]]
        photographs.append(
            Photograph(names[place], left_out.get(place, ""), "; ".join(notes), view)
        )
    outputs = comparison.outputs
    each = {x: np.stack([face[place][x] for place in kept]) for x in outputs}
    embedding = {x: pooled(each[x]) for x in outputs}
    return Person(name, tuple(photographs), embedding, each, poor=not good)


def same_picture(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], comparison: Comparison
) -> bool:
    """Whether two faces are so alike in every region that they are of one picture."""
    return bool((comparison.compared(one, other) > SAME).all())


def _choose(usable: Mapping[int, Faces], comparison: Comparison) -> dict[int, int]:
    """Photograph -> which of its faces: by those with a single face, if there are any."""
    alone = [place for place, found in usable.items() if len(found.views) == 1]
    chosen, name = dict.fromkeys(usable, 0), _whole(comparison)
    for place, found in usable.items():
        others = [usable[other].outputs[name][0] for other in alone or usable if other != place]
        if len(found.views) > 1 and others:
            near = similarities(found.outputs[name][:, None, WHOLE], np.stack(others)[:, WHOLE])
            chosen[place] = int(np.median(near, axis=1).argmax())
    return chosen


def _alike(face: Mapping[int, Mapping], kept: Sequence[int], comparison: Comparison) -> np.ndarray:
    """(K, K) bool: whether two whole faces are as alike as nearly all genuine pairs."""
    whole = np.stack([face[place][_whole(comparison)][WHOLE] for place in kept])
    table = comparison.of(1).genuine[:, comparison.column("full")]
    return similarities(whole[:, None], whole) >= np.quantile(table, UNLIKE)


def _whole(comparison: Comparison) -> str:
    """The output by which whole faces are compared."""
    return output_of(comparison.columns[comparison.column("full")])


def pixels_of(given: Given, path: Path, reader: Reader) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a photograph. path: its name. Raises: ImageError."""
    if isinstance(given, str | Path):
        return reader.image(Path(given))
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.shape[2:] == (3,):
        given = Image.fromarray(given)
    if not isinstance(given, Image.Image):
        raise ImageError(path, "neither a file, a PIL image, nor uint8 RGB of shape (H, W, 3)")
    return images.pixels_of(given, path)
