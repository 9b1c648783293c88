"""The figures of docs/results.md, from the images: dumps of every labelled set, one report of all.

    make study
    python -m scripts.study --data ../shared/data --name study

A set that is missing is left out. Stop it whenever you like: the same command goes on.
`modern`, fakes of today by eleven methods, is divided by repository: those of the fakes train, and
are left out one by one. Of `highres`, real faces, half of the people train, a quarter validates.
"""

from __future__ import annotations

import csv
import logging
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import command_line
from data.files import write_csv
from models.checkpoint import Checkpoint

log = logging.getLogger("masc")
SETS = Path("outputs/study")  # folders of links with an index each
DUMPS = Path("outputs/features")
METRICS = Path("docs/metrics.csv")
REFERENCE = Path("docs/reference.csv")  # figures with genuine photographs
SWAPS = SETS / "people"
COMPARED = ("lite", "traces", "person", "head")
DEGRADED = ("jpeg:5", "blur:3", "noise:4")
COLUMNS = ("path", "label", "method", "kind", "group", "split")
KINDS = {
    "swap": ("SimSwap", "fewshot-face-translation-GAN"),
    "diffusion": (
        "FaceChain (Stable Diffusion)",
        "Stable Diffusion 3 (faker-js portraits)",
        "Arc2Face expression adapter",
    ),
    "GAN and edits": ("GPEN seg2face", "StarGAN v2", "HRFAE age edit", "StyleSwin"),
    "restoration": ("GPEN restoration", "GPEN inpainting"),
}
KIND_OF = {method: kind for kind, methods in KINDS.items() for method in methods}
# Repositories of `modern` with real faces alone; the others train.
VALIDATE = ("TencentARC/VQFR", "elvisyjlin/AttGAN-PyTorch")
TEST = (
    "GGGHSL/InfoSwap-master",
    "TencentARC/PhotoMaker",
    "dinablachman/realorfake",
    "serengil/deepface",
)


@dataclass(frozen=True)
class Config:
    data: Path = Path("../shared/data")
    """The folder of the sets; its README says what they are."""
    checkpoint: Path = Path("checkpoints/default")
    """The detector that is measured, and whose options and profile all fits have."""
    name: str = "study"
    """Name of the report."""
    left_out_heads: str = ""
    """As of preprocessing_pipeline.py; without, a line on what the head on CLIP's blocks has seen flatters."""
    networks: tuple[str, ...] = ()
    """As of evaluate.py."""


def modern_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """`COLUMNS` of modern; the group is the repository."""
    for row in _read(folder / "index.csv"):
        repository, method = row["repository"], row["method"]
        if method and method not in KIND_OF:
            raise ValueError(
                f"{folder / 'index.csv'}: of which kind is {method!r}? Say it in {__file__}"
            )
        split = "test" if repository in TEST else "val" if repository in VALIDATE else "train"
        kind = KIND_OF.get(method, "")
        yield f"pictures/{row['path']}", row["label"], method, kind, repository, split


def highres_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """`COLUMNS` of highres, whose index counts from two folders up, without `MISLABELLED`. A file
    without an identity is a person of its own.
    """
    for row in _read(folder / "index.csv"):
        if row.get("source") == MISLABELLED:
            continue
        name = Path(row["path"]).name
        person = row["identity"] or name
        split = ("test", "train", "val", "train")[zlib.crc32(person.encode()) % 4]
        yield f"pictures/{name}", "real", "", "", person, split


def _read(index: Path) -> list[dict[str, str]]:
    with index.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Of highres, as real. Three of these 300 pictures are fakes of openforensics, pixel for pixel, none is
# a real face of it, and detectors of its fakes find the rest, too (docs/research.md).
MISLABELLED = "FFHQ 256 (kirtigupta10/deepfake_image_detector)"
INDEXED = {"modern": ("modern", modern_rows), "highres": ("faces/highres", highres_rows)}
FOLDERS = {name: name for name in ("dfdc", "openforensics", "stylegan")}
FOLDERS |= {name: folder for name, (folder, _) in INDEXED.items()}


def options_of(name: str, data: Path, out: Path = SETS) -> list[str]:
    """Which pictures preprocessing_pipeline.py reads. A set with an own index is a folder of links."""
    folder, index = data / FOLDERS[name], data / "index.csv"
    if name not in INDEXED:
        listed = index.is_file() and any(row["source"] == name for row in _read(index))
        return ["--data-root", str(folder), *(["--index", str(index)] if listed else [])]
    made, rows = out / name, list(INDEXED[name][1](folder))
    made.mkdir(parents=True, exist_ok=True)
    link = made / "pictures"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.resolve(), target_is_directory=True)
    write_csv(made / "index.csv", COLUMNS, rows)
    return ["--data-root", str(made)]


def python(*arguments: str) -> int:
    """Run a script of this project. Returns: its exit code."""
    print(f"\n$ python {shlex.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, *arguments]).returncode


def with_photographs(data: Path) -> int:
    """The protocol `reference` on people whom no network has learned from. Returns: an exit code."""
    dump = DUMPS / "people" / "reference"
    commands = [
        ["-m", "training.swaps", str(data / "faces/lfw"), "--teachers", str(data / "distill")]
        + ["--out", str(SWAPS)],
        ["preprocessing_pipeline.py", "--data-root", str(SWAPS), "--experts", *COMPARED]
        + ["--out", str(dump)],
        ["evaluate.py", "--features", str(dump), "--protocols", "reference", "--name", "reference"]
        + ["--robustness", *DEGRADED, "--checkpoint", "checkpoints/lite"],
    ]
    if (SWAPS / "index.csv").is_file():  # it is always the same
        del commands[0]
    for command in commands:
        if code := python(*command):
            return code
    shutil.copy("outputs/reports/reference/metrics.csv", REFERENCE)
    return 0


def main(config: Config) -> int:
    profile = Checkpoint.load(config.checkpoint).info["profile"]
    found = [name for name in FOLDERS if (config.data / FOLDERS[name]).is_dir()]
    for name in (name for name in FOLDERS if name not in found):
        log.warning("%s: no such folder; the study goes without", config.data / FOLDERS[name])
    if not found:
        raise FileNotFoundError(f"{config.data}: none of {', '.join(FOLDERS)} is in it")
    dumps = [str(DUMPS / name / profile) for name in found]
    commands = [
        ["preprocessing_pipeline.py", *options_of(name, config.data), "--profile", profile]
        for name in found
    ]
    if config.left_out_heads:
        commands = [[*command, "--left-out-heads", config.left_out_heads] for command in commands]
    how = ["--checkpoint", str(config.checkpoint), "--name", config.name, "--limit", "400"]
    how += ["--robustness", "all", *(["--networks", *config.networks] if config.networks else [])]
    commands.append(["evaluate.py", "--features", *dumps, *how])
    for command in commands:
        if code := python(*command):
            return code
    shutil.copy(f"outputs/reports/{config.name}/metrics.csv", METRICS)
    people = [config.data / "faces/lfw", config.data / "distill"]
    if lacking := [str(folder) for folder in people if not folder.is_dir()]:
        log.warning("%s: no such folder; nothing is compared with photographs", ", ".join(lacking))
        return 0
    return with_photographs(config.data)


if __name__ == "__main__":
    stopped = "What was finished is kept: run the same command again to go on."
    sys.exit(command_line.run(main, Config, __doc__, name="scripts.study", stopped=stopped))
