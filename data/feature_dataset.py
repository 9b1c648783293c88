"""The faces of one or several dumps as one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data.dump import COLUMNS, Dump
from features.regions import REGIONS


@dataclass
class FeatureDataset:
    """The faces of dumps, row by row.

    Attributes:
        arrays: `<expert>.<output>` -> (N, R, D) float16.
        rows: (N,) columns of index.csv, `group` prefixed by the dataset; `dataset`; `condition`, the
            degradation of the pictures (data/degrade.py), "" none; `pictures`, a digest of all the
            pictures of the dump, "" unknown.
    """

    arrays: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows["label"])

    def select(self, keep: np.ndarray) -> FeatureDataset:
        """Some of the faces. keep: (K,) indices or (N,) bool."""
        arrays = {name: value[keep] for name, value in self.arrays.items()}
        return FeatureDataset(arrays, {name: value[keep] for name, value in self.rows.items()})

    def split(self, name: str) -> FeatureDataset:
        return self.select(np.flatnonzero(self.rows["split"] == name))

    def known(self, outputs: Iterable[str] | None = None) -> np.ndarray:
        """(N,) bool: faces with a value of any of these outputs (None: of all)."""
        found = np.full(len(self), False)
        for name in self.arrays if outputs is None else outputs:
            found |= np.isfinite(self.arrays[name]).any((1, 2))
        return found

    def counts(self) -> dict[str, int]:
        fake = int(self.rows["label"].sum())
        return {"real": len(self) - fake, "fake": fake, "groups": len(set(self.rows["group"]))}


def join_dumps(dumps: Sequence[Dump]) -> FeatureDataset:
    """Several dumps as one table; they must have the same experts, precision and regions."""
    first = dumps[0]
    for dump in dumps:
        if tuple(dump.meta["regions"]) != REGIONS:
            raise ValueError(f"{dump.path}: not of this version's regions; preprocess it again")
        of = [d.meta | {"precision": d.meta["config"].get("precision")} for d in (dump, first)]
        for what in ("precision", "weights", "outputs"):  # a classifier would learn the rounding
            if of[0][what] != of[1][what]:
                here, other = (f"{', '.join(m['weights'])}; {m['precision']}" for m in of)
                raise ValueError(
                    f"{dump.path} and {first.path} differ in {what} ({here} and {other}); "
                    "preprocess both with the same experts, weights and --precision"
                )
    names = first.meta["outputs"]
    arrays = {name: np.concatenate([dump.arrays[name] for dump in dumps]) for name in names}
    rows = {name: np.concatenate([dump.rows[name] for dump in dumps]) for name in COLUMNS}
    sizes = [len(dump) for dump in dumps]
    rows["dataset"] = np.repeat([dump.meta["dataset"] for dump in dumps], sizes)
    rows["condition"] = np.repeat([d.meta["config"].get("degrade", "") for d in dumps], sizes)
    rows["pictures"] = np.repeat([dump.meta.get("pictures", "") for dump in dumps], sizes)
    groups = zip(rows["dataset"], rows["group"], rows["path"], strict=True)
    groups = [f"{dataset}/{group or path}" for dataset, group, path in groups]
    return FeatureDataset(arrays, {**rows, "group": np.array(groups, dtype=object)})
