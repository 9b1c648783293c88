"""Sound files, and files made of them that are broken in one or several ways."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from training.examples import COLLINS, HOPPER, photograph

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 64  # bytes
PNG = b"\x89PNG\r\n\x1a\n"


def faces(side: int) -> list[np.ndarray]:
    """Two people, (side, side, 3) uint8 RGB."""
    collins, hopper = photograph(*COLLINS)[:280, 90:370], photograph(*HOPPER)[50:450, 60:460]
    return [
        cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in (collins, hopper)
    ]


def pictures(side: int = 96) -> dict[str, bytes]:
    """Name -> content: every format that is read, in its variants."""
    one, two = map(Image.fromarray, faces(side))
    grey, palette = one.convert("L"), one.quantize(64)
    clear = one.copy()
    clear.putalpha(Image.linear_gradient("L").resize((side, side)))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    several = {"save_all": True, "append_images": [two, one]}
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "a description"
    variants = {
        "plain.jpg": (one, {"quality": 90, "exif": exif}),
        "progressive.jpg": (two, {"progressive": True, "comment": b"hello"}),
        "cmyk.jpg": (one.convert("CMYK"), {}),
        "grey.jpg": (grey, {"restart_marker_blocks": 4}),
        "plain.png": (one, {"exif": exif, "icc_profile": bytes(500)}),
        "clear.png": (clear, {}),
        "palette.png": (palette, {"transparency": 3}),
        "deep.png": (deep, {}),
        "animated.png": (one, several),
        "animated.gif": (one, several | {"duration": 100, "comment": b"hello"}),
        "clear.gif": (palette, {"transparency": 3}),
        "lossy.webp": (one, {"exif": exif}),
        "lossless.webp": (clear, {"lossless": True}),
        "animated.webp": (one, several),
        "plain.bmp": (two, {}),
        "palette.bmp": (palette, {}),
        "raw.tif": (one, {"tiffinfo": tags}),
        "lzw.tif": (clear, {"compression": "tiff_lzw"}),
        "deflate.tif": (deep, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (one, {"compression": "jpeg"}),
        "pages.tif": (two, several),
        "fax.tif": (one.convert("1"), {"compression": "group4"}),
    }
    formats = {"jpg": "JPEG", "tif": "TIFF"}
    found = {}
    for name, (image, options) in variants.items():
        file, suffix = io.BytesIO(), name.rpartition(".")[2]
        image.save(file, formats.get(suffix, suffix.upper()), **options)
        found[name] = file.getvalue()
    return found


CLIPS = {  # name -> codec, pixel format, options of the codec, of the container
    "plain.mp4": ("libx264", "yuv420p", {"bf": "2", "g": "6"}, {}),
    "fragments.mp4": ("mpeg4", "yuv420p", {}, {"movflags": "frag_keyframe+empty_moov"}),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none"}, {}),
    "av1.mp4": ("libsvtav1", "yuv420p", {"svtav1-params": "enable-overlays=0"}, {}),
    "jpegs.mov": ("mjpeg", "yuvj420p", {}, {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}, {}),
    "plain.mkv": ("libx264", "yuv420p", {"bf": "2"}, {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}, {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"cpu-used": "8"}, {}),
    "vp8.webm": ("libvpx", "yuv420p", {"cpu-used": "8"}, {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"bf": "2"}, {}),
    "huffyuv.avi": ("huffyuv", "yuv422p", {}, {}),
    "plain.mpg": ("mpeg2video", "yuv420p", {}, {}),
    "plain.ts": ("libx264", "yuv420p", {}, {}),
    "plain.flv": ("flv", "yuv420p", {}, {}),
    "plain.wmv": ("wmv2", "yuv420p", {}, {}),
}


def write_clip(path: Path, images: list[np.ndarray], codec: str, pixels: str, more, container):
    with av.open(str(path), "w", options=container) as file:
        stream = file.add_stream(codec, rate=25, options=more)
        stream.width, stream.height, stream.pix_fmt = *images[0].shape[1::-1], pixels
        for image in images:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def clips(folder: Path, side: int = 96, frames: int = 12) -> dict[str, bytes]:
    """Name -> content: containers and codecs. FFmpeg's encoders that are lacking are left out."""
    os.environ["SVT_LOG"] = "0"  # one of the encoders talks
    shown = [np.roll(faces(side)[0], i, axis=1) for i in range(frames)]
    found = {}
    for name, (codec, *rest) in CLIPS.items():
        if codec in av.codecs_available:
            write_clip(folder / name, shown, codec, *rest)
            found[name] = (folder / name).read_bytes()
            (folder / name).unlink()
    return found


def mutate(sound: dict[str, bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """One of the files, broken in one to three ways: its name with the ways, and its content."""
    names = list(sound)
    name = names[rng.integers(len(names))]
    data, ways = bytearray(sound[name]), []
    for _ in range(rng.integers(1, 4)):
        way = WAYS[rng.integers(len(WAYS))]
        ways.append(way.__name__)
        data = way(data, rng) if way is not splice else splice(data, rng, sound)
        data = data or bytearray(b"\0")
    if data.startswith(PNG) and rng.random() < 0.7:
        data = with_right_sums(data)  # so that what is wrong gets further
    stem, _, suffix = name.partition(".")
    return f"{stem}-{'-'.join(ways)}.{suffix}", bytes(data)


def flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 17)):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(1, len(data) + 1)]


def splice(data: bytearray, rng: np.random.Generator, sound: dict[str, bytes]) -> bytearray:
    other = sound[list(sound)[rng.integers(len(sound))]]
    return data[: rng.integers(1, len(data) + 1)] + other[rng.integers(len(other)) :]


def repeat(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A piece again: between two marks of the format, where it has such."""
    begin, end = sorted(int(x) for x in rng.choice(pieces(data), 2))
    times = int(rng.integers(1, 4)) if end - begin < 100_000 else 1
    return data[:end] + data[begin:end] * times + data[end:]


def drop(data: bytearray, rng: np.random.Generator) -> bytearray:
    begin, end = sorted(int(x) for x in rng.choice(pieces(data), 2))
    return data[:begin] + data[end:]


def field(data: bytearray, rng: np.random.Generator, end: int | None = None) -> bytearray:
    """A number of one, two or four bytes becomes an extreme one, as lengths and counts may be."""
    size = int(rng.choice([1, 2, 4]))
    value = EXTREMES[rng.integers(len(EXTREMES))] & (256**size - 1)
    place = int(rng.integers(max(1, min(end or len(data), len(data)) - size)))
    data[place : place + size] = value.to_bytes(size, ("big", "little")[rng.integers(2)])
    return data


def header(data: bytearray, rng: np.random.Generator) -> bytearray:
    return field(data, rng, HEADER)


def insert(data: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 200))) + data[place:]


def blank(data: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(len(data)))
    size = min(int(rng.integers(1, 2000)), len(data) - place)
    data[place : place + size] = bytes([(0, 255)[rng.integers(2)]]) * size
    return data


WAYS = (flip, cut, splice, repeat, drop, field, field, header, insert, blank)


def pieces(data: bytearray) -> list[int]:
    """Where chunks of a PNG, segments of a JPEG or boxes of an MP4 begin; else every 64 bytes."""
    found = [0]
    if data.startswith(PNG):
        found = [8]
        while found[-1] + 12 <= len(data):
            found.append(found[-1] + 12 + int.from_bytes(data[found[-1] : found[-1] + 4], "big"))
    elif data.startswith(b"\xff\xd8"):
        found = [2] + [i for i in range(2, len(data) - 1) if data[i] == 0xFF and data[i + 1] > 0xBF]
    elif data[4:8] == b"ftyp":
        while found[-1] + 8 <= len(data) and (size := int.from_bytes(data[found[-1] :][:4], "big")):
            found.append(found[-1] + size)
    found = [place for place in found if place <= len(data)]
    return found if len(found) > 2 else list(range(0, len(data) + 1, min(64, len(data))))


def with_right_sums(data: bytearray) -> bytearray:
    """A PNG whose chunks have the checksums of what is in them now."""
    for begin in pieces(data):
        size = int.from_bytes(data[begin : begin + 4], "big")
        end = begin + 8 + size
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[begin + 4 : end]))
    return data
