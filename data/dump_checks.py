"""What must be true of the files of a dump, so that a damaged or altered one is refused by name."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

AGAIN = "make the dump again"
# Of an output: <expert>.<output>, of a version of it with a tilde and what that was trained without.
NAME = re.compile(r"\w+(\.\w+)+(~[^/\0]+)?", re.ASCII)
HASH = re.compile(r"[0-9a-f]{16}")
# Raised by numpy where the header of an array is damaged.
NO_HEADER = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
KINDS = {  # of the values in meta.json
    "format": int,
    "config": dict,
    "dataset": str,
    "data_root": str,
    "profile": str,
    "regions": list,
    "outputs": dict,
    "weights": dict,
    "counts": dict,
}
OPTIONAL = {"clip_model": str, "pictures": str, "versions": dict}
SETTINGS = {"faces": str, "precision": str, "max_pixels": int, "degrade": str, "samples": str}


def fault_of_meta(meta: Mapping) -> str:
    """What is wrong with a meta.json; "" nothing."""
    for name, kind in (KINDS | OPTIONAL).items():
        if name not in meta and name in OPTIONAL:
            continue
        if type(meta.get(name)) is not kind:
            return f"{name} is no {kind.__name__}"
    for name, kind in SETTINGS.items():
        if name in meta["config"] and type(meta["config"][name]) is not kind:
            return f"the setting {name} is no {kind.__name__}"
    for name in ("dataset", "profile"):  # parts of paths
        if meta[name] in ("", ".", "..") or "/" in meta[name] or "\0" in meta[name]:
            return f"{name} is no name of a folder"
    if not all(isinstance(name, str) for name in meta["regions"]):
        return "regions are not names"
    if not all(isinstance(sha, str) for sha in meta["weights"].values()):
        return "weights are not told by their SHA-256"
    if not all(type(count) is int and count >= 0 for count in meta["counts"].values()):
        return "counts are not numbers"
    faults = (_fault_of_output(*item, meta["weights"]) for item in meta["outputs"].items())
    return next(filter(None, faults), "")


def _fault_of_output(name: str, output: object, weights: Mapping) -> str:
    if not NAME.fullmatch(name) or name.partition(".")[0] not in weights:
        return f"{name!r} is no output of its experts"
    known = isinstance(output, dict) and {"kind", "size", "names"} <= output.keys()
    if not known or type(output["size"]) is not int or not 0 < output["size"] < 1 << 20:
        return f"the size of {name} is no number"
    names = output["names"]
    if not isinstance(output["kind"], str) or not isinstance(names, list):
        return f"the kind or the names of {name} are wrong"
    if not all(isinstance(each, str) for each in names) or len(names) not in (0, output["size"]):
        return f"the names of {name} are wrong"
    return ""


def fault_of_rows(rows: Mapping[str, np.ndarray], exact: tuple[str, ...]) -> str:
    """What is wrong with an index.csv; "" nothing. exact: columns that hold numbers."""
    paths = rows["path"].tolist()
    for name in exact:
        if (bad := np.flatnonzero(~np.isfinite(rows[name]))).size:
            return f"{name} of {paths[bad[0]]} is no number"
    for name, wanted in (("label", (0, 1)), ("split", ("train", "val", "test"))):
        if (bad := np.flatnonzero(~np.isin(rows[name], wanted))).size:
            found = rows[name][bad[0]]
            return f"the {name} of {paths[bad[0]]} is {str(found)!r}"
    for path in dict.fromkeys(paths):
        pure = PurePosixPath(path)
        if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in path:
            return f"{path!r} is no path below the folder of the dataset"
    if (rows["face"] < 0).any():
        return "a face has a number below 0"
    faces = list(zip(paths, rows["face"].tolist(), strict=True))
    if len(set(faces)) < len(faces):
        return f"it holds face {_repeated(faces)[1]} of {_repeated(faces)[0]} twice"
    if 1 + sum(a != b for a, b in pairwise(paths)) > max(1, len(set(paths))):
        return "the faces of a picture do not follow each other"
    if bad := [text for text in rows["phash"].tolist() if not HASH.fullmatch(text)]:
        return f"{bad[0]!r} is no perceptual hash"
    return ""


def _repeated(faces: list[tuple[str, int]]) -> tuple[str, int]:
    seen: set[tuple[str, int]] = set()
    return next(face for face in faces if face in seen or seen.add(face))


def read_array(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """An array of float16 as it was written, memory-mapped. Raises: ValueError for any other."""
    if not file.is_file():
        raise ValueError(f"{file}: gone; {AGAIN}")
    try:
        with file.open("rb") as opened:
            np.lib.format.read_magic(opened)
            found, columns_first, dtype = np.lib.format.read_array_header_1_0(opened)
            offset = opened.tell()
    except NO_HEADER:
        raise ValueError(f"{file}: damaged; {AGAIN}") from None
    if found != shape:
        raise ValueError(f"{file}: shape {found}, expected {shape}; {AGAIN}")
    if dtype != np.dtype("<f2") or columns_first:
        raise ValueError(f"{file}: holds {dtype}, expected float16; {AGAIN}")
    if file.stat().st_size != offset + 2 * int(np.prod(shape)):
        raise ValueError(f"{file}: cut short, or longer than it was; {AGAIN}")
    if not shape[0]:  # a map cannot be empty
        return np.empty(shape, np.float16)
    return np.memmap(file, np.float16, "r", offset, shape)
