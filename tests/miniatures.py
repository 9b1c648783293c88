"""Miniatures of published datasets: the same folders, lists and names, a few clips of a few frames.

A numbered video shows in every frame which one it is, as eight black or white bars.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import transform
from skimage.data import astronaut

from data.datasets import list_dataset
from data.inventory import survey, text_of
from data.samples import Clip

SIDE = 64  # px of every picture and frame
BAR = 8  # px, the width of one of eight bars
CLIP = 12  # frames of a clip in a miniature


@cache
def face(number: int = 0) -> np.ndarray:
    """The face of skimage.data.astronaut, (64, 64, 3) uint8 RGB, brighter or darker by `number`."""
    crop = transform.resize(astronaut()[:220, 120:340], (SIDE, SIDE), anti_aliasing=True)
    return (crop * 255 * (1 - 0.02 * number)).round().astype(np.uint8)


def numbered(number: int, side: int = SIDE) -> np.ndarray:
    """(side, side, 3) uint8: the bits of `number`, the highest on the left."""
    bits = [number >> bit & 1 for bit in range(7, -1, -1)]
    return (
        np.repeat(np.uint8(bits) * 215 + 20, side // 8)[None, :, None].repeat(side, 0).repeat(3, 2)
    )


def number_of(image: np.ndarray) -> int:
    """What `numbered` shows."""
    bars = image.reshape(image.shape[0], 8, -1).mean((0, 2))
    return int(sum(int(bar > 127) << bit for bar, bit in zip(bars, range(7, -1, -1), strict=True)))


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    sound: bool = False,
    ratio: Fraction | None = None,
) -> Path:
    """times: of each frame, in 1/25 s. options, container: of the encoder and the container. ratio:
    of the sides of a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        if sound:
            silence = file.add_stream("aac", rate=16000, layout="mono")
        for number, image in enumerate(frames):
            if not number:
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                if ratio:
                    stream.codec_context.sample_aspect_ratio = ratio
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if times is None else times[number]
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound:
            for packet in sounds(silence):
                file.mux(packet)
    return path


def sounds(stream: av.audio.stream.AudioStream) -> list[av.Packet]:
    """A moment of silence."""
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts = 16000, 0
    return [*stream.encode(frame), *stream.encode()]


@cache
def clip_bytes() -> bytes:
    """An MP4 file of a face, `CLIP` frames."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(CLIP):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(face(number), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(clip_bytes())
    return path


def pictures(folder: Path, numbers: Iterable[int] = (8, 9, 10), form: str = "{:03d}.png") -> Path:
    """Frames in a folder, called by their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(face(number)).save(folder / form.format(number))
    return folder


def listed(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


FF_PAIRS = {
    "train": [["071", "054"], ["000", "003"]],
    "val": [["720", "672"]],
    "test": [["953", "974"]],
}


def faceforensics(
    root: Path,
    levels: Sequence[str] = ("c23",),
    lists: str | None = "",
    make: Callable[[Path], Path] = clip,
) -> Path:
    """lists: the folder of the official lists. make: writes a clip, given a path without suffix."""
    pairs = [pair for split in FF_PAIRS.values() for pair in split]
    for level in levels:
        for a, b in pairs:
            for name in (a, b):
                place(root / "original_sequences/youtube" / level, name, make)
            for method in ("Deepfakes", "NeuralTextures"):
                for name in (f"{a}_{b}", f"{b}_{a}"):
                    place(root / "manipulated_sequences" / method / level, name, make)
    for split, content in FF_PAIRS.items() if lists is not None else ():
        listed(root / lists / f"{split}.json", content)
    return root


def place(folder: Path, name: str, make: Callable[[Path], Path]) -> Path:
    """A clip where FaceForensics++ has it: a video in videos/, frames in images/."""
    return (
        clip(folder / "videos" / f"{name}.mp4") if make is clip else make(folder / "images" / name)
    )


def dfd(root: Path) -> Path:
    for name in (
        "01__kitchen_pan",
        "01__podium_speech_happy",
        "02__kitchen_pan",
        "03__walking_and_outside_surprised",
    ):
        clip(root / f"original_sequences/actors/c23/videos/{name}.mp4")
    for name in (
        "01_02__kitchen_pan__YVGY8LOK",
        "02_01__kitchen_pan__0XUW13RW",
        "03_01__hugging_happy__ISF9SP4G",
    ):
        clip(root / f"manipulated_sequences/DeepFakeDetection/c23/videos/{name}.mp4")
    return root


CELEB = {
    "Celeb-real": ("id0_0000", "id0_0001", "id1_0000", "id2_0000", "id3_0000"),
    "Celeb-synthesis": (
        "id0_id1_0000",
        "id0_id2_0001",
        "id1_id0_0000",
        "id2_id0_0000",
        "id3_id1_0000",
    ),
    "YouTube-real": ("00000", "00170"),
}
CELEB_TEST = (
    "1 Celeb-real/id0_0000.mp4\n1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
)


def celeb_df(root: Path, tested: str | None = CELEB_TEST) -> Path:
    for folder, names in CELEB.items():
        for name in names:
            clip(root / folder / f"{name}.mp4")
    if tested is not None:
        (root / "List_of_testing_videos.txt").write_text(tested)
    return root


def dfdc_part(folder: Path, entries: dict[str, str | None]) -> Path:
    """entries: video -> its original, None for a real one."""
    for name in entries:
        clip(folder / f"{name}.mp4")
    metadata = {
        f"{name}.mp4": {"label": "FAKE" if of else "REAL", "split": "train"}
        | ({"original": f"{of}.mp4"} if of else {})
        for name, of in entries.items()
    }
    listed(folder / "metadata.json", metadata)
    return folder


def dfdc(root: Path) -> Path:
    dfdc_part(
        root / "dfdc_train_part_00", {"aaaa": None, "bbbb": "aaaa", "cccc": "aaaa", "dddd": None}
    )
    dfdc_part(root / "dfdc_train_part_01", {"eeee": "dddd", "ffff": None, "gggg": "ffff"})
    for name in ("tttt", "uuuu"):
        clip(root / "test/videos" / f"{name}.mp4")
    (root / "test/labels.csv").write_text("filename,label\ntttt.mp4,0\nuuuu.mp4,1\n")
    return root


PREVIEW = {
    "original_videos/643049/643049_A_001.mp4": ("real", "train", 643049, None),
    "method_A/643049/643049_A/1224068_643049_A_001.mp4": ("fake", "train", 643049, 1224068),
    "original_videos/1260311/1260311_A_000.mp4": ("real", "train", 1260311, None),
    "original_videos/1255229/1255229_C_001.mp4": ("real", "test", 1255229, None),
    "method_B/1255229/1255229_C/1260311_1255229_C_001.mp4": ("fake", "test", 1255229, 1260311),
}


def dfdc_preview(root: Path) -> Path:
    names = ("label", "set", "target_id", "swapped_id")
    for path in PREVIEW:
        clip(root / path)
    listed(
        root / "dataset.json",
        {path: dict(zip(names, entry, strict=True)) for path, entry in PREVIEW.items()},
    )
    return root


def wilddeepfake(root: Path) -> Path:
    for label in ("real", "fake"):
        for split, numbers in (("train", (1, 2, 10)), ("test", (1,))):
            for number in numbers:
                for sequence in (0, 1):
                    pictures(
                        root / f"{label}_{split}/{number}/{label}/{sequence}",
                        (9, 10, 100),
                        "{}.png",
                    )
    return root


def df40(root: Path) -> Path:
    for part, pairs in (("DF40_train", ("071_054", "054_071")), ("DF40", ("953_974", "974_953"))):
        for pair in pairs:
            pictures(root / part / "simswap" / ("ff/frames" if part == "DF40" else "frames") / pair)
        pictures(root / part / "StyleGAN2/ff" / pairs[0][:3])
    pictures(root / "DF40/simswap/cdf/frames/id0_id1_0000")
    pictures(root / "DF40/StyleGAN2/cdf/Fake_from_Celeb-real/id0_0001")
    pictures(root / "DF40/StyleGAN2/cdf/Fake_from_Youtube-real/00170")
    pictures(root / "DF40/e4e/ff/inversions", (1, 2), "{:03d}.jpg")
    for label in ("real", "fake"):
        pictures(root / f"DF40/heygen/{label}/frames/{label}_7")
        pictures(root / f"DF40/stargan/{label}/{label}", (5, 6), "{}.jpg")
    return root


def bench_entry(
    label: str, folder: str, numbers: Iterable[int] = (8, 9, 10), slash: str = "/"
) -> dict:
    """One clip as a list of DeepfakeBench has it, its frames in no order."""
    order = sorted(numbers, key=str, reverse=True)
    return {
        "label": label,
        "frames": [f"{folder}/{number:03d}.png".replace("/", slash) for number in order],
    }


def deepfakebench(
    root: Path, above: str = "deepfakes_detection_datasets", slash: str = "/"
) -> Path:
    """FaceForensics++ as frames, and FF-DF.json with two compression levels. Returns: the list."""
    table: dict = {"FF-real": {}, "FF-DF": {}}
    for label, where in (
        ("FF-real", "original_sequences/youtube"),
        ("FF-DF", "manipulated_sequences/Deepfakes"),
    ):
        for split, pairs in FF_PAIRS.items():
            levels = table[label].setdefault(split, {})
            for level in ("c23", "c40"):
                for a, b in pairs:
                    for name in (a, b) if label == "FF-real" else (f"{a}_{b}", f"{b}_{a}"):
                        inner = f"FaceForensics++/{where}/{level}/frames/{name}"
                        pictures(root / inner)
                        levels.setdefault(level, {})[name] = bench_entry(
                            label, f"{above}/{inner}", slash=slash
                        )
    return listed(root / "FF-DF.json", {"FF-DF": table})


def bench_celeb(root: Path) -> Path:
    """Celeb-DF-v2.json: test videos are in train too, val is a copy of test, one entry no clip."""
    table: dict = {
        name: {split: {} for split in ("train", "val", "test")}
        for name in ("CelebDFv2_real", "CelebDFv2_fake")
    }
    for folder, names in CELEB.items():
        label = "CelebDFv2_fake" if folder == "Celeb-synthesis" else "CelebDFv2_real"
        for name in names:
            inner = f"Celeb-DF-v2/{folder}/frames/{name}"
            pictures(root / inner)
            for split in (
                ("train", "val", "test") if f"{folder}/{name}.mp4" in CELEB_TEST else ("train",)
            ):
                table[label][split][name] = bench_entry(label, f"./datasets/{inner}")
    table["CelebDFv2_real"]["val"]["frames"] = ["a.png"]
    return listed(root / "Celeb-DF-v2.json", {"Celeb-DF-v2": table})


def clips(root: Path, **options: object) -> dict[str, Clip]:
    """The clips that are found, by their paths."""
    return {clip.video or clip.pictures[0]: clip for clip in list_dataset(root, **options)[1].clips}


def inventory(root: Path, **options: object) -> str:
    """What `evaluate.py inventory` prints."""
    return text_of(survey(root, **options))


def facts(clip: Clip) -> str:
    """Label, group, split and method, "-" for none."""
    return " ".join(str(x) or "-" for x in (clip.label, clip.group, clip.split, clip.method))
