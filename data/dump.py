"""The dump: what every expert said of every region of every face of one dataset, on disk.

A finished dump is a folder with one `<expert>.<output>.npy` (N, R, D) float16 per output, `index.csv` (one `Row` per
face, in the order of the arrays), `failures.csv` (path, reason) of pictures without a face, `missing.csv` (path, face,
expert, reason) of faces that one expert has no answer for (NaN in its arrays), and `meta.json`, which is written last: where
it is, the dump is whole. This file reads dumps, data/store.py writes them, data/extend.py adds experts to them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

FORMAT = 3
NO_FACE = "no face found"  # the reason in failures.csv that is not about an unreadable file
FAILURE_COLUMNS = ("path", "reason")
MISSING_COLUMNS = ("path", "face", "expert", "reason")
DUMPS = Path("outputs/features")  # <dataset>/<profile> below it


@dataclass(frozen=True)
class Row:
    """What index.csv holds for one face; the fields are its columns.

    face: number within the image, 0 the chosen one. path to method otherwise: see data.datasets.Sample. x0..y1,
    lx0..ly4: box and five landmarks (left eye, right eye, nose, left and right corner of the mouth, as seen by the viewer) in
    pixels of the image. score: the detector's, 0..1.
    face_px: shorter side of the box. sharpness: variance of the Laplacian of the aligned crop. yaw, pitch, roll: degrees.
    width, height, file_bytes, mean_r, mean_g, mean_b (0..255): of the whole image. phash: 16 hexadecimal digits.
    """

    path: str
    face: int
    label: int
    group: str
    split: str
    video: str
    method: str
    x0: float
    y0: float
    x1: float
    y1: float
    lx0: float
    ly0: float
    lx1: float
    ly1: float
    lx2: float
    ly2: float
    lx3: float
    ly3: float
    lx4: float
    ly4: float
    score: float
    face_px: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    width: int
    height: int
    file_bytes: int
    mean_r: float
    mean_g: float
    mean_b: float
    phash: str

    @property
    def key(self) -> str:
        return f"{self.path}#{self.face}"


COLUMNS: dict[str, Callable] = {
    f.name: {"str": str, "int": int, "float": float}[f.type] for f in fields(Row)
}


@dataclass
class Dump:
    """A finished dump.

    rows: column of index.csv -> (N,) str, int64 or float64. arrays: `<expert>.<output>` -> (N, R, D) float16, mapped from
    disk, regions in the order of meta["regions"]. failures: (path, reason) of every image without a row. missing: (path,
    face, expert, reason) of every row that is NaN in the arrays of an expert.
    """

    path: Path
    meta: dict
    rows: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    failures: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, int, str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows["path"])

    @property
    def keys(self) -> list[str]:
        """`path#face` of every row: what rows of two dumps are matched by."""
        return [
            f"{path}#{face}"
            for path, face in zip(self.rows["path"], self.rows["face"], strict=True)
        ]


def read_settings(path: Path) -> dict | None:
    """The object in `path`; None where there is no such file. Raises: ValueError where it is not one of ours."""
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and {"format", "config"} <= data.keys():
            return data
    except ValueError:
        pass
    raise ValueError(f"{path}: not written by this project; choose another folder for the dump")


def begun_with(path: Path, setting: str) -> object | None:
    """What a dump in `path`, finished or not, was begun with; None where there is none, or it does not say."""
    for file in (Path(path) / "meta.json", Path(path) / "unfinished" / "config.json"):
        found = read_settings(file)
        if found is not None:
            return found["config"].get(setting)
    return None


def _read_csv(path: Path, header: Sequence[str]) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(csv.reader(file))
    if not lines or lines[0] != list(header):
        raise ValueError(
            f"{path}: expected the columns {', '.join(header)}; run preprocessing_pipeline.py again"
        )
    return lines[1:]


def read_dump(path: Path) -> Dump:
    """The dump in `path`.

    Raises: FileNotFoundError where there is none; ValueError where it is unfinished, of another format, or its files do
    not belong together.
    """
    path = Path(path)
    meta = read_settings(path / "meta.json")
    if meta is None:
        if (path / "unfinished").is_dir():
            raise ValueError(
                f"{path}: this dump is unfinished; run its preprocessing_pipeline.py command again"
            )
        raise FileNotFoundError(
            f"{path}: no dump there (no meta.json); make one with preprocessing_pipeline.py"
        )
    if meta["format"] != FORMAT:
        raise ValueError(
            f"{path}: a dump of format {meta['format']}, this version reads {FORMAT}; make it again"
        )
    lines = _read_csv(path / "index.csv", list(COLUMNS))
    columns = zip(*lines, strict=True) if lines else [()] * len(COLUMNS)
    rows = {
        name: np.array([kind(value) for value in values], dtype=kind)
        for (name, kind), values in zip(COLUMNS.items(), columns, strict=True)
    }
    arrays = {}
    for name, output in meta["outputs"].items():
        # A memory map cannot be empty.
        arrays[name] = np.load(
            path / f"{name}.npy", mmap_mode="r" if lines else None, allow_pickle=False
        )
        shape = (len(lines), len(meta["regions"]), output["size"])
        if arrays[name].shape != shape:
            raise ValueError(
                f"{path / name}.npy: shape {arrays[name].shape}, expected {shape}; make the dump again"
            )
    failures = [
        (image, reason) for image, reason in _read_csv(path / "failures.csv", FAILURE_COLUMNS)
    ]
    missing = [
        (image, int(face), *rest)
        for image, face, *rest in _read_csv(path / "missing.csv", MISSING_COLUMNS)
    ]
    return Dump(path, meta, rows, arrays, failures, missing)


def landmarks_of(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, 5, 2) float64 pixels of the pictures, in the order of `Row`. rows: columns of index.csv."""
    names = [f"l{axis}{i}" for i in range(5) for axis in "xy"]
    return np.stack([rows[name] for name in names], axis=1).reshape(-1, 5, 2).astype(np.float64)


def newest_dump(root: Path = DUMPS) -> Path:
    """The dump below `root` (<dataset>/<profile>) that was finished last.

    Raises: FileNotFoundError where there is none.
    """
    finished = [(meta.stat().st_mtime_ns, meta.parent) for meta in Path(root).glob("*/*/meta.json")]
    if not finished:
        raise FileNotFoundError(
            f"{root}: no finished dump there; make one with: python preprocessing_pipeline.py --data_root <dataset>"
        )
    return max(finished)[1]
