"""Whom the pictures of a dataset claim to show, and which genuine photographs that can be held against.

A real picture shows its `person`. A swap claims to show the person whose head it is, or the `donor`,
whose face it is: two claims. A picture is never compared with one that it was made of, nor with
another frame of its clip.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

GENUINE, HEAD, FACE, OTHER = range(4)  # in the order of `features.reference.PATTERNS`
MOST = 8  # photographs that a face is compared with


@dataclass(frozen=True)
class Claims:
    """M claims, each about one row of a table of faces.

    Attributes:
        row: (M,) int.
        kind: (M,) int: `GENUINE`, `HEAD` (a swap, called the person whose head it is), `FACE` (called the
            donor), `OTHER` (a real picture, called somebody else).
        person: (M,) object, who is claimed.
        photographs: for each claim rows of genuine photographs of that person, 1 to `MOST`, in a random
            order that does not change.
    """

    row: np.ndarray
    kind: np.ndarray
    person: np.ndarray
    photographs: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.row)

    def select(self, keep: np.ndarray) -> Claims:
        """Some of the claims. keep: (K,) indices or (M,) bool."""
        places = np.arange(len(self))[keep]
        chosen = [self.photographs[i] for i in places]
        return Claims(self.row[places], self.kind[places], self.person[places], chosen)

    def with_photographs(self, count: int) -> Claims:
        """The claims with at least so many photographs, and just so many of them."""
        enough = self.select(np.array([len(x) >= count for x in self.photographs], bool))
        return replace(enough, photographs=[rows[:count] for rows in enough.photographs])


class Genuine:
    """Which genuine photographs a picture of a table may be compared with.

    rows: columns path, label, video, person, split, dataset (if known). Photographs are of the split and
    the dataset of the picture.
    """

    def __init__(self, rows: Mapping[str, np.ndarray], most: int = MOST) -> None:
        self.paths, self.most = rows["path"].tolist(), most
        videos = rows["video"].tolist()
        self._clips = [video or path for video, path in zip(videos, self.paths, strict=True)]
        self._places = rows["split"].tolist()
        if "dataset" in rows:
            self._places = list(zip(rows["dataset"].tolist(), self._places, strict=True))
        self._of: dict[tuple, list[int]] = defaultdict(list)
        labels = rows["label"].tolist()
        for row, name in enumerate(rows["person"].tolist()):
            if name and labels[row] == 0:
                self._of[self._places[row], name].append(row)
        self._people = defaultdict(list)
        for place, name in self._of:
            self._people[place].append(name)
        self._apart: dict[tuple, np.ndarray] = {}  # of a clip and a person, of other sources

    def random(self, row: int) -> np.random.Generator:
        """Always the same for a picture."""
        return np.random.default_rng(zlib.crc32(self.paths[row].encode(errors="replace")))

    def others(self, row: int, name: str) -> list[str]:
        """People that are not `name`."""
        return [other for other in self._people[self._places[row]] if other != name]

    def of(self, row: int, name: str) -> np.ndarray:
        """Rows of photographs of a person, at most `most`, in an order that does not change."""
        place, clip = self._places[row], self._clips[row]
        key = (place, clip, name)
        if key not in self._apart:
            known = self._of.get((place, name), ())
            apart = [i for i in known if not _made_of(clip, self._clips[i])]
            self._apart[key] = np.array(apart, int)
        return self.random(row).permutation(self._apart[key])[: self.most]


def claims_of(rows: Mapping[str, np.ndarray], most: int = MOST) -> Claims:
    """All claims of a table of faces. rows: as of `Genuine`, and donor.

    One `OTHER` claim for each real picture, two for each swap whose donor is known.
    """
    genuine = Genuine(rows, most)
    person, donor, label = (rows[name].tolist() for name in ("person", "donor", "label"))
    found: list[tuple[int, int, str, np.ndarray]] = []
    for row, own in enumerate(person):
        if not own:
            continue
        if label[row]:
            claimed = [(HEAD, own), (FACE, donor[row])] if donor[row] else []
        else:
            others = genuine.others(row, own)
            claimed = [(GENUINE, own)]
            if others:
                claimed.append((OTHER, others[genuine.random(row).integers(len(others))]))
        for kind, name in claimed:
            if len(photographs := genuine.of(row, name)):
                found.append((row, kind, name, photographs))
    row, kind, name, photographs = zip(*found, strict=True) if found else ((), (), (), ())
    of = np.array(name, dtype=object)
    return Claims(np.array(row, int), np.array(kind, int), of, list(photographs))


def datasets_with_people(rows: Mapping[str, np.ndarray], least: int) -> list[str]:
    """Datasets with so many genuine claims, and as many of another kind. rows: as of `claims_of`."""
    found = []
    for name in sorted(set(rows["dataset"].tolist())):
        own = rows["dataset"] == name
        claims = claims_of({column: values[own] for column, values in rows.items()}, most=1)
        kinds = np.bincount(claims.kind, minlength=4)
        if min(kinds[GENUINE], kinds[1:].max()) >= least:
            found.append(name)
    return found


def _made_of(clip: str, photograph: str) -> bool:
    """Whether they are one, or the name of a clip or picture says that it was made of the other.

    Ann_0001__Bob_0002 names Ann_0001 and Bob_0002; id3_id7_0002 has all words of id3_0002, in order.
    """
    name, other = PurePosixPath(clip).stem, PurePosixPath(photograph).stem
    if "__" in name and "__" not in other:
        return other in name.split("__")
    words = iter(name.split("_"))
    return all(word in words for word in other.split("_"))
