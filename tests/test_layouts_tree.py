"""Looking through folders: nothing is left out in silence, and one bad entry costs only itself."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.layouts import recognise
from data.layouts.tree import everything_below
from tests import miniatures
from tests.miniatures import clips, inventory, pictures


def reasons(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): reason for path, reason in everything_below(folder)[1]
    }


@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        ("IMG_1.HEIC", b"", "HEIC is not read"),
        ("a.jxl", b"", "JPEG XL is not read"),
        ("raw.cr2", b"", "raw camera data"),
        ("faces.zip", b"PK", "an archive"),
        ("photo", b"\xff\xd8\xff\xe0", r"no suffix; .* should end with \.jpg"),
        ("frame.0001", b"\x89PNG\r\n\x1a\n", r"the suffix \.0001; .* should end with \.png"),
        ("clip", b"\0\0\0\x20ftypisom", r"should end with \.mp4"),
        ("IMG_2", b"\0\0\0\x20ftypheic", "HEIC is not read"),
        ("a.xyz", b"what", "of a kind that is read"),
        ("a.jpg.crdownload", b"", "of a kind that is read"),
        ("unknown", b"\0\1\2", "of a kind that is read"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, name: str, head: bytes, reason: str) -> None:
    pictures(tmp_path / "real")
    for folder in ("real", "fake"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(head)
    found = reasons(tmp_path)
    assert set(found) == {f"real/{name}", f"fake/{name}"}
    with pytest.MonkeyPatch.context() as patch:
        told = []
        patch.setattr("data.datasets.log.warning", lambda text, *rest: told.append(text % rest))
        find_samples(tmp_path)
    assert len(told) == 1 and "2 " in told[0] and f"fake/{name}" in told[0]
    text = inventory(tmp_path)
    assert name in text
    for each in (found[f"real/{name}"], told[0], text):
        assert re.search(reason, each)


SIDE = ("a.txt", "labels.CSV", "b.json", "c.npy", "d.pkl", "e.py", "f.srt", "g.wav", "h.log", ".x")
SIDE += ("Thumbs.db", "desktop.ini", "README", "LICENSE", "_SUCCESS", "out.json.partial-1", "i.md5")


def test_side_files_are_not_named(tmp_path: Path) -> None:
    for name in SIDE:
        (tmp_path / name).touch()
    assert everything_below(tmp_path) == ([], [])


@pytest.mark.parametrize(
    "name", ["p.dat", "p.bin", "p.part", "p.txt", "p.exe", "p.db", "README", "a.json.partial"]
)
def test_a_picture_called_like_a_side_file_is_named(tmp_path: Path, name: str) -> None:
    for head, suffix in {
        b"\xff\xd8\xff\xe0\0\x10JFIF\0": ".jpg",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": ".png",
        b"BM\x36\x03\0\0\0\0\0\0\x36\0": ".bmp",
        b"GIF89a\x40\0\x40\0": ".gif",
        b"\0\0\0\x20ftypisom": ".mp4",
        b"\x1a\x45\xdf\xa3": ".mkv",
    }.items():
        (tmp_path / name).write_bytes(head)
        assert reasons(tmp_path)[name].endswith(f"by its content the name should end with {suffix}")


def test_an_unread_picture_called_like_a_side_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.dat").write_bytes(b"\0\0\0\x20ftypheic")
    assert reasons(tmp_path)["p.dat"].startswith("HEIC is not read")


def test_what_begins_like_a_picture_by_chance_is_not_named(tmp_path: Path) -> None:
    for name, head in {
        "bmi.csv": b"BMI,height,weight\n",
        "korean.csv": "BMI,키,몸무게\n".encode(),
        "formats.txt": b"formats:AVI MP4 and others",
        "old.txt": b"GIF87a is a format of 1987",
        "voice.m4a": b"\0\0\0\x20ftypM4A \0\0\0\0",
        "voice.wma": b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",
        "table.xlsx": b"PK\x03\x04\x14\0\6\0",
        "weights.pth": b"PK\x03\x04\0\0\x08\x08",
        "array.npy": b"\x93NUMPY\1\0v\0{'descr'",
    }.items():
        (tmp_path / name).write_bytes(head)
    assert everything_below(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("head", "video"),
    [(b"\x47\x40\0\x10", True), (b"\0\0\0\0\x47\x40", True), (b"export const a = 1;", False)],
)
def test_ts_is_a_video_by_its_content(tmp_path: Path, head: bytes, video: bool) -> None:
    (tmp_path / "a.ts").write_bytes(head)
    assert everything_below(tmp_path) == ([tmp_path / "a.ts"] * video, [])


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "gone.png")


def two_links_in_a_ring(path: Path) -> None:
    path.symlink_to(path.with_name(".ring"))
    path.with_name(".ring").symlink_to(path)


def a_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


BAD = {
    "a link to itself": link_to_itself,
    "a link to nothing": link_to_nothing,
    "a link to itself ": two_links_in_a_ring,
    "neither a file nor a folder": os.mkfifo,
    "neither a file nor a folder ": a_socket,
}
DATASETS = {
    "real/": lambda root: pictures(pictures(root / "fake").parent / "real"),
    "original_sequences/youtube/c23/videos/": lambda root: miniatures.faceforensics(root),
    "original_sequences/actors/c23/videos/": lambda root: miniatures.dfd(root),
    "Celeb-real/": lambda root: miniatures.celeb_df(root),
    "dfdc_train_part_00/": lambda root: miniatures.dfdc(root),
    "method_A/": lambda root: miniatures.dfdc_preview(root),
    "real_train/1/real/0/": lambda root: miniatures.wilddeepfake(root),
    "DF40/simswap/ff/frames/": lambda root: miniatures.df40(root),
    "FaceForensics++/": lambda root: miniatures.deepfakebench(root),
}


@pytest.mark.parametrize("folder", DATASETS)
def test_one_bad_entry_costs_only_itself(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    DATASETS[folder](tmp_path)
    options = {"compression": "c23"} if folder == "FaceForensics++/" else {}
    before, layout = clips(tmp_path, **options), recognise(tmp_path)
    for number, (reason, make) in enumerate(BAD.items()):
        for place in (tmp_path, tmp_path / folder):
            make(place / f"bad{number}")
            assert (
                reasons(tmp_path)[(place / f"bad{number}").relative_to(tmp_path).as_posix()]
                == reason.strip()
            )
    for place in (tmp_path, tmp_path / folder):
        (place / "lost+found").mkdir()
    scandir = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert reasons(tmp_path)[f"{folder}lost+found"] == "cannot be opened (Permission denied)"
    assert recognise(tmp_path) == layout
    assert clips(tmp_path, **options) == before
    assert "bad0" in inventory(tmp_path, **options)


def test_what_vanishes_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "real")
    (tmp_path / "real/gone").mkdir()
    stat = Path.stat

    def vanishing(path: Path, **options: object) -> os.stat_result:
        if path.name == "gone" and path.is_absolute():
            path.rmdir()
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    found, passed = everything_below(tmp_path)
    assert len(found) == 3
    assert passed == [(tmp_path / "real/gone", "cannot be opened (No such file or directory)")]


@pytest.mark.parametrize("folder", DATASETS)
def test_an_unreadable_folder_for_who_is_not_root(tmp_path: Path, folder: str) -> None:
    DATASETS[folder](tmp_path)
    options = {"compression": "c23"} if folder == "FaceForensics++/" else {}
    before = clips(tmp_path, **options)
    for place in (tmp_path, tmp_path / folder):
        (place / "lost+found").mkdir(mode=0)
        (place / "listed").mkdir(mode=0o444)
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert clips(tmp_path, **options) == before
        assert reasons(tmp_path)[f"{folder}lost+found"] == "cannot be opened (Permission denied)"
    finally:
        os.seteuid(user)


# Folders that are called like a file.


def test_folders_called_like_videos_are_clips(tmp_path: Path) -> None:
    def frames(path: Path) -> Path:
        return pictures(path.with_name(f"{path.name}.mp4"), form="fr{:03d}_subj0.jpg")

    make: Callable[[Path], Path] = frames
    miniatures.faceforensics(tmp_path, make=make)
    for images in tmp_path.glob("*/*/c23/images"):
        images.rename(images.with_name("videos"))
    found = clips(tmp_path)
    assert len(found) == 24 and all(len(clip.pictures) == 3 for clip in found.values())
    one = found["original_sequences/youtube/c23/videos/000.mp4"]
    assert (one.group, one.split) == ("000_003", "train")
    assert "missing" not in inventory(tmp_path)


@pytest.mark.parametrize("layout", ["df40", "deepfakebench", "dfdc_preview"])
def test_folders_called_like_videos_have_the_groups_of_clips(tmp_path: Path, layout: str) -> None:
    getattr(miniatures, layout)(tmp_path)
    for path in tmp_path.rglob("*.mp4"):  # as frames
        path.unlink()
        pictures(path.parents[-len(tmp_path.parts) - 1] / "frames" / path.stem)
    options = {"compression": "c23"} if layout == "deepfakebench" else {}
    before = {
        clip.video: (clip.group, clip.split, clip.label)
        for clip in clips(tmp_path, **options).values()
    }
    assert len(before) > 3
    for path in {path.parent for path in tmp_path.glob("**/frames/*/*.png")}:
        path.rename(path.with_name(f"{path.name}.mp4"))
    for path in tmp_path.glob("FF*.json"):
        path.write_text(re.sub(r"(frames/\w+)/", r"\1.mp4/", path.read_text()))
    after = clips(tmp_path, **options)
    assert {
        c.video.removesuffix(".mp4"): (c.group, c.split, c.label) for c in after.values()
    } == before


def test_folders_called_like_pictures_are_entered(tmp_path: Path) -> None:
    pictures(tmp_path / "real/x.jpg", (1,), "portrait.png")
    (tmp_path / "real/y.jpg").mkdir()
    assert [sample.path for sample in find_samples(tmp_path)] == ["real/x.jpg/portrait.png"]
    assert "called like a file" in reasons(tmp_path)["real/y.jpg"]
