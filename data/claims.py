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


def claims_of(rows: Mapping[str, np.ndarray], most: int = MOST) -> Claims:
    """All claims of a table of faces: columns path, label, video, person, donor, split, dataset (if known).

    Photographs come from the claim's split and dataset. One `OTHER` claim for each real picture.
    """
    paths, videos = rows["path"].tolist(), rows["video"].tolist()
    person, donor, label = (rows[name].tolist() for name in ("person", "donor", "label"))
    place = rows["split"].tolist()
    if "dataset" in rows:
        place = list(zip(rows["dataset"].tolist(), place, strict=True))
    genuine: dict[tuple, list[int]] = defaultdict(list)
    for row, name in enumerate(person):
        if name and label[row] == 0:
            genuine[place[row], name].append(row)
    people = defaultdict(list)
    for where, name in genuine:
        people[where].append(name)
    clips = [video or path for video, path in zip(videos, paths, strict=True)]
    apart: dict[tuple, np.ndarray] = {}  # of a clip and a person: photographs of other sources
    found: list[tuple[int, int, str, np.ndarray]] = []
    for row, own in enumerate(person):
        random = np.random.default_rng(zlib.crc32(f"{paths[row]}#{own}".encode(errors="replace")))
        if label[row]:
            claimed = [(HEAD, own), (FACE, donor[row])] if donor[row] else []
        else:
            others = [name for name in people[place[row]] if name != own] if own else []
            claimed = [(GENUINE, own)] if own else []
            claimed += [(OTHER, others[random.integers(len(others))])] if others else []
        for kind, name in claimed:
            key = (place[row], clips[row], name)
            if key not in apart:
                known = genuine.get((place[row], name), [])
                apart[key] = np.array([i for i in known if not _made_of(clips[row], clips[i])], int)
            if len(apart[key]):
                found.append((row, kind, name, random.permutation(apart[key])[:most]))
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

    id3_id7_0002 and Ann_0001__Bob_0002 have all words of id3_0002 and of Bob_0002 in their order.
    """
    words = iter(_words(clip))
    return clip == photograph or all(word in words for word in _words(photograph))


def _words(path: str) -> list[str]:
    return PurePosixPath(path).stem.split("_")
