"""Judge face images and videos: real or fake, how sure, and why.

One picture, several, or folders of them, with the bundled detector:
    python predict.py photo.jpg
    python predict.py photo.jpg folder/ --csv verdicts.csv --explain outputs/cards
A video: every person in it, over time, and the most suspect frame of each explained:
    python predict.py clip.mp4 --frames 64 --explain outputs/cards
With a detector of your own, all faces of each picture, as JSON on the screen:
    python predict.py folder/ --checkpoint checkpoints/mine --faces all --json -
Without arguments: score the test split of the newest dump with the newest checkpoint, print the metrics and write
predictions.csv beside the dump:
    python predict.py

p_fake is calibrated on validation faces; the verdict is `fake` from the checkpoint's threshold on, which lets a stated share of
real validation faces through as fake, `real` below one half, and `cannot tell` between them, or where the face is smaller, more
blurred, more averted or otherwise unlike 99 of 100 faces that the detector learned from. --explain draws a card of every face
and writes the same as JSON: what each region says, which disagree, what that adds to the score. Exit code: 0 everything was
scored, 2 bad usage, 3 some inputs could not be scored (they are listed with the reason).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.dump import Dump, newest_dump, read_dump
from data.images import MAX_PIXELS, ImageError, read_image
from data.quality import QUALITIES
from data.samples import FRAMES
from data.video import read_frames
from evaluation.metrics import summary, table
from inference.detector import BUNDLED, Detector, Explainer, predict_files
from inference.verdict import COLUMNS, Verdict
from models.checkpoint import newest_checkpoint

__all__ = ["Detector", "Verdict"]  # for use in Python: see inference/detector.py


def score_dump(detector: Explainer, dump: Dump, split: str) -> Path:
    """Score one split of a dump, print the metrics, write predictions.csv beside it. Returns the file's path.

    Raises: ValueError where the dump was made with other experts, or has no such split.
    """
    detector.checkpoint.check_outputs(dump.meta, str(dump.path))
    rows = np.flatnonzero(dump.rows["split"] == split)
    if not len(rows):
        raise ValueError(
            f"{dump.path}: no rows in split {split!r}; it has {', '.join(sorted(map(str, set(dump.rows['split']))))}"
        )
    values, p_fake = detector.score({name: value[rows] for name, value in dump.arrays.items()})
    label, group, known = dump.rows["label"][rows], dump.rows["group"][rows], ~np.isnan(p_fake)
    if not known.any():
        raise ValueError(
            f"{dump.path}: no face of split {split!r} has a single feature; see its missing.csv"
        )
    figures = summary(label[known], p_fake[known], group[known], detector.threshold)
    print(table({f"{dump.meta['dataset']} {split}": figures}))
    if not known.all():
        print(
            f"warning: {int((~known).sum())} faces have not a single feature and no score; see missing.csv"
        )
    out = dump.path / "predictions.csv"
    with out.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "face", "label", "group", "split", "p_fake", "verdict"))
        for row, p, columns in zip(rows, p_fake, values, strict=True):
            quality = {name: float(dump.rows[name][row]) for name in QUALITIES}
            said = (
                ("", "")
                if np.isnan(p)
                else (f"{p:.6f}", detector.decide_verdict(p, columns, quality)[0])
            )
            writer.writerow(
                [
                    *(dump.rows[name][row] for name in ("path", "face", "label", "group", "split")),
                    *said,
                ]
            )
    return out


def show(verdict: Verdict) -> str:
    """A verdict as a person reads it."""
    if verdict.error:
        return f"{verdict.path}: not scored: {verdict.error}"
    face = f" (face {verdict.face + 1})" if verdict.face else ""
    if verdict.clip:
        face = f" (person {verdict.face + 1}, in {len(verdict.clip['frames'])} of {verdict.clip['frames_looked_at']} frames)"
    lines = [f"{verdict.path}{face}: {verdict.verdict.upper()}  {verdict.score}"]
    if verdict.clip:
        spot = verdict.clip["worst"]
        when = (
            f"frame {spot['frame'] + 1}" if spot["seconds"] is None else f"{spot['seconds']:.1f} s"
        )
        lines.append(
            f"    mean over the frames, 95% {verdict.clip['low']:.2f} to {verdict.clip['high']:.2f}; highest at {when}:"
        )
    lines += [f"    cannot tell: {doubt}" for doubt in verdict.doubts]
    if verdict.quality["overall"] != "good":
        lines.append(f"    careful: {verdict.quality['overall']}")
    sentences = [reason.sentence for reason in verdict.reasons] or [
        "no single comparison speaks for this verdict"
    ]
    return "\n".join([*lines, *(f"  - {sentence}" for sentence in sentences)])


def write_rows(verdicts: list[Verdict], json_file: str | None, csv_file: str | None) -> None:
    """All verdicts as JSON and/or CSV; the name `-` means the screen."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerows(verdict.to_csv() for verdict in verdicts)
    rows = (
        json.dumps([verdict.to_json() for verdict in verdicts], indent=1, ensure_ascii=False) + "\n"
    )
    for file, text in ((json_file, rows), (csv_file, table.getvalue())):
        content = text.encode("utf-8", "surrogateescape")  # file names need not be UTF-8
        if file == "-":
            sys.stdout.buffer.write(content)
        elif file:
            Path(file).write_bytes(content)


def stem_of(path: str) -> str:
    """A file name that every system takes: letters and digits of any alphabet, not too many for its bytes."""
    return re.sub(r"[^\w.-]+", "_", Path(path).stem)[:40]


def explain(verdict: Verdict, folder: Path, number: int, max_pixels: int) -> None:
    """A card and JSON of one face; of a person in a video about the most suspect frame."""
    from inference.card import write_card

    shown, place, path = verdict.worst or verdict, "", Path(verdict.path)
    if verdict.clip:
        spot = verdict.clip["worst"]
        (image,) = read_frames(path, [(spot["frame"], spot["of"])], max_pixels)
        place = f"_person_{verdict.face + 1}_frame_{spot['frame'] + 1}"
    else:
        image = read_image(path, max_pixels)
    if not isinstance(image, ImageError):
        said = shown.verdict.replace(" ", "_")
        write_card(shown, image, folder, f"{number:04d}_{stem_of(verdict.path)}{place}_{said}")


def draw_clips(verdicts: list[Verdict], folder: Path) -> None:
    """Scores over time of every video."""
    from inference.clips import draw_scores

    clips: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.clip:
            clips.setdefault(verdict.path, []).append(verdict)
    for number, (path, people) in enumerate(clips.items(), 1):
        draw_scores(people).savefig(folder / f"clip_{number:04d}_{stem_of(path)}_scores.png")


def main(args: argparse.Namespace) -> int:
    """Do what the command line says. Returns the exit code."""
    checkpoint = args.checkpoint or (BUNDLED if args.inputs else newest_checkpoint())
    quiet = "-" in (args.json, args.csv)
    for file in (args.json, args.csv):  # before anything takes long
        if file and file != "-":
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).open("a").close()
    if args.explain:
        args.explain.mkdir(parents=True, exist_ok=True)
    if not args.inputs:
        detector = Explainer(checkpoint)
        dump = read_dump(args.features or newest_dump())
        print(f"checkpoint: {checkpoint}\ndump: {dump.path}, split {args.split}")
        print("written:", score_dump(detector, dump, args.split))
        return 0
    detector = Detector(checkpoint, args.device, args.faces, args.weights_dir)
    verdicts = []
    for verdict in predict_files(
        detector, args.inputs, args.batch_size, args.max_pixels, args.frames
    ):
        verdicts.append(verdict)
        if not quiet:
            tqdm.write(show(verdict))
        if args.explain and not verdict.error:
            explain(verdict, args.explain, len(verdicts), args.max_pixels)
        verdict.aligned = verdict.worst = verdict.identity = (
            None  # a folder may hold a million pictures
        )
    if args.explain:
        draw_clips(verdicts, args.explain)
    write_rows(verdicts, args.json, args.csv)
    failed = [verdict for verdict in verdicts if verdict.error]
    print(
        f"{len(verdicts) - len(failed)} faces scored, {len(failed)} inputs not scored",
        file=sys.stderr,
    )
    for verdict in failed if quiet else []:
        print(f"  {verdict.path}: {verdict.error}", file=sys.stderr)
    return 3 if failed else 0


def cli() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="IMAGE|VIDEO|FOLDER",
        help="pictures, videos, or folders of them",
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder that train.py wrote (default: the bundled one)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write all verdicts as JSON; - for the screen"
    )
    parser.add_argument("--csv", metavar="FILE", help="write all verdicts as CSV; - for the screen")
    parser.add_argument(
        "--explain", type=Path, metavar="DIR", help="a card (PNG) and JSON of each face into here"
    )
    parser.add_argument(
        "--faces",
        choices=("one", "all"),
        default="one",
        help="the most central large face, or every face",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=FRAMES,
        help="of every video, evenly spaced (default %(default)s)",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="DUMP",
        help="without pictures: the dump to score (default: newest)",
    )
    parser.add_argument(
        "--split", default="test", help="without pictures: the split to score (default: test)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="local weight files (or MASC_WEIGHTS)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help="refuse larger pictures (default %(default)s)",
    )
    args = parser.parse_args()
    if min(args.batch_size, args.max_pixels, args.frames) < 1:
        parser.error("--batch-size, --max-pixels and --frames must be at least 1")
    if "" in args.inputs:
        parser.error("an empty name was given; name pictures or folders")
    if args.json == args.csv == "-":
        parser.error("--json - and --csv - cannot share the screen; give one of them a file")
    if not args.inputs and (args.json or args.csv or args.explain):
        parser.error(
            "--json, --csv and --explain need pictures; a dump is scored into its predictions.csv"
        )
    if args.inputs and args.features:
        parser.error("give pictures or --features, not both")
    args.inputs = [Path(given) for given in args.inputs]
    try:
        return main(args)
    except (OSError, ValueError) as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(cli())
