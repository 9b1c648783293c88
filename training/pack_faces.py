"""Pack real training faces into one file, for a machine that has no dataset.

    python -m training.pack_faces --features outputs/features/*/lite --out faces.zip
    python -m training.trace_net --faces faces.zip

The same share of every dump, picked at random: pictures as they are, byte for byte, since to
compress them again would change their traces, with the landmarks of their faces. Real faces of the
train split only.
"""

from __future__ import annotations

import csv
import io
import logging
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from command_line import run
from data.alignment import align
from data.dump import LANDMARKS, landmarks_of, read_dump
from data.files import replacing
from data.images import ImageError, read_image
from training.aligned_crops import WIDE_CROP, AlignedCrops, on_crop, roots_of, training_rows

log = logging.getLogger("masc")
HEADER = ("file", "dataset", *LANDMARKS)
INDEX = "index.csv"
MB = 1_000_000
ENTRY = 600  # bytes, more than a picture takes in the lists of a zip file and in the index


@dataclass(kw_only=True)
class Config:
    features: tuple[Path, ...]
    """dumps whose real faces are packed"""
    data_root: tuple[str, ...] = ()
    """DATASET=DIR for pictures that have moved"""
    out: Path = Path("outputs/real_faces.zip")
    limit_mb: float = 25.0
    """size of the file, in millions of bytes"""
    seed: int = 0
    """of the random choice"""


@dataclass(frozen=True)
class Picked:
    """A picture of a dataset and its real faces."""

    path: Path
    dataset: str
    landmarks: list[np.ndarray]  # (5, 2) px each


def pictures(config: Config) -> list[Picked]:
    """All that may be packed, in a random order that takes the same share of every dump."""
    rng, found = np.random.default_rng(config.seed), []
    dumps = [read_dump(path) for path in config.features]
    for dump, root in zip(dumps, roots_of(dumps, config.data_root), strict=True):
        points, faces = landmarks_of(dump.rows), {}
        for row in training_rows(dump):
            faces.setdefault(dump.rows["path"][row], []).append(points[row])
        places = (rng.permutation(len(faces)) + 0.5) / max(1, len(faces))
        found += [
            (place, len(found) + i, Picked(root / path, dump.meta["dataset"], marks))
            for i, (place, (path, marks)) in enumerate(zip(places, faces.items(), strict=True))
        ]
    return [picked for _, _, picked in sorted(found, key=lambda item: item[:2])]


def pack(config: Config) -> tuple[int, int]:
    """Write the file. Returns: pictures packed, of how many.

    Raises: ValueError: none can be read, or none fits.
    """
    found, used, unread, packed = pictures(config), 0, [], 0
    index = io.StringIO()
    writer = csv.writer(index, lineterminator="\n")
    writer.writerow(HEADER)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(config.out) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for picked in found:
                try:
                    content = picked.path.read_bytes()
                except OSError as error:  # also a frame within a video
                    unread.append(error)
                    continue
                size = len(content) + ENTRY * len(picked.landmarks)
                if used + size > config.limit_mb * MB:
                    break
                used, name = used + size, f"{packed:06d}{picked.path.suffix.lower()}"
                archive.writestr(zipfile.ZipInfo(name), content)
                for marks in picked.landmarks:
                    numbers = [repr(float(x)) for x in marks.ravel()]
                    writer.writerow([name, picked.dataset, *numbers])
                packed += 1
            archive.writestr(zipfile.ZipInfo(INDEX), index.getvalue())
        if unread:
            log.warning(f"{len(unread)} pictures left out; the first: {unread[0]}")
        if not packed:
            raise ValueError(f"no picture could be packed in {config.limit_mb:g} MB")
    return packed, len(found)


class _Cut(Dataset):
    def __init__(self, paths: list[Path], landmarks: np.ndarray) -> None:
        self.paths, self.landmarks = paths, landmarks

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor | ImageError:
        try:
            image = read_image(self.paths[row])
        except ImageError as error:
            return error
        return align([image], np.array([0]), self.landmarks[row][None], WIDE_CROP)[0]


def packed_faces(path: Path, limit: int = 0, workers: int = 2) -> AlignedCrops:
    """The faces of a file of this script, cut by worker processes.

    limit: number of faces, 0 for all. Raises: OSError; ValueError: another file, or damaged.
    """
    with TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                lines = list(csv.reader(io.StringIO(archive.read(INDEX).decode())))
                header, rows = tuple(lines[0]), lines[1 : 1 + limit if limit else None]
                if header != HEADER or len(rows) < 2:
                    raise ValueError(f"its {INDEX} is another or has fewer than two faces")
                names = dict.fromkeys(row[0] for row in rows)
                files = {name: Path(archive.extract(name, folder)) for name in names}
            landmarks = np.array([row[2:] for row in rows], float).reshape(-1, 5, 2)
        except (zipfile.BadZipFile, LookupError, ValueError) as error:
            raise ValueError(f"{path}: not a file of training.pack_faces ({error})") from error
        cv2.setNumThreads(0)  # as in training/loop.py
        cut = _Cut([files[row[0]] for row in rows], landmarks)
        loader = DataLoader(cut, batch_size=None, num_workers=workers)
        images, failed = {}, []
        for row, face in enumerate(tqdm(loader, desc=Path(path).name, unit=" faces", disable=None)):
            if isinstance(face, ImageError):
                failed.append(face)
            else:  # copied: the workers' memory is freed
                images[row] = face.permute(1, 2, 0).numpy().copy()
    if failed:
        log.warning(f"{path}: {len(failed)} pictures left out; the first: {failed[0]}")
    if len(images) < 2:
        raise ValueError(f"{path}: fewer than two faces could be read")
    kept = list(images)
    sources = np.array([rows[row][1] for row in kept])
    marks = on_crop(landmarks[kept], WIDE_CROP)
    return AlignedCrops(np.stack(list(images.values())), marks, sources)


def main(config: Config) -> Path:
    packed, of = pack(config)
    size = config.out.stat().st_size / MB
    print(f"{packed} of {of} pictures, {size:.1f} MB: {config.out}")
    return config.out


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.pack_faces"))
