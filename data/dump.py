"""Reading a dump: a folder with the raw outputs of every expert for every face of one dataset.

`index.csv` has a line per face, `failures.csv` the pictures without one. The arrays
`<expert>.<output>.npy` (N, R, D) float16 are in the order of index.csv. `missing.csv` has the faces
for which an expert has no output (NaN). `meta.json` is written last (data/store.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.dump_checks import fault_of_meta, fault_of_rows, read_array
from data.files import read_csv
from data.samples import PEOPLE

FORMAT = 4
META = "meta.json"
NO_FACE = "no face found"  # the one reason in failures.csv that is not about an unreadable file
FAILURE_COLUMNS = ("path", "reason")
MISSING_COLUMNS = ("path", "face", "expert", "reason")
DUMPS = Path("outputs/features")  # <dataset>/<profile> below it


BOX = ("x0", "y0", "x1", "y1")
LANDMARKS = tuple(f"l{axis}{i}" for i in range(5) for axis in "xy")
COLUMNS: dict[str, type] = {  # of index.csv
    "path": str,  # of the picture, as are label to donor (data.samples.Sample)
    "face": int,  # number within the picture; 0 is the most central large one
    "label": int,
    **dict.fromkeys(("group", "split", "video", "method", *PEOPLE), str),
    **dict.fromkeys(BOX, float),  # box in pixels of the picture
    # Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them; exact,
    # so that crops cut at them are always the same.
    **dict.fromkeys(LANDMARKS, float),
    "score": float,  # of the detector, 0..1
    "face_px": float,  # shorter side of the box
    "sharpness": float,  # variance of the Laplacian of the aligned crop
    **dict.fromkeys(("yaw", "pitch", "roll"), float),  # degrees
    **dict.fromkeys(("width", "height", "file_bytes"), int),  # of the picture
    **dict.fromkeys(("mean_r", "mean_g", "mean_b"), float),  # of the picture, 0..255
    "phash": str,  # perceptual hash of the picture, 16 hexadecimal digits
}
EARLIER = tuple(name for name in COLUMNS if name not in PEOPLE)  # of an earlier version
# Columns that say which face is what; and `PEOPLE`, where any is known.
IDENTITY = ("path", "face", "label", "group", "split", "video", "method", "phash")

# Landmarks that lie on one place have no pose.
EXACT = tuple(
    x for x, kind in COLUMNS.items() if kind is float and x not in ("yaw", "pitch", "roll")
)


@dataclass
class Dump:
    """A dump that can be read.

    Attributes:
        rows: column of index.csv -> (N,) str, int64 or float64.
        arrays: `<expert>.<output>` -> (N, R, D) float16, memory-mapped.
        versions: `<expert>.<output>~<what it was trained without>` -> the same; none in meta.
        failures: (path, reason) of every picture without a row.
        missing: (path, face, expert, reason) of NaN in the arrays.
    """

    path: Path
    meta: dict
    rows: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    failures: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, int, str, str]] = field(default_factory=list)
    versions: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows["path"])

    @property
    def keys(self) -> list[str]:
        """`path#face` of every row, by which the rows of two dumps are matched."""
        faces = zip(self.rows["path"], self.rows["face"], strict=True)
        return [f"{path}#{face}" for path, face in faces]

    @property
    def digest(self) -> str:
        """SHA-256 of what the dump is of, wherever it lies: contents of the pictures, settings,
        weights, and labels, groups, splits and people of its faces."""
        known = [self.meta.get(name) for name in ("pictures", "weights", "config", "clip_model")]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        people = any((self.rows[name] != "").any() for name in PEOPLE)
        for name in (*IDENTITY, *PEOPLE) if people else IDENTITY:  # else as before these columns
            text = "\n".join(map(str, self.rows[name].tolist()))
            digest.update(text.encode(errors="surrogateescape") + b"\0")
        return digest.hexdigest()


def read_settings(path: Path) -> dict | None:
    """The object in a meta.json or config.json; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("config"), dict):
        raise ValueError(f"{path}: not written by this project; choose another folder for the dump")
    whole = path.name == META and data.get("format") == FORMAT
    if fault := fault_of_meta(data) if whole else "":
        raise ValueError(f"{path}: damaged ({fault}); delete it, and make the dump again")
    return data


def is_earlier(path: Path) -> bool:
    """Whether it is an index.csv of a version that did not keep people."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        return file.readline().strip() == ",".join(EARLIER)


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """An index.csv: column -> (N,) str, int64 or float64. Raises: ValueError where it is damaged."""
    names = EARLIER if is_earlier(path) else tuple(COLUMNS)
    lines = read_csv(path, names)
    columns = zip(*lines, strict=True) if lines else [()] * len(names)
    found = dict(zip(names, columns, strict=True))
    nobody = ("",) * len(lines)
    try:
        rows = {
            name: np.array(found.get(name, nobody), dtype=kind) for name, kind in COLUMNS.items()
        }
        fault = fault_of_rows(rows, EXACT)
    except (ValueError, OverflowError) as error:
        fault = str(error)
    if fault:
        raise ValueError(f"{path}: damaged ({fault}); make the dump again")
    return rows


def read_missing(path: Path) -> list[tuple[str, int, str, str]]:
    """(path, face, expert, reason) from a missing.csv."""
    lines = read_csv(path, MISSING_COLUMNS)
    try:
        return [(image, int(face), *rest) for image, face, *rest in lines]
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); make the dump again") from None


def read_dump(path: Path) -> Dump:
    path = Path(path)
    meta = read_settings(path / META)
    if meta is None and (path / "unfinished").is_dir():
        raise ValueError(f"{path}: unfinished; run its preprocessing_pipeline.py command again")
    if meta is None:
        raise FileNotFoundError(f"{path}: no dump there; make one with preprocessing_pipeline.py")
    if meta.get("format") != FORMAT:
        raise ValueError(
            f"{path}: a dump of format {meta.get('format')}, this version reads {FORMAT}; make it "
            "again with preprocessing_pipeline.py --overwrite"
        )
    rows = read_rows(path / "index.csv")
    faces = len(rows["path"])
    arrays = {
        name: read_array(path / f"{name}.npy", (faces, len(meta["regions"]), output["size"]))
        for name, output in meta["outputs"].items()
    }
    failures = [(name, reason) for name, reason in read_csv(path / "failures.csv", FAILURE_COLUMNS)]
    missing = [each for each in read_missing(path / "missing.csv") if each[2] in meta["weights"]]
    versions = {name: arrays.pop(name) for name in [*arrays] if "~" in name}
    meta["outputs"] = {name: meta["outputs"][name] for name in arrays}
    return Dump(path, meta, rows, arrays, failures, missing, versions)


def landmarks_of(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, 5, 2) float64 pixels. rows: columns of index.csv."""
    columns = [rows[name] for name in LANDMARKS]
    return np.stack(columns, axis=1).reshape(-1, 5, 2).astype(np.float64)


def newest_dump(root: Path = DUMPS) -> Path:
    """The dump below `root` (<dataset>/<profile>) that was finished last."""
    finished = [(meta.stat().st_mtime_ns, meta.parent) for meta in Path(root).glob("*/*/meta.json")]
    if not finished:
        raise FileNotFoundError(
            f"{root}: no dump there; make one: preprocessing_pipeline.py --data_root <dataset>"
        )
    return max(finished)[1]
