"""Broken detectors, dumps and lists: a ValueError or OSError, or the answer of the sound file.

A detector whose files were changed must never give another score. Dumps and lists have no checksum:
what is read of them has to be valid (labels, splits, shapes, paths), and is not compared.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.hardening.campaign import Judge, Room, Tally
from benchmarks.hardening.commands import completed, script, warm
from benchmarks.hardening.mutations import faces, mutate
from tests.synthetic import write_dump

CLEAN = (ValueError, OSError)
ODD = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        0.5,
        1e308,
        10**30,
        float("nan"),
        float("inf"),
        -float("inf"),
    ),
    *(
        "",
        "x",
        "../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        [],
        {},
        [[]],
        {"a": {}},
        [None],
    ),
)
DEEP = 100_000  # brackets: more than any parser takes by recursion


def attack(room: Room) -> list[Tally]:
    warm()
    parts = (detector, dump, lists)
    shares = [room.count // 2, room.count // 4, room.count - room.count // 2 - room.count // 4]
    found = []
    for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
        folder = room.folder / part.__name__
        folder.mkdir()
        sound, check = part(folder)
        tally = room.tally(part.__name__)
        with Judge(check, folder, limit=1000) as judge:
            for name in sound:
                judge(folder / "sound", tally, f"sound {name}")
            for i in replace(room, count=share).times(share, part.__name__):
                rng = room.rng(number, i)
                name = sound[rng.integers(len(sound))]
                broken = folder / "broken"
                shutil.copytree(folder / "sound", broken)
                way, content = change((broken / name).read_bytes(), name, rng)
                (broken / name).write_bytes(content)
                judge(broken, tally, f"{i:05d}-{way}-{Path(name).name}", broken / name)
                shutil.rmtree(broken)
        found.append(tally)
    return found


def change(content: bytes, name: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """The way, and the file broken that way."""
    suffix = Path(name).suffix
    if suffix == ".json" and rng.random() < 0.7:
        return change_json(content, rng)
    if suffix == ".csv" and rng.random() < 0.7:
        return change_csv(content, rng)
    if suffix in (".npy", ".safetensors") and rng.random() < 0.6:  # what is before the numbers
        head = 128 if suffix == ".npy" else 8 + int.from_bytes(content[:8], "little")
        way, broken = mutate({"head": content[:head]}, rng)
        return way, broken + content[head:]
    return mutate({"bytes": content}, rng)


def change_json(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    data = json.loads(content)
    if rng.random() < 0.02:
        return "deep", b"[" * DEEP + b"]" * DEEP
    above, key = places(data)[rng.integers(len(places(data)))]
    way = ("odd", "odd", "odd", "gone", "moved", "deep")[rng.integers(6)]
    if way == "gone":
        del above[key]
    elif way == "moved":
        other, theirs = places(data)[rng.integers(len(places(data)))]
        above[key] = copy.deepcopy(other[theirs])
    else:
        above[key] = "@" if way == "deep" else ODD[rng.integers(len(ODD))]
    text = json.dumps(data)
    return way, text.replace('"@"', '{"a":' * DEEP + "1" + "}" * DEEP).encode()


def places(data: object) -> list[tuple[dict | list, object]]:
    """Every value as what holds it and its key; of long lists the first three."""
    keys = (
        data
        if isinstance(data, dict)
        else range(min(3, len(data)))
        if isinstance(data, list)
        else ()
    )
    found = [(data, key) for key in keys]
    return found + [place for key in keys for place in places(data[key])]


def change_csv(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    lines = [line.split(",") for line in content.decode().splitlines()]
    row = lines[rng.integers(len(lines))]
    place = int(rng.integers(len(row)))
    way = ("odd", "odd", "gone", "more", "long", "quote", "twice", "utf16")[rng.integers(8)]
    if way == "odd":
        row[place] = str(ODD[rng.integers(len(ODD))])
    elif way == "gone":
        del row[place]
    elif way == "more":
        row.append("more")
    elif way == "long":
        row[place] = "x" * 200_000
    elif way == "quote":
        row[place] = '"' + row[place]
    elif way == "twice":
        lines.append(row)
    text = "\n".join(",".join(line) for line in lines) + "\n"
    return way, text.encode("utf-16") if way == "utf16" else text.encode("utf-8", "surrogatepass")


Part = tuple[list[str], Callable[[Path], str]]  # names of the files, and the check of a folder


def detector(folder: Path) -> Part:
    from data.dump import read_dump
    from inference.detector import Explainer

    made = read_dump(write_dump(folder / "made" / "toy", groups=40))
    ended = completed(
        script("train.py", "--features", made.path, "--out", folder / "sound"), folder
    )
    if wrong := ended.wrong(0):
        raise RuntimeError(f"no detector to break: {wrong}")
    arrays = {name: np.asarray(array[:20]) for name, array in made.arrays.items()}
    quality = dict.fromkeys(("sharpness", "score", "yaw"), 0.0) | {"face_px": 100.0}

    def answers(checkpoint: Path) -> str:
        loaded = Explainer(checkpoint)
        features, p_fake = loaded.score(arrays)
        return repr(
            [
                loaded.explain(
                    p, row, quality, {name: a[i] for name, a in arrays.items()}
                ).to_json()
                for i, (p, row) in enumerate(zip(p_fake, features, strict=True))
            ]
        )

    sound = answers(folder / "sound")

    def check(checkpoint: Path) -> str:
        try:
            found = answers(checkpoint)
        except CLEAN as error:
            return _vague(error, checkpoint)
        return "" if found == sound else "another answer, and not a word"

    (numbers,) = (path.name for path in (folder / "sound").glob("arrays-*.safetensors"))
    return ["checkpoint.json", "checkpoint.json", numbers], check


def _vague(error: Exception, path: Path) -> str:
    """Whether a message does not say which file it is about."""
    return "" if path.name in str(error) else f"names no file: {type(error).__name__}: {error}"


def dump(folder: Path) -> Part:
    from data.dump import EXACT, read_dump
    from data.feature_dataset import join_dumps

    made = write_dump(folder / "sound", groups=20)
    names = sorted(path.name for path in made.iterdir())

    def check(path: Path) -> str:
        try:
            found = read_dump(path)
            join_dumps([found])
        except CLEAN as error:
            return _vague(error, path)
        if wrong := set(found.rows["label"]) - {0, 1}:
            return f"labels {wrong}"
        if wrong := set(found.rows["split"]) - {"train", "val", "test"}:
            return f"splits {wrong}"
        if wrong := [name for name in found.rows["path"] if _outside(name)]:
            return f"a path out of the folder: {wrong[0]!r}"
        if wrong := [name for name in EXACT if not np.isfinite(found.rows[name]).all()]:
            return f"not finite: {wrong[0]}"
        if wrong := [x.dtype for x in found.arrays.values() if x.dtype != np.float16]:
            return f"an array of {wrong[0]}"
        return ""

    return [*names, "meta.json", "index.csv"], check


def _outside(name: str) -> bool:
    return not name or name.startswith("/") or ".." in Path(name).parts or "\0" in name


def lists(folder: Path) -> Part:
    """An index.csv, a metadata.json of DFDC and a list of DeepfakeBench, each with its pictures."""
    from data.datasets import find_samples
    from data.inventory import survey

    logging.getLogger("masc").setLevel(logging.CRITICAL)  # notes on what is found
    root, picture = folder / "sound", Image.fromarray(faces(32)[0])
    clips = [(label, f"{label}{i}") for label in ("real", "fake") for i in range(3)]
    for _, name in clips:
        for place in ("csv", "dfdc", "bench/FaceForensics++"):
            (root / place / name).mkdir(parents=True)
            picture.save(root / place / name / "0.png")
    rows = [f"{name}/0.png,{label},g{i},train,{name},m" for i, (label, name) in enumerate(clips)]
    (root / "csv/index.csv").write_text(
        "\n".join(["path,label,group,split,video,method", *rows, ""])
    )
    entries = {
        f"{name}.mp4": {"label": label.upper(), "split": "train", "original": "real0.mp4"}
        for label, name in clips
    }
    (root / "dfdc/metadata.json").write_text(json.dumps(entries))
    listed = {label: {"train": {}} for label in ("FF-real", "FF-DF")}
    for label, name in clips:
        key = "FF-real" if label == "real" else "FF-DF"
        frames = [f"/data/FaceForensics++/{name}/0.png"]
        listed[key]["train"][name] = {"label": key, "frames": frames}
    (root / "bench/FaceForensics++.json").write_text(json.dumps({"FaceForensics++": listed}))

    def check(path: Path) -> str:
        for place in ("csv", "dfdc", "bench"):
            for read in (find_samples, survey):
                try:
                    found = read(path / place)
                except CLEAN as error:
                    if vague := _vague(error, path):
                        return f"{read.__name__}: {vague}"
                    continue
                if read is survey:
                    continue
                if wrong := {sample.label for sample in found} - {0, 1}:
                    return f"labels {wrong}"
                if wrong := [sample.path for sample in found if _outside(sample.path)]:
                    return f"a path out of the folder: {wrong[0]!r}"
        return ""

    return ["csv/index.csv", "dfdc/metadata.json", "bench/FaceForensics++.json"], check
