"""Pictures whose metadata is damaged are read; those whose pixels are cut short are not."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from data.images import ImageError, frame_count, picture_count, read_image
from tests.test_bad_images import PICTURE, png, reason

CHUNKS = {
    f"{kind.decode()} {content[:4]}": (kind, content)
    for kind, content in [
        *((kind, b"") for kind in (b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"tRNS", b"iCCP", b"zTXt")),
        *((kind, b"a") for kind in (b"pHYs", b"gAMA", b"cHRM", b"tRNS", b"iCCP", b"fcTL")),
        (b"iCCP", b"a\0\5zz"),
        (b"zTXt", b"a\0\5zz"),
        (b"iTXt", b"a\0\1\5\0\0zz"),
    ]
}
SEGMENTS = {
    "profile without numbers": (0xE2, b"ICC_PROFILE\0"),
    "short Adobe": (0xEE, b"Adobe\0"),
    "cut Photoshop": (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
    "cut size in Photoshop": (0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0"),
    "short JFIF": (0xE0, b"JFIF"),
    "shorter JFIF": (0xE0, b"JFIF\0\1"),
}


def bytes_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.fixture
def read(tmp_path):
    """What is read of the bytes of a file."""

    def of(content: bytes) -> np.ndarray:
        (tmp_path / "a.jpg").write_bytes(content)
        return read_image(tmp_path / "a.jpg")

    return of


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("sound", [True, False], ids=["sum right", "sum wrong"])
def test_a_damaged_chunk_beside_the_pixels_of_a_png(read, name, sound):
    content = bytes_of(Image.fromarray(PICTURE), "png")
    chunk = png([CHUNKS[name]])[8:]
    chunk = chunk if sound else chunk[:-4] + b"\0\0\0\1"
    assert (read(content[:33] + chunk + content[33:]) == PICTURE).all()


def test_a_text_with_a_wrong_sum(read):
    content = bytes_of(Image.fromarray(PICTURE), "png")
    text = png([(b"tEXt", b"a\0hello")])[8:].replace(b"hello", b"jello")
    assert (read(content[:33] + text + content[33:]) == PICTURE).all()


def test_transparency_orientation_and_frames_are_kept(tmp_path):
    """Only what is damaged is left out."""
    exif = Image.Exif()
    exif[0x112] = 6
    layer = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 128, np.uint8)])
    image = Image.fromarray(layer).quantize(8)
    frames = {"save_all": True, "append_images": [Image.fromarray(PICTURE)]}
    for picture, options in ((image, {}), (Image.fromarray(PICTURE), frames)):
        path = tmp_path / "a.png"
        path.write_bytes(bytes_of(picture, "png", exif=exif, **options))
        content, expected, count = path.read_bytes(), read_image(path), frame_count(path)
        path.write_bytes(content[:33] + png([(b"gAMA", b"a")])[8:] + content[33:])
        assert (read_image(path) == expected).all()
        assert frame_count(path) == count == 1 + bool(options)
    assert (expected == np.rot90(PICTURE, 3)).all()


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_damaged_segment_of_a_jpeg(read, name, mode):
    exif = Image.Exif()
    exif[0x112] = 6
    content = bytes_of(Image.fromarray(PICTURE).convert(mode), "jpeg", exif=exif)
    expected = read(content)
    assert (read(content[:2] + segment(*SEGMENTS[name]) + content[2:]) == expected).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": 1}])
@pytest.mark.parametrize("side", [64, 61])
def test_a_jpeg_without_its_end_marker(read, astronaut, options, side):
    content = bytes_of(Image.fromarray(astronaut[:side, :side]), "jpeg", quality=90, **options)
    expected = read(content)
    assert (read(content[:-2]) == expected).all()
    assert (read(content[:-1]) == expected).all()
    assert (read(content[:-2] + bytes(30)) == expected).all()
    damaged = content[:2] + segment(*SEGMENTS["short Adobe"]) + content[2:-2]
    assert (read(damaged) == expected).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_without_its_last_pixels_is_refused(read, astronaut, tmp_path, options):
    content = bytes_of(Image.fromarray(astronaut[:128, :128]), "jpeg", quality=90, **options)
    for cut in (4, 5, 6, 8, 10, 20, 50, 200, 1000):
        for end in (b"", b"\xff"):
            with pytest.raises(ImageError, match="damaged or cut short"):
                read(content[:-cut] + end)


def test_a_progressive_jpeg_without_its_last_scans_is_refused(read, astronaut):
    content = bytes_of(Image.fromarray(astronaut[:128, :128]), "jpeg", progressive=True)
    scan = content.rindex(b"\xff\xda")
    while scan > 0:
        with pytest.raises(ImageError, match="damaged or cut short"):
            read(content[:scan])
        scan = content.rfind(b"\xff\xda", 0, scan)


@pytest.mark.parametrize("cut", [13, 20, 60])
def test_a_png_without_its_last_pixels_is_refused(read, tmp_path, astronaut, cut):
    content = bytes_of(Image.fromarray(astronaut[:64, :64]), "png")
    content = content[:33] + png([(b"gAMA", b"a")])[8:] + content[33:]

    (tmp_path / "a.png").write_bytes(content[: -12 - cut])
    assert "damaged or cut short" in reason(tmp_path / "a.png")
    pixels = zlib.compress(zlib.decompress(content[content.index(b"IDAT") + 4 : -16])[:-cut])
    header = content[16:29]
    content = png([(b"IHDR", header), (b"gAMA", b""), (b"IDAT", pixels), (b"IEND", b"")])
    (tmp_path / "a.png").write_bytes(content)
    assert "damaged or cut short" in reason(tmp_path / "a.png")


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 90}])
def test_damage_behind_the_pixels_of_a_webp(read, tmp_path, astronaut, options):
    image = Image.fromarray(astronaut[:64, :64])
    content = bytes_of(image, "webp", exif=b"Exif\0\0abcd", xmp=b"x" * 60, **options)
    expected = read(content)
    for name in (b"EXIF", b"XMP "):
        place = content.index(name)
        assert (read(content[: place + 20]) == expected).all()
        for size in (0, 5, 1 << 30):
            wrong = content[: place + 4] + struct.pack("<I", size) + content[place + 8 :]
            assert (read(wrong) == expected).all()
    (tmp_path / "a.webp").write_bytes(content[: content.index(b"EXIF") - 30])
    assert "damaged or cut short" in reason(tmp_path / "a.webp")


def test_a_gain_map_is_no_second_picture(tmp_path):
    """Phones write one behind the photograph, smaller than it."""
    photo = Image.effect_noise((512, 512), 50).convert("RGB")
    for name, second, count in (("a.jpg", photo.resize((256, 256)), 1), ("b.jpg", photo, 2)):
        photo.save(tmp_path / name, "MPO", save_all=True, append_images=[second])
        assert picture_count(tmp_path / name) == count
