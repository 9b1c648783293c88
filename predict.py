"""Judge face images: real or fake, how sure, and why.

One picture, several, or folders of them, with the bundled detector:
    python predict.py photo.jpg
    python predict.py photo.jpg folder/ --csv verdicts.csv --pictures outputs/verdicts
With a detector of your own, all faces of each picture, as JSON on the screen:
    python predict.py folder/ --checkpoint checkpoints/mine --faces all --json -
Without arguments: score the test split of the newest dump with the newest checkpoint, print the metrics and write
predictions.csv beside the dump:
    python predict.py

p_fake is calibrated on validation faces; the verdict is `fake` from the checkpoint's threshold on, which lets a stated share of
real validation faces through as fake. Exit code: 0 everything was scored, 2 bad usage, 3 some inputs could not be scored
(they are listed with the reason).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.dump import Dump, newest_dump, read_dump
from data.faces import FaceCrops, FaceCutter
from data.images import MAX_PIXELS, SUFFIXES, ImageError, read_image
from data.layouts.tree import files_below
from data.quality import QUALITIES, in_words
from features.explain import MEDIAN, Reason, reasons
from features.pipeline import FeaturePipeline
from models import CLIP_MODEL
from models.checkpoint import Checkpoint, newest_checkpoint
from models.heads import Head
from models.metrics import summary, table
from models.panel import Panel, find_device

BUNDLED = Path(__file__).parent / "checkpoints" / "default"
COLUMNS = ("path", "face", "p_fake", "verdict", "quality", "reasons", "error")
NEEDED = ("weights", "outputs", "features", "head", "calibration", "threshold")  # of a checkpoint


@dataclass
class Verdict:
    """What is said of one face, or why nothing can be said of one picture (`error`)."""

    path: str
    face: int | None = None
    p_fake: float | None = None
    verdict: str = ""
    quality: dict[str, float | str] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    error: str = ""
    box: tuple[float, ...] = ()  # x0, y0, x1, y1 in pixels of the picture
    aligned: np.ndarray | None = field(default=None, repr=False)  # (112, 112, 4) uint8 RGBA, for pictures

    def to_json(self) -> dict:
        row = {name: getattr(self, name) for name in COLUMNS}
        return {**row, "reasons": [reason.to_json() for reason in self.reasons], "box": [round(x, 1) for x in self.box]}

    def to_csv(self) -> dict:
        """The same row in flat text: what is unknown is empty, reasons are parted by ` | `."""
        row = {name: "" if getattr(self, name) is None else getattr(self, name) for name in COLUMNS}
        row["quality"] = "; ".join(f"{name}={value}" for name, value in self.quality.items())
        row["reasons"] = " | ".join(reason.sentence for reason in self.reasons)
        return row | {"p_fake": "" if self.p_fake is None else f"{self.p_fake:.4f}"}


class Scorer:
    """A checkpoint, ready to score raw answers.

    checkpoint: a folder that train.py wrote.
    Raises: FileNotFoundError, ValueError where it cannot be used.
    """

    def __init__(self, checkpoint: Path = BUNDLED) -> None:
        self.checkpoint = Checkpoint.load(checkpoint)
        info = self.checkpoint.info
        missing = [name for name in NEEDED if name not in info]
        if missing or "reference" not in self.checkpoint.arrays:
            raise ValueError(
                f"{checkpoint}: not a whole detector (lacks {', '.join(missing) or 'reference'}); train again"
            )
        self.pipeline = FeaturePipeline.from_state(info, self.checkpoint.arrays)
        self.head = Head.from_state(info, self.checkpoint.arrays)

    @property
    def threshold(self) -> float:
        return self.checkpoint.info["threshold"]["p_fake"]

    def score(self, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, F), in the checkpoint's order, and calibrated P(fake) (N,), from raw outputs (N, R, D).

        P(fake) is NaN for a face without a single feature.
        """
        values = self.pipeline.transform(arrays).values
        return values, np.where(np.isnan(values).all(1), np.nan, self.head.p_fake(values))


class Detector(Scorer):
    """A checkpoint and its experts, ready to judge pictures.

    faces: `one` (the most central large face) or `all`. weights_dir: a folder with the experts' weight files, which are
    then not downloaded.
    Raises: FileNotFoundError, ValueError where the checkpoint cannot be used with the weights at hand.
    """

    def __init__(
        self, checkpoint: Path = BUNDLED, device: str = "cpu", faces: str = "one", weights_dir: Path | None = None
    ) -> None:
        super().__init__(checkpoint)
        info = self.checkpoint.info
        self.panel = Panel(
            tuple(info["weights"]),
            find_device(device),
            bf16=info.get("precision") == "bfloat16",  # as the answers that it was trained on
            weights_dir=weights_dir,
            clip_model=info.get("clip_model", CLIP_MODEL),
        )
        here = self.panel.weights
        if info["weights"] != here:
            raise ValueError(
                f"{checkpoint}: trained on answers of {_short(info['weights'])}, but the experts here are {_short(here)}; "
                "preprocess and train again, or restore those weights"
            )
        self.cutter = FaceCutter(faces, crops=self.panel.crops.values())

    def judge(self, images: list[np.ndarray], paths: list[str]) -> list[Verdict]:
        """One verdict per face, in the order of the pictures; a picture without a face gets one with an error.

        images: uint8 RGB (H, W, 3) each.
        """
        if not images:
            return []
        crops = self.cutter(images)
        faceless = set(range(len(images))) - set(crops.image.tolist())
        found = {index: [Verdict(paths[index], error="no face found")] for index in faceless}
        if len(crops.image):
            arrays = {name: value.numpy() for name, value in self.panel(crops.views).items()}
            values, p_fakes = self.score(arrays)
            reference = self.checkpoint.arrays["reference"]
            pushes = self.head.contributions(values, reference[MEDIAN])
            for row, p_fake in enumerate(p_fakes):
                if np.isnan(p_fake):
                    verdict = Verdict("", face=int(crops.face[row]), error="no expert has an answer about this face")
                else:
                    verdict = self._verdict(crops, row, float(p_fake), values[row], pushes[row], reference)
                    silent = [
                        e.name for e in self.panel.experts if np.isnan(arrays[f"{e.name}.{[*e.outputs][0]}"][row]).all()
                    ]
                    if silent:
                        verdict.quality["overall"] += f", no answer of {', '.join(silent)}"
                verdict.path = paths[int(crops.image[row])]
                found.setdefault(int(crops.image[row]), []).append(verdict)
        return [verdict for index in range(len(images)) for verdict in found[index]]

    def _verdict(
        self, crops: FaceCrops, row: int, p_fake: float, values: np.ndarray, pushes: np.ndarray, reference: np.ndarray
    ) -> Verdict:
        fake = p_fake >= self.threshold
        return Verdict(
            path="",
            face=int(crops.face[row]),
            p_fake=p_fake,
            verdict="fake" if fake else "real",
            quality=in_words({name: float(getattr(crops, name)[row]) for name in QUALITIES}),
            reasons=reasons(self.checkpoint.info["features"], values, pushes, reference, fake),
            box=tuple(float(x) for x in crops.box[row]),
            aligned=crops.aligned[row].permute(1, 2, 0).cpu().numpy(),
        )


def _short(weights: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:12]}" for name, digest in weights.items())


def judge_files(detector: Detector, inputs: list[Path], batch_size: int, max_pixels: int) -> Iterator[Verdict]:
    """Verdicts for pictures and folders of pictures, as they come; what cannot be read costs only itself."""
    paths: list[Path] = []
    for given in inputs:
        inside = files_below(given, SUFFIXES) if given.is_dir() else [given]
        if not inside:
            yield Verdict(str(given), error="a folder without pictures")
        paths += inside
    bar = tqdm(total=len(paths), unit="image", disable=None if len(paths) > 1 else True)
    for start in range(0, len(paths), batch_size):
        batch, images, failed = paths[start : start + batch_size], [], {}
        for path in batch:
            try:
                images.append(read_image(path, max_pixels))
            except ImageError as error:
                failed[path] = Verdict(str(path), error=error.reason)
        judged = detector.judge(images, [str(path) for path in batch if path not in failed])
        for path in batch:
            yield from [failed[path]] if path in failed else [v for v in judged if v.path == str(path)]
        bar.update(len(batch))
    bar.close()


def score_dump(detector: Scorer, dump: Dump, split: str) -> Path:
    """Score one split of a dump, print the metrics, write predictions.csv beside it. Returns the file's path.

    Raises: ValueError where the dump was made with other experts, or has no such split.
    """
    detector.checkpoint.check_answers(dump.meta, str(dump.path))
    rows = np.flatnonzero(dump.rows["split"] == split)
    if not len(rows):
        raise ValueError(
            f"{dump.path}: no rows in split {split!r}; it has {', '.join(sorted(map(str, set(dump.rows['split']))))}"
        )
    p_fake = detector.score({name: value[rows] for name, value in dump.arrays.items()})[1]
    label, group, known = dump.rows["label"][rows], dump.rows["group"][rows], ~np.isnan(p_fake)
    if not known.any():
        raise ValueError(f"{dump.path}: no face of split {split!r} has a single feature; see its missing.csv")
    figures = summary(label[known], p_fake[known], group[known], detector.threshold)
    print(table({f"{dump.meta['dataset']} {split}": figures}))
    if not known.all():
        print(f"warning: {int((~known).sum())} faces have not a single feature and no score; see missing.csv")
    out = dump.path / "predictions.csv"
    with out.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "face", "label", "group", "split", "p_fake", "verdict"))
        for row, p in zip(rows, p_fake, strict=True):
            said = ("", "") if np.isnan(p) else (f"{p:.6f}", "fake" if p >= detector.threshold else "real")
            writer.writerow([*(dump.rows[name][row] for name in ("path", "face", "label", "group", "split")), *said])
    return out


def show(verdict: Verdict, threshold: float) -> str:
    """A verdict as a person reads it."""
    if verdict.error:
        return f"{verdict.path}: not scored: {verdict.error}"
    face = f" (face {verdict.face + 1})" if verdict.face else ""
    lines = [
        f"{verdict.path}{face}: {verdict.verdict.upper()}  p_fake {verdict.p_fake:.2f}, fake from {threshold:.2f} on"
    ]
    if verdict.quality["overall"] != "good":
        lines.append(f"    careful: {verdict.quality['overall']}")
    said = [reason.sentence for reason in verdict.reasons] or ["no single comparison speaks for this verdict"]
    return "\n".join([*lines, *(f"  - {sentence}" for sentence in said)])


def write_rows(verdicts: list[Verdict], json_file: str | None, csv_file: str | None) -> None:
    """All verdicts as JSON and/or CSV; the name `-` means the screen."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerows(verdict.to_csv() for verdict in verdicts)
    rows = json.dumps([verdict.to_json() for verdict in verdicts], indent=1, ensure_ascii=False) + "\n"
    for file, text in ((json_file, rows), (csv_file, table.getvalue())):
        content = text.encode("utf-8", "surrogateescape")  # file names need not be UTF-8
        if file == "-":
            sys.stdout.buffer.write(content)
        elif file:
            Path(file).write_bytes(content)


def main(args: argparse.Namespace) -> int:
    """Do what the command line says. Returns the exit code."""
    checkpoint = args.checkpoint or (BUNDLED if args.inputs else newest_checkpoint())
    quiet = "-" in (args.json, args.csv)
    for file in (args.json, args.csv):  # before anything takes long
        if file and file != "-":
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).open("a").close()
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    if not args.inputs:
        detector = Scorer(checkpoint)
        dump = read_dump(args.features or newest_dump())
        print(f"checkpoint: {checkpoint}\ndump: {dump.path}, split {args.split}")
        print("written:", score_dump(detector, dump, args.split))
        return 0
    detector = Detector(checkpoint, args.device, args.faces, args.weights_dir)
    verdicts = []
    for verdict in judge_files(detector, args.inputs, args.batch_size, args.max_pixels):
        verdicts.append(verdict)
        if not quiet:
            tqdm.write(show(verdict, detector.threshold))
        if args.pictures and not verdict.error:
            from data.pictures import draw_verdict

            stem = re.sub(r"[^\w.-]+", "_", Path(verdict.path).stem, flags=re.ASCII)[:80]
            name = f"{len(verdicts):04d}_{stem}_{verdict.verdict}.png"
            draw_verdict(
                verdict, detector.threshold, read_image(Path(verdict.path), args.max_pixels), args.pictures / name
            )
        verdict.aligned = None  # a folder may hold a million pictures
    write_rows(verdicts, args.json, args.csv)
    failed = [verdict for verdict in verdicts if verdict.error]
    print(f"{len(verdicts) - len(failed)} faces scored, {len(failed)} inputs not scored", file=sys.stderr)
    for verdict in failed if quiet else []:
        print(f"  {verdict.path}: {verdict.error}", file=sys.stderr)
    return 3 if failed else 0


def cli() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="IMAGE|FOLDER", help="pictures, or folders of pictures")
    parser.add_argument("--checkpoint", type=Path, help="a folder that train.py wrote (default: the bundled one)")
    parser.add_argument("--json", metavar="FILE", help="write all verdicts as JSON; - for the screen")
    parser.add_argument("--csv", metavar="FILE", help="write all verdicts as CSV; - for the screen")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw each verdict into this folder")
    parser.add_argument(
        "--faces", choices=("one", "all"), default="one", help="the most central large face, or every face"
    )
    parser.add_argument(
        "--features", type=Path, metavar="DUMP", help="without pictures: the dump to score (default: newest)"
    )
    parser.add_argument("--split", default="test", help="without pictures: the split to score (default: test)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="local weight files (or MASC_WEIGHTS)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help="refuse larger pictures (default %(default)s)"
    )
    args = parser.parse_args()
    if min(args.batch_size, args.max_pixels) < 1:
        parser.error("--batch-size and --max-pixels must be at least 1")
    if "" in args.inputs:
        parser.error("an empty name was given; name pictures or folders")
    if args.json == args.csv == "-":
        parser.error("--json - and --csv - cannot share the screen; give one of them a file")
    if not args.inputs and (args.json or args.csv or args.pictures):
        parser.error("--json, --csv and --pictures need pictures; a dump is scored into its predictions.csv")
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
