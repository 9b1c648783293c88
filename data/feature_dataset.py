"""The faces of one or several dumps as one table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data.dump import COLUMNS, Dump
from data.samples import PEOPLE
from features.regions import REGIONS

log = logging.getLogger("masc")


@dataclass
class FeatureDataset:
    """The faces of dumps, row by row.

    Attributes:
        arrays: `<expert>.<output>` -> (N, R, D) float16.
        rows: (N,) columns of index.csv, `group` and known people prefixed by the dataset;
            `dataset`; `condition`, the degradation of the pictures (data/degrade.py), "" none;
            `pictures`, a digest of all the pictures of the dump, "" unknown.
        versions: `<expert>.<output>~<dataset>` -> the same of an expert that was trained without
            that dataset.
    """

    arrays: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    versions: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows["label"])

    def select(self, keep: np.ndarray) -> FeatureDataset:
        """Some of the faces. keep: (K,) indices or (N,) bool."""
        tables = (self.arrays, self.rows, self.versions)
        return FeatureDataset(*({name: x[keep] for name, x in table.items()} for table in tables))

    def unseen(self, dataset: str) -> FeatureDataset:
        """The faces as experts see them that were trained without it; where there are none, as is."""
        parts = [(*name.partition("~"), array) for name, array in self.versions.items()]
        found = {output: array for output, _, without, array in parts if without == dataset}
        return replace(self, arrays=self.arrays | found) if found else self

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
    versions = {}
    heads = {str(dump.meta["config"].get("left_out_heads", "")) for dump in dumps}
    if len(heads) == 1:
        versions = {x: np.concatenate([d.versions[x] for d in dumps]) for x in first.versions}
    else:
        log.warning(
            "not all of these dumps were made with the same --left-out-heads, so figures on what is left "
            "out of training are by a head on CLIP's blocks that may have seen it: %s",
            ", ".join(str(dump.path) for dump in dumps),
        )
    rows = {name: np.concatenate([dump.rows[name] for dump in dumps]) for name in COLUMNS}
    sizes = [len(dump) for dump in dumps]
    rows["dataset"] = np.repeat([dump.meta["dataset"] for dump in dumps], sizes)
    rows["condition"] = np.repeat([d.meta["config"].get("degrade", "") for d in dumps], sizes)
    rows["pictures"] = np.repeat([dump.meta.get("pictures", "") for dump in dumps], sizes)
    groups = zip(rows["dataset"], rows["group"], rows["path"], strict=True)
    groups = [f"{dataset}/{group or path}" for dataset, group, path in groups]
    rows["group"] = np.array(groups, dtype=object)
    for column in PEOPLE:
        known = zip(rows["dataset"], rows[column], strict=True)
        names = [f"{dataset}/{name}" if name else "" for dataset, name in known]
        rows[column] = np.array(names, dtype=object)
    return FeatureDataset(arrays, rows, versions)
