"""Faces of one or several dumps as one table, and which of them train, validate and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.dump import COLUMNS, Dump
from features.regions import REGIONS


@dataclass
class FeatureDataset:
    """The faces of one or several dumps, row by row.

    arrays: "expert.output" -> (N, R, D) float16. rows: (N,) columns of index.csv (data/dump.py), `group` prefixed by the
    dataset, `dataset`, and `condition`: what the pictures went through first (data/degrade.py), "" nothing.
    """

    arrays: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows["label"])

    def select(self, keep: np.ndarray) -> FeatureDataset:
        return FeatureDataset(
            {name: value[keep] for name, value in self.arrays.items()},
            {name: value[keep] for name, value in self.rows.items()},
        )

    def split(self, name: str) -> FeatureDataset:
        return self.select(np.flatnonzero(self.rows["split"] == name))

    def counts(self) -> dict[str, int]:
        fake = int(self.rows["label"].sum())
        return {"real": len(self) - fake, "fake": fake, "groups": len(set(self.rows["group"]))}


def join_dumps(dumps: Sequence[Dump]) -> FeatureDataset:
    """Several dumps as one table.

    Raises: ValueError where they were not made by the same experts, or this version cuts other regions.
    """
    first = dumps[0]
    for dump in dumps:
        if tuple(dump.meta["regions"]) != REGIONS:
            raise ValueError(
                f"{dump.path}: has other regions than {', '.join(REGIONS)}; preprocess the dataset again"
            )
        precisions = [each.meta["config"].get("precision") for each in (dump, first)]
        if precisions[0] != precisions[1]:
            raise ValueError(
                f"{dump.path} was computed in {precisions[0]}, {first.path} in {precisions[1]}: a classifier would learn the "
                "rounding; preprocess both with the same --precision"
            )
        for what in ("weights", "outputs"):
            if dump.meta[what] != first.meta[what]:
                raise ValueError(
                    f"{dump.path} and {first.path} differ in {what} (experts {', '.join(dump.meta['weights'])} and "
                    f"{', '.join(first.meta['weights'])}); preprocess both with the same experts and weights"
                )
    arrays = {
        name: np.concatenate([dump.arrays[name] for dump in dumps])
        for name in first.meta["outputs"]
    }
    columns = {name: np.concatenate([dump.rows[name] for dump in dumps]) for name in COLUMNS}
    datasets = np.concatenate([np.full(len(dump), dump.meta["dataset"]) for dump in dumps])
    conditions = np.concatenate(
        [np.full(len(dump), dump.meta["config"].get("degrade", "")) for dump in dumps]
    )
    groups = [
        f"{d}/{g or path}"
        for d, g, path in zip(datasets, columns["group"], columns["path"], strict=True)
    ]
    return FeatureDataset(
        arrays,
        {
            **columns,
            "dataset": datasets,
            "condition": conditions,
            "group": np.array(groups, dtype=object),
        },
    )
