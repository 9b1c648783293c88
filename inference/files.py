"""Pictures, videos and folders in; JSON, CSV and cards out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from data.images import SUFFIXES, ImageError
from data.layouts.tree import files_below
from data.reader import Reader
from data.samples import FRAMES, is_video
from data.video import VIDEO_SUFFIXES
from inference.clips import predict_clip, read_worst_frame
from inference.detector import Detector
from inference.verdict import CSV_COLUMNS, Verdict

SCREEN = "-"  # instead of a file's name


def predict_files(
    detector: Detector,
    inputs: Sequence[Path],
    batch_size: int,
    reader: Reader,
    frames: int = FRAMES,
) -> Iterator[Verdict]:
    """Verdicts as they come; an unreadable file gets one with an error.

    inputs: pictures, videos, or folders of them; a file that is named twice is read once.
    """
    paths: list[Path] = []
    for given in inputs:
        inside = files_below(given, SUFFIXES | VIDEO_SUFFIXES) if given.is_dir() else [given]
        if not inside:
            yield Verdict(str(given), error="a folder without pictures or videos")
        paths += inside
    paths = list(dict.fromkeys(paths))
    bar = tqdm(total=len(paths), unit="image", disable=None if len(paths) > 1 else True)
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        images, found = {}, {}
        for path in batch:
            try:
                if not is_video(path):
                    images[path] = reader.image(path)
            except ImageError as error:
                found[path] = [Verdict(str(path), error=error.reason)]
        faces = detector.predict_batch(list(images.values()), [str(path) for path in images])
        found |= zip(images, faces, strict=True)
        for path in batch:
            yield from found.get(path) or predict_clip(detector, path, frames, reader)
        bar.update(len(batch))
    bar.close()


def write_verdicts(
    verdicts: Sequence[Verdict], json_file: str | None, csv_file: str | None
) -> None:
    """All verdicts as JSON and as CSV; `SCREEN` prints them."""
    rows = [verdict.to_json() for verdict in verdicts]
    table = pd.DataFrame(
        [verdict.to_csv() for verdict in verdicts], columns=CSV_COLUMNS, dtype=object
    )
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    for file, content in ((json_file, text), (csv_file, table.to_csv(index=False))):
        content = content.encode("utf-8", "surrogateescape")  # file names need not be UTF-8
        if file == SCREEN:
            sys.stdout.buffer.write(content)
        elif file:
            Path(file).write_bytes(content)


def write_explanation(verdict: Verdict, folder: Path, number: int, reader: Reader) -> None:
    """The card and the JSON of one face; for a person in a video those of the worst frame."""
    from inference.card import write_card

    path, place = Path(verdict.path), ""
    if verdict.clip:
        image = read_worst_frame(path, verdict, reader)
        place = f"_person_{verdict.face + 1}_frame_{verdict.clip['worst']['frame'] + 1}"
    else:
        image = reader.image(path)
    if not isinstance(image, ImageError):
        shown = verdict.worst_frame or verdict
        label = shown.verdict.replace(" ", "_")
        write_card(shown, image, folder, f"{number:04d}_{_stem(path)}{place}_{label}")


def write_curves(verdicts: Sequence[Verdict], folder: Path) -> None:
    from inference.card import draw_scores

    clips: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.clip:
            clips.setdefault(verdict.path, []).append(verdict)
    for number, (path, people) in enumerate(clips.items(), 1):
        draw_scores(people).savefig(folder / f"clip_{number:04d}_{_stem(Path(path))}_scores.png")


def _stem(path: Path) -> str:
    """A file name that every system takes: letters and digits of any alphabet, not too many."""
    return re.sub(r"[^\w.-]+", "_", path.stem)[:40]
