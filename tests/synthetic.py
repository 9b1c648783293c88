"""Faces without pictures: made-up answers of an expert, and dumps of them, with a known truth.

A face has a hidden state, and every region of a real face reports it with noise. The `inner` and
`lower` regions of a fake
report the state of somebody else.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data.dump import COLUMNS, FAILURE_COLUMNS, FORMAT, MISSING_COLUMNS
from features.regions import REGIONS

OUTPUTS = {
    "toy.age": {"kind": "distribution", "size": 4, "names": ["a", "b", "c", "d"]},
    "toy.identity": {"kind": "embedding", "size": 64, "names": []},
    "toy.age_years": {"kind": "scalar", "size": 1, "names": ["years"]},
    "toy.moves": {"kind": "vector", "size": 5, "names": ["m0", "m1", "m2", "m3", "m4"]},
}
SWAPPED = [REGIONS.index("inner"), REGIONS.index("lower")]


def predictions(
    people: np.ndarray, label: np.ndarray, seed: int = 0, noise: float = 0.7
) -> dict[str, np.ndarray]:
    """Raw outputs of faces. people: (N,) int, who it is; label: (N,) 0 real, 1 fake. Returns: name
    -> (N, R, D) float16.
    """
    rng = np.random.default_rng(seed)
    size = sum(output["size"] for output in OUTPUTS.values())
    look = np.random.default_rng(12345).normal(size=(int(people.max()) + 2, size))
    state = np.repeat(look[people][:, None], len(REGIONS), axis=1)
    state[np.ix_(label == 1, SWAPPED)] = look[people[label == 1] + 1][:, None]
    state += noise * rng.normal(size=state.shape)
    arrays, start = {}, 0
    for name, output in OUTPUTS.items():
        part = state[..., start : start + output["size"]]
        start += output["size"]
        if output["kind"] == "distribution":
            part = np.exp(part) / np.exp(part).sum(-1, keepdims=True)
        elif output["kind"] == "embedding":
            part = part / np.linalg.norm(part, axis=-1, keepdims=True)
        arrays[name] = part.astype(np.float16)
    return arrays


def recurring_people() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Who is on the faces of 100 groups (`write_dump`), and answers about them: 60 people, of whom
    40 train with one group of
    theirs, and validate (20) or test (20) with the other."""
    groups = np.arange(100)
    people = np.repeat(np.select([groups < 60, groups < 80], [groups, groups - 20], groups - 60), 4)
    return people, predictions(people, np.tile([0, 0, 1, 1], 100), noise=0.3)


def write_dump(
    folder: Path,
    groups: int = 60,
    seed: int = 0,
    splits: tuple[float, float] = (0.6, 0.8),
    label: int | None = None,
    profile: str = "toy",
    change: dict[str, np.ndarray] | None = None,
) -> Path:
    """A finished dump of two real faces and two fakes per group; a group is one person.

    splits: the first share of the groups trains, up to the second validates, the rest is for
    testing. label: keep faces of
    that label only. change: columns of index.csv or arrays to put in place of the made-up ones.
    """
    labels = np.tile([0, 0, 1, 1], groups)
    people = np.repeat(np.arange(groups), 4)
    kept = np.full(len(labels), True) if label is None else labels == label
    labels, people = labels[kept], people[kept]
    names = np.array(["train", "val", "test"])
    columns = {
        **{name: np.zeros(len(labels), dtype=kind) for name, kind in COLUMNS.items()},
        "path": np.array([f"{('real', 'fake')[y]}/{i:04d}.jpg" for i, y in enumerate(labels)]),
        "label": labels,
        "group": np.array([f"g{person:03d}" for person in people]),
        "split": names[np.searchsorted(splits, (people + 0.5) / groups)],
        "phash": np.full(len(labels), "0" * 16),
    }
    columns["label"] = labels
    arrays = predictions(people, labels, seed)
    for name, value in (change or {}).items():
        (arrays if name in arrays else columns)[name] = value
    folder.mkdir(parents=True)
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(*(columns[name] for name in COLUMNS), strict=True))
    (folder / "failures.csv").write_text(",".join(FAILURE_COLUMNS) + "\n")
    (folder / "missing.csv").write_text(",".join(MISSING_COLUMNS) + "\n")
    meta = {
        "format": FORMAT,
        "dataset": folder.parent.name,
        "data_root": "faces",
        "profile": profile,
        "regions": list(REGIONS),
        "outputs": OUTPUTS,
        "weights": {"toy": "0" * 64},
        "config": {},
        "versions": {},
        "counts": {},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def dumps_of(outputs: dict[str, dict], *names: str) -> list[SimpleNamespace]:
    """What a plan reads of dumps; they have no faces."""
    meta = {"outputs": outputs, "data_root": "x"}
    return [SimpleNamespace(path=name, meta=meta | {"dataset": name}) for name in names]
