"""Pictures, videos and folders in; JSON, CSV and cards out."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.files import csv_line
from data.images import SUFFIXES, ImageError, suffix_of
from data.layouts.tree import everything_below
from data.loading import BATCH_BYTES
from data.reader import Reader
from data.samples import FRAMES, is_video
from data.video import VIDEO_SUFFIXES
from inference.clips import predict_clip, read_worst_frame
from inference.detector import Detector
from inference.output import Output, is_screen
from inference.verdict import CSV_COLUMNS, WORDS, Verdict

COLUMNS = (*CSV_COLUMNS, "checkpoint")
log = logging.getLogger("masc")


def predict_files(
    detector: Detector,
    inputs: Sequence[Path],
    batch_size: int,
    reader: Reader,
    frames: int = FRAMES,
    without: Path | None = None,
) -> Iterator[Verdict]:
    """Verdicts as they come; an unreadable file gets one with an error. None is kept here.

    inputs: pictures, videos, or folders of them; a file that has several names is read once.
    without: a folder in them that is passed over: cards are no pictures to judge.
    """
    paths: list[Path] = []
    for given in inputs:
        inside, others = everything_below(given) if given.is_dir() else ([given], [])
        if without:
            inside = [
                path for path in inside if not path.resolve().is_relative_to(without.resolve())
            ]
        for path, reason in others:
            yield Verdict(str(path), error=reason)
        if not inside and not others:
            yield Verdict(str(given), error="a folder without pictures or videos")
        paths += inside
    paths = _once(paths)
    bar = tqdm(total=len(paths), unit="image", disable=None if len(paths) > 1 else True)
    for batch in _batches(paths, batch_size, reader):
        images = {path: image for path, image in batch.items() if isinstance(image, np.ndarray)}
        faces = detector.predict_batch(list(images.values()), [str(path) for path in images])
        found = dict(zip(images, faces, strict=True))
        for path, image in batch.items():
            if isinstance(image, ImageError):
                yield Verdict(str(path), error=image.reason)
            elif path in found:
                yield from detector.look_again(found.pop(path), path, reader)
            else:
                yield from predict_clip(detector, path, frames, reader)
            bar.update()
        del batch, images, image, faces, found  # before the next pictures are read
    bar.close()


def shows_video(path: Path) -> bool:
    """By its content, whatever it is called; by its name where the content does not tell."""
    head = b""
    with suppress(OSError, ValueError):  # who reads it says what is wrong
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
    content = suffix_of(head)
    return content in VIDEO_SUFFIXES if content in SUFFIXES | VIDEO_SUFFIXES else is_video(path)


def _once(paths: Sequence[Path]) -> list[Path]:
    """Without further names of a file: given twice, linked, or below two folders that were given."""
    first: dict[object, Path] = {}
    for path in paths:
        try:
            status = path.stat()
            first.setdefault((status.st_dev, status.st_ino), path)
        except (OSError, ValueError):  # ValueError: no name of a file; reading it says so
            first.setdefault(path, path)
    if several := len(set(paths)) - len(first):
        log.info("%d names of files that have another name here are left out", several)
    return list(first.values())


def _batches(
    paths: Sequence[Path], size: int, reader: Reader
) -> Iterator[dict[Path, np.ndarray | ImageError | None]]:
    """`size` pictures, fewer where they are large; None for a video, which is read later."""
    batch, nbytes = {}, 0
    for path in paths:
        try:
            batch[path] = None if shows_video(path) else reader.image(path)
        except ImageError as error:
            batch[path] = error
        nbytes += getattr(batch[path], "nbytes", 0)
        if len(batch) == size or nbytes >= BATCH_BYTES:
            yield batch
            batch, nbytes = {}, 0
    if batch:
        yield batch


class Text:
    """Verdicts in words on the screen."""

    def add(self, verdict: Verdict) -> None:
        tqdm.write(verdict.to_text())
        sys.stdout.flush()

    def close(self, whole: bool) -> None:
        pass


class Json:
    """An array with an object for each verdict; the file is valid after every row."""

    def __init__(self, target: str, checkpoint: str) -> None:
        self.output, self.checkpoint = Output(target), checkpoint

    def add(self, verdict: Verdict) -> None:
        row = verdict.to_json() | {"checkpoint": self.checkpoint}
        text = json.dumps(row, indent=1, ensure_ascii=False).replace("\n", "\n ")
        # A byte that is not UTF-8, \udcb0 in Python, becomes an escape of JSON by the same letters.
        data = text.encode("utf-8", "backslashreplace")
        self.output.write((b",\n " if self.output.size else b"[\n ") + data, b"\n]\n")

    def close(self, whole: bool) -> None:
        self.output.close(b"\n]\n" if self.output.size else b"[]\n", whole)


class Csv:
    """A row of `COLUMNS` for each verdict. Names that are not UTF-8 are kept byte by byte."""

    def __init__(self, target: str, checkpoint: str) -> None:
        self.output, self.checkpoint = Output(target), checkpoint

    def add(self, verdict: Verdict) -> None:
        row = verdict.to_csv() | {"checkpoint": self.checkpoint}
        self._write(*[COLUMNS] * (not self.output.size), [row[name] for name in COLUMNS])

    def _write(self, *rows: Sequence) -> None:
        text = "".join(map(csv_line, rows))
        self.output.write(text.encode("utf-8", "surrogateescape"))

    def close(self, whole: bool) -> None:
        if whole and not self.output.size:
            self._write(COLUMNS)
        self.output.close(b"", whole)


class Cards:
    """A card and its JSON of each face, and the scores of each video over time.

    A picture that is gone costs only its card: `failed` counts them. A disk that fails ends the run.
    """

    def __init__(self, folder: Path, reader: Reader) -> None:
        self.folder, self.reader = folder, reader
        self.number = self.clips = self.failed = 0
        self.people: list[Verdict] = []  # of the video at hand
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"  # fails before anything takes long
        probe.touch()
        probe.unlink()

    def add(self, verdict: Verdict) -> None:
        self.number += 1
        if self.people and self.people[0].path != verdict.path:
            self._draw_scores()
        if verdict.error:
            return
        try:
            write_explanation(verdict, self.folder, self.number, self.reader)
        except ImageError as error:
            self.failed += 1
            log.warning("%s: scored, but no card was drawn: %s", verdict.path, error.reason)
        if verdict.clip:
            # Frees memory.
            verdict.aligned = verdict.worst_frame = verdict.identity = verdict.reference = None
            self.people.append(verdict)

    def _draw_scores(self) -> None:
        from inference.card import draw_scores, write_figure

        self.clips += 1
        stem = _stem(Path(self.people[0].path))
        figure = draw_scores(self.people)
        write_figure(figure, self.folder / f"clip_{self.clips:04d}_{stem}_scores.png")
        self.people = []

    def close(self, whole: bool) -> None:
        if whole and self.people:
            self._draw_scores()


class Results:
    """All that is written about verdicts, as they come. A context manager.

    A reader that leaves (`| head`) is no error while something else is wanted.
    Raises: OSError that names a file; BrokenPipeError: nobody reads any of it.
    """

    def __init__(
        self,
        reader: Reader,
        checkpoint: str,
        json_file: str | None = None,
        csv_file: str | None = None,
        cards: Path | None = None,
    ) -> None:
        self.not_scored = self.incomplete = 0
        self.verdicts, self.record = Counter(), []  # record: what the detector finds, sentences
        on_screen = [is_screen(file) for file in (json_file, csv_file) if file]
        self.quiet, self.files = any(on_screen), bool(cards) or not all(on_screen)
        self.cards = Cards(cards, reader) if cards else None
        # What is seen on the screen is in the files by then.
        self.sinks = [Json(json_file, checkpoint)] if json_file else []
        self.sinks += [Csv(csv_file, checkpoint)] if csv_file else []
        self.sinks += [] if self.quiet else [Text()]
        self.sinks += [self.cards] if cards else []

    @property
    def complete(self) -> bool:
        """Whether all of every input was scored, and drawn where it is to be drawn."""
        return not (self.not_scored or self.incomplete or self.cards and self.cards.failed)

    def add(self, verdict: Verdict) -> None:
        if verdict.error:
            self.not_scored += 1
            if self.quiet:
                log.warning("%s: not scored: %s", verdict.path, verdict.error)
        else:
            self.verdicts[verdict.verdict] += 1
            self.incomplete += bool(verdict.clip and verdict.clip.get("frames_unreadable"))
        for sink in list(self.sinks):
            try:
                sink.add(verdict)
            except BrokenPipeError:
                self.sinks.remove(sink)
                if not self.sinks:
                    raise

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finished, or stopped by the user: files take their places; otherwise they stay partial."""
        scored = self.verdicts.total()
        seen = scored + self.not_scored
        stopped = kind and issubclass(kind, KeyboardInterrupt | BrokenPipeError) and seen
        for sink in self.sinks:
            if kind:
                with suppress(OSError):  # the first error is the one to tell
                    sink.close(whole=bool(stopped))
            else:
                with suppress(BrokenPipeError):
                    sink.close(whole=True)
        interrupted = stopped and issubclass(kind, KeyboardInterrupt)
        if kind is None or interrupted:
            counts = ", ".join(f"{self.verdicts[x]} {WORDS[x]}" for x in WORDS)
            log.info("%d faces scored, %d inputs not scored: %s", scored, self.not_scored, counts)
            for line in self.record if scored > 1 else ():
                log.info(line)
        if interrupted and self.files:
            log.info("what was scored until then is in the files")


def write_explanation(verdict: Verdict, folder: Path, number: int, reader: Reader) -> None:
    """The card and the JSON of one face; for a person in a video those of the worst frame.

    Raises: ImageError: the picture cannot be read any more; OSError.
    """
    from inference.card import write_card, write_figure

    path, place = Path(verdict.path), ""
    if verdict.clip:
        image = read_worst_frame(path, verdict, reader)
        place = f"_person_{verdict.face + 1}_frame_{verdict.clip['worst']['frame'] + 1}"
    else:
        image = reader.image(path, verdict.frame)
    if isinstance(image, ImageError):
        raise image
    shown = verdict.worst_frame or verdict
    label = shown.verdict.replace(" ", "_")
    stem = f"{number:04d}_{_stem(path)}{place}_{label}"
    write_card(shown, image, folder, stem)
    if shown.reference:
        from inference.person_card import draw_person_card

        write_figure(draw_person_card(shown.reference, verdict.path), folder / f"{stem}_person.png")


def _stem(path: Path) -> str:
    """A file name that every system takes: letters and digits of any alphabet, not too many."""
    return re.sub(r"[^\w.-]+", "_", path.stem)[:40]
