"""The dump: the raw outputs of every expert for every region of every face of one dataset, on disk.

A folder with `index.csv` (one `Row` per face), `failures.csv` (path, reason) of the pictures
without a face, one `<expert>.<output>.npy` (N, R, D) float16 per output, in the order of index.csv,
`missing.csv` (path, face, expert, reason) of faces for which an expert has no output (NaN in its
arrays), and `meta.json`, which is written last: where it is, the dump can be read.

This file reads dumps, data/store.py writes them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

FORMAT = 4
NO_FACE = "no face found"  # the one reason in failures.csv that is not about an unreadable file
FAILURE_COLUMNS = ("path", "reason")
MISSING_COLUMNS = ("path", "face", "expert", "reason")
DUMPS = Path("outputs/features")  # <dataset>/<profile> below it


@dataclass(frozen=True)
class Row:
    """One face; the fields are the columns of index.csv.

    Attributes:
        path: of the picture, as are label to method (data.samples.Sample).
        face: number within the picture; 0 is the most central large one.
        x0, y0, x1, y1: box in pixels of the picture.
        lx0 to ly4: left eye, right eye, nose, left and right corner of the mouth, as the viewer
            sees them; exact, so that crops cut at them are always the same.
        score: of the detector, 0..1.
        face_px: shorter side of the box.
        sharpness: variance of the Laplacian of the aligned crop.
        yaw, pitch, roll: degrees.
        width, height, file_bytes: of the picture.
        mean_r, mean_g, mean_b: of the picture, 0..255.
        phash: perceptual hash of the picture, 16 hexadecimal digits.
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


COLUMNS: dict[str, Callable] = {
    f.name: {"str": str, "int": int, "float": float}[f.type] for f in fields(Row)
}
LANDMARKS = tuple(f"l{axis}{i}" for i in range(5) for axis in "xy")


@dataclass
class Dump:
    """A dump that can be read.

    Attributes:
        rows: column of index.csv -> (N,) str, int64 or float64.
        arrays: `<expert>.<output>` -> (N, R, D) float16, memory-mapped; regions as meta["regions"].
        failures: (path, reason) of every picture without a row.
        missing: (path, face, expert, reason) of every row that is NaN in the arrays of an expert.
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
        """`path#face` of every row, by which the rows of two dumps are matched."""
        return [
            f"{path}#{face}"
            for path, face in zip(self.rows["path"], self.rows["face"], strict=True)
        ]


def read_settings(path: Path) -> dict | None:
    """The object in a meta.json or config.json; None where there is no such file.

    Raises:
        ValueError: it was not written by this project, or is of another format.
    """
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        data = None
    if not isinstance(data, dict) or not {"format", "config"} <= data.keys():
        raise ValueError(f"{path}: not written by this project; choose another folder for the dump")
    return data


def check_format(path: Path, settings: dict) -> None:
    if settings["format"] != FORMAT:
        raise ValueError(
            f"{path}: a dump of format {settings['format']}, this version reads {FORMAT}; make it "
            "again with preprocessing_pipeline.py --overwrite"
        )


def read_csv(path: Path, header: Sequence[str]) -> list[list[str]]:
    """The lines below the header. File names that are not UTF-8 keep their bytes."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(csv.reader(file))
    if not lines or lines[0] != list(header):
        raise ValueError(
            f"{path}: expected the columns {', '.join(header)}; run preprocessing_pipeline.py again"
        )
    return lines[1:]


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """An index.csv: column -> (N,) str, int64 or float64."""
    lines = read_csv(path, list(COLUMNS))
    columns = zip(*lines, strict=True) if lines else [()] * len(COLUMNS)
    return {
        name: np.array([kind(value) for value in values], dtype=kind)
        for (name, kind), values in zip(COLUMNS.items(), columns, strict=True)
    }


def read_missing(path: Path) -> list[tuple[str, int, str, str]]:
    """(path, face, expert, reason) from a missing.csv."""
    return [(image, int(face), *rest) for image, face, *rest in read_csv(path, MISSING_COLUMNS)]


def read_dump(path: Path) -> Dump:
    """The dump in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is unfinished, of another format, or its files do not belong together.
    """
    path = Path(path)
    meta = read_settings(path / "meta.json")
    if meta is None and (path / "unfinished").is_dir():
        raise ValueError(
            f"{path}: this dump is unfinished; run its preprocessing_pipeline.py command again"
        )
    if meta is None:
        raise FileNotFoundError(
            f"{path}: no dump there (no meta.json); make one with preprocessing_pipeline.py"
        )
    check_format(path, meta)
    rows = read_rows(path / "index.csv")
    faces = len(rows["path"])
    arrays = {}
    for name, output in meta["outputs"].items():
        # A memory map cannot be empty.
        file = path / f"{name}.npy"
        arrays[name] = np.load(file, mmap_mode="r" if faces else None, allow_pickle=False)
        shape = (faces, len(meta["regions"]), output["size"])
        if arrays[name].shape != shape:
            raise ValueError(
                f"{file}: shape {arrays[name].shape}, expected {shape}; make the dump again"
            )
    failures = [(name, reason) for name, reason in read_csv(path / "failures.csv", FAILURE_COLUMNS)]
    missing = [each for each in read_missing(path / "missing.csv") if each[2] in meta["weights"]]
    return Dump(path, meta, rows, arrays, failures, missing)


def landmarks_of(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, 5, 2) float64 pixels, in the order of `Row`. rows: columns of index.csv."""
    columns = [rows[name] for name in LANDMARKS]
    return np.stack(columns, axis=1).reshape(-1, 5, 2).astype(np.float64)


def newest_dump(root: Path = DUMPS) -> Path:
    """The dump below `root` (<dataset>/<profile>) that was finished last.

    Raises:
        FileNotFoundError: there is none.
    """
    finished = [(meta.stat().st_mtime_ns, meta.parent) for meta in Path(root).glob("*/*/meta.json")]
    if not finished:
        raise FileNotFoundError(
            f"{root}: no finished dump there; make one with: python preprocessing_pipeline.py "
            "--data_root <dataset>"
        )
    return max(finished)[1]
