"""Dumps of ten pictures with made-up outputs of two experts, written by DumpWriter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.dump import COLUMNS, NO_FACE, Dump
from data.pictures import Print
from data.samples import Sample
from data.store import DumpWriter

OUTPUTS = {
    "lite.age": {"kind": "distribution", "size": 3, "names": ["young", "old", "older"]},
    "lite.identity": {"kind": "embedding", "size": 5, "names": []},
    "other.years": {"kind": "scalar", "size": 1, "names": []},
}
SHA = {"lite": "0" * 64, "other": "1" * 64}
BOTH = ("lite", "other")
CONFIG = {"faces": "one", "precision": "float32"}
SAMPLES = [
    Sample(f"{kind}/{i:02d}.jpg", int(kind == "fake"))
    for kind in ("fake", "real")
    for i in range(5)
]


def row(sample: Sample, face: int = 0, **other) -> dict:
    numbers = dict.fromkeys(COLUMNS, 1.5)
    number = int(sample.path[-6:-4]) if sample.path[-6:-4].isdigit() else 0
    whole = {"face": face, "width": 320, "height": 200, "file_bytes": 1234}
    text = {"phash": f"{number * 0x1111111:016x}"}
    return {**numbers, **vars(sample), **text, **whole, **other}


def write_faces(writer: DumpWriter, number: int, samples: list[Sample]) -> None:
    """Image 3 of each class is unreadable, 4 has no face, 2 has two faces."""
    rows, failures = [], []
    for sample in samples:
        last = sample.path[-5]
        if last in "34":
            failures.append((sample.path, "empty file" if last == "3" else NO_FACE))
        else:
            rows += [row(sample, face) for face in range(2 if last == "2" else 1)]
    files = [Print(s.path, 1234, 10**18, s.path.encode().hex()) for s in samples]
    writer.write_faces(number, rows, failures, files)


def write_outputs(writer: DumpWriter, number: int, samples: list[Sample]) -> None:
    """Values tell to which face they belong."""
    rows = [r for sample in samples for r in writer.faces.of[sample.path]]
    keys = [writer.faces.key(r) for r in rows]
    values = [100.0 * p.startswith("fake") + 10 * int(p[-6:-4]) + face for p, face in keys]
    values = np.array(values, np.float32)[:, None, None]
    names = [name for name in OUTPUTS if name.partition(".")[0] in writer.new]
    writer.write_outputs(number, rows, {n: values + zeros(1, n) for n in names})


def zeros(count: int, name: str) -> np.ndarray:
    return np.zeros((count, 2, OUTPUTS[name]["size"]), np.float32)


def meta_of(writer: DumpWriter, experts: tuple[str, ...]) -> dict:
    names = [name for name in SHA if name in {*writer.meta.get("weights", ()), *experts}]
    return {
        "dataset": "toy",
        "data_root": "/toy",
        "profile": "+".join(names),
        "regions": ["full", "upper"],
        "outputs": {k: o for k, o in OUTPUTS.items() if k.partition(".")[0] in names},
        "weights": {name: SHA[name] for name in names},
        "versions": {},
    }


def opened(
    out: Path, config: dict = CONFIG, samples: list[Sample] = SAMPLES, size: int = 3, **options
) -> DumpWriter:
    weights = {name: SHA[name] for name in options.pop("experts", BOTH)}
    return DumpWriter(out, config, weights, samples, size, **options)


def find_all(writer: DumpWriter) -> None:
    for number, samples in writer.pending_faces():
        write_faces(writer, number, samples)
    writer.finish_faces()


def make(out: Path, *arguments, experts: tuple[str, ...] = BOTH, **options) -> Dump:
    with opened(out, *arguments, experts=experts, **options) as writer:
        find_all(writer)
        for number, samples in writer.pending():
            write_outputs(writer, number, samples)
        return writer.finish(meta_of(writer, experts))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
