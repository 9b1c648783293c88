"""Looking through folders: files below one, and the clips in it."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.images import SUFFIXES, UNREAD, suffix_of
from data.layouts import series
from data.samples import film_order, is_video
from data.video import VIDEO_SUFFIXES

# Folders that benchmarks put between a folder of clips and the clips; videos come before frames.
WITHIN = (
    *("videos", "frames", "images", "frames_all", "faces", "face", "crops", "cropped", "aligned"),
    *("cropped_faces", "cropped_images"),
)
HIDDEN = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information")
MEDIA = SUFFIXES | VIDEO_SUFFIXES
# Files beside pictures and videos that nobody expects to be read as one: by suffix, or by name.
SIDE = """
    .txt .md .rst .csv .tsv .xls .xlsx .ods .doc .docx .rtf
    .json .jsonl .xml .yaml .yml .toml .ini .cfg .html .htm .css
    .npy .npz .pkl .pickle .mat .h5 .hdf5 .parquet .pt .pth .onnx .safetensors
    .bin .dat .db .sqlite .lmdb .tfrecord .pts .lnk .url .lock .exe .part
    .py .pyc .ipynb .sh .bat .ps1 .m .js .ts .mts .tsx .log .bib .tex
    .wav .mp3 .aac .m4a .flac .ogg .opus .wma .srt .vtt .ass
    .md5 .sha1 .sha256 .sha512 .sig .asc
    readme license licence copying notice makefile thumbs.db desktop.ini
    md5sums sha256sums checksums
"""
SIDE = frozenset(SIDE.split())
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # a table may begin with BMI, a list with GIF87
SOUND = {".m4a": (".mp4",), ".wma": (".wmv",)}  # as what sound begins, too
OTHER = "neither a picture nor a video of a kind that is read"
WRONG = {errno.ELOOP: "a link to itself", errno.ENOENT: "a link to nothing"}


@dataclass(frozen=True)
class Found:
    """A clip. name: of its file or folder, without suffix. Others: as in data.samples.Clip."""

    name: str
    video: str
    pictures: tuple[str, ...] = ()


def everything_below(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The pictures and videos below `folder`, sorted; what else is there, and why it is not read.

    Files that belong beside pictures (`SIDE`) are in neither, unless they begin like one. What
    cannot be opened, and links that lead nowhere or to themselves, are passed over with a reason.
    """
    found: list[Path] = []
    passed: list[tuple[Path, str]] = []
    for parent, folders, files in walk(folder, passed):
        for path in map(parent.joinpath, files):
            if _kind(path) in MEDIA:
                found.append(path)
            elif reason := _unread(path):
                passed.append((path, reason))
        if not (folders or files) and parent.suffix.lower() in MEDIA:
            passed.append((parent, "a folder that is called like a file, with nothing in it"))
    return sorted(found, key=Path.as_posix), sorted(passed)


def passed_below(root: Path, folder: Path) -> list[tuple[str, str]]:
    """What is passed over below `folder`, relative to `root`, and why."""
    return [(_name(root, path), reason) for path, reason in everything_below(folder)[1]]


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """All files below `folder` with one of these suffixes, in any case, sorted by POSIX path."""
    paths = (parent / name for parent, _, files in walk(folder) for name in files)
    return sorted((path for path in paths if _kind(path) in suffixes), key=Path.as_posix)


def walk(
    folder: Path, passed: list[tuple[Path, str]] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """os.walk without hidden names, sorted, along links, each folder once.

    passed: what cannot be opened is appended, with the reason.
    """
    # A link to a folder above would list what is beside `folder` as if it were below.
    above = (parent.stat() for parent in Path(folder).resolve().parents)
    entered = {(status.st_dev, status.st_ino) for status in above}
    waiting = [Path(folder)]
    while waiting:
        parent = waiting.pop()
        with suppress(OSError):  # `_scan` says what is wrong with it
            status = parent.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
        folders, files, odd = _scan(parent)
        if passed is not None:
            passed += odd
        yield parent, folders, files
        waiting += [parent / name for name in reversed(folders)]


def _scan(folder: Path) -> tuple[list[str], list[str], list[tuple[Path, str]]]:
    """The folders and files in a folder, sorted; what is neither, and why."""
    folders: list[str] = []
    files: list[str] = []
    odd: list[tuple[Path, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in filter(lambda each: _visible(each.name), entries):
                try:
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file():
                        files.append(entry.name)
                    else:
                        entry.stat()
                        odd.append((folder / entry.name, "neither a file nor a folder"))
                except OSError as error:
                    odd.append((folder / entry.name, WRONG.get(error.errno) or _why(error)))
    except OSError as error:
        odd.append((folder, _why(error)))
    return sorted(folders), sorted(files), sorted(odd)


def _why(error: OSError) -> str:
    return f"cannot be opened ({error.strerror or error})"


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in HIDDEN


def _kind(path: Path) -> str:
    """The suffix in lower case; "" of a .ts that is no video but a program in TypeScript."""
    suffix = path.suffix.lower()
    if suffix in (".ts", ".mts"):
        head = _head(path)
        return suffix if b"\x47" in (head[:1], head[4:5]) else ""  # of a packet of MPEG-TS
    return suffix


def _head(path: Path) -> bytes:
    """Its first 16 bytes; none where it cannot be opened: who reads it says so."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(16)
    return b""


def _unread(path: Path) -> str:
    """Why a file that is no picture and no video is not read; "" where nobody expects it."""
    suffix, name = path.suffix.lower(), path.name.lower()
    head = _head(path)
    content = suffix_of(head)
    beside = suffix in SIDE or name in SIDE or ".partial" in name
    if beside and (
        content not in (*MEDIA, ".heic")
        or not BINARY.search(head)
        or content in SOUND.get(suffix, ())
    ):
        return ""
    if suffix in UNREAD and content not in MEDIA:
        return UNREAD[suffix]
    if content in MEDIA:
        ending = f"the suffix {suffix}" if suffix else "no suffix"
        return f"has {ending}; by its content the name should end with {content}"
    marker = not suffix and not head
    return UNREAD.get(content) or ("" if marker else OTHER)


def entries_of(folder: Path) -> list[str]:
    """The names of all folders and files in it, sorted."""
    folders, files, _ = _scan(folder)
    return sorted(folders + files)


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in `folder` that can be entered, sorted; none where there is no such folder."""
    mine = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    paths = (folder / name for name in _scan(folder)[0])
    return [path for path in paths if os.access(path, os.R_OK | os.X_OK, **mine)]


def is_file(path: Path) -> bool:
    """Also where it cannot be told: then there is none to read."""
    try:
        return path.is_file()
    except OSError:
        return False


def child(folder: Path, *names: str) -> Path | None:
    """The folder directly in `folder` with one of these names, in any case."""
    wanted = {name.lower() for name in names}
    return next((found for found in folders_in(folder) if found.name.lower() in wanted), None)


def below(root: Path, path: str) -> Path:
    """root / path, or what has these names in another case; of several, one that is not empty."""
    found = root
    for name in Path(path).parts:
        same = [folder for folder in folders_in(found) if folder.name.lower() == name.lower()]
        same.sort(key=lambda folder, name=name: (not entries_of(folder), folder.name != name))
        found = same[0] if same else found / name
    return found


def pictures_in(root: Path, folder: Path) -> tuple[str, ...]:
    """Pictures directly in `folder`, relative to `root`, in the order of the film."""
    names = [name for name in _scan(folder)[1] if Path(name).suffix.lower() in SUFFIXES]
    base = folder.relative_to(root)
    return tuple((base / name).as_posix() for name in sorted(names, key=film_order))


def clips_in(root: Path, folder: Path) -> list[Found]:
    """The clips of a folder: its video files, else its folders of pictures; or those in WITHIN;
    else its pictures, by clip: 000_0012.png.

    Some programs put the frames of 000.mp4 into a folder of that name: the clip is 000 all the same.
    """
    places = [(place, *_scan(place)[:2]) for place in (folder, *(folder / n for n in WITHIN))]
    for place, folders, files in places:
        videos = [Found(Path(n).stem, _name(root, place / n)) for n in files if is_video(n)]
        before = {video.name for video in videos}
        like = [_frames(root, place / name) for name in folders if is_video(name)]
        videos += [clip for clip in like if clip.pictures and clip.name not in before]
        if videos:
            return sorted(videos, key=lambda clip: clip.video)
    for place, folders, _ in places:
        clips = [_frames(root, place / name) for name in folders if name not in WITHIN]
        if clips := [clip for clip in clips if clip.pictures]:
            return clips
    for place, *_ in places:
        pictures = {path: PurePosixPath(path).stem for path in pictures_in(root, place)}
        says, clips = series.called(pictures.values()), defaultdict(list)
        for path, stem in pictures.items():
            clips[says[stem].clip].append(path)
        clips.pop("", None)
        if clips:
            some = sorted(clips.items())
            return [Found(name, _name(root, place / name), tuple(each)) for name, each in some]
    return []


def _frames(root: Path, folder: Path) -> Found:
    return Found(called(folder), _name(root, folder), pictures_in(root, folder))


def called(folder: PurePosixPath | Path) -> str:
    """The name of a clip whose frames are in a folder, which may be called as a video: 000.mp4."""
    return folder.stem if is_video(folder.name) else folder.name


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def read_json(path: Path, kind: type = dict) -> dict | list:
    """The content of an official list."""
    if not is_file(path):  # opening a pipe would wait for ever
        raise ValueError(f"{path}: no file; get the official file again")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path}: cannot be read ({why}); get the official file again") from error
    if not isinstance(data, kind):
        raise ValueError(f"{path}: no {kind.__name__} of videos; get the official file again")
    return data


def word(value: object) -> str:
    """A text or a number of a list, in lower case; "" for anything else."""
    return str(value).strip().lower() if isinstance(value, str | int) else ""


def is_inside(path: str | PurePosixPath) -> bool:
    """Whether a path stays in the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def peek_json(path: Path) -> dict:
    """The same; empty where there is no such file or another content."""
    try:
        return read_json(path)
    except ValueError:
        return {}
