"""Unusual or damaged pictures: each is read correctly or refused with its own reason."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from data.images import ImageError, read_image

# Red, green over blue, white: shows orientation and channel order. Larger than JPEG's blocks.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
PICTURE = COLOURS.repeat(32, 0).repeat(32, 1)
GREY = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))


def reason(path: Path, **options: int) -> str:
    """Why a file is refused."""
    with pytest.raises(ImageError) as caught:
        read_image(path, **options)
    assert str(path) in str(caught.value), "the message names the file"
    return caught.value.reason


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of these chunks, with right checksums."""
    body = b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def near(image: np.ndarray, expected: np.ndarray, tolerance: int = 6) -> bool:
    """Equal up to JPEG's losses."""
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    return int(np.abs(image.astype(int) - expected).max()) <= tolerance


# Refused, with a reason.


def test_missing_and_empty_files(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.jpg") == "cannot be opened (No such file or directory)"
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "an empty file"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_truncated_jpeg(tmp_path: Path, share: float, astronaut: np.ndarray) -> None:
    path = saved(tmp_path / "cut.jpg", Image.fromarray(astronaut))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "damaged or cut short" in reason(path)


def test_truncated_png_and_gif(tmp_path: Path, astronaut: np.ndarray) -> None:
    for name in ("cut.png", "cut.gif", "cut.webp"):
        path = saved(tmp_path / name, Image.fromarray(astronaut[:128, :128]))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "damaged or cut short" in reason(path) or "not an image" in reason(path)


def test_text_called_jpg(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("This is not a picture, whatever its name says.\n" * 20, encoding="utf-8")
    assert reason(path).startswith("not an image (JPEG, PNG")


def test_programs_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    assert reason(path).startswith("not an image")


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 3)])
def test_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "dot.png", Image.new("RGB", size))
    assert reason(path) == f"too small ({size[0]}x{size[1]} pixels)"


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")])
    )
    assert reason(path) == "larger than the limit of 100,000,000 pixels"
    # With a higher limit it is read as far as the missing data, which costs no memory.
    path = saved(tmp_path / "small.png", Image.fromarray(PICTURE))
    assert reason(path, max_pixels=64 * 64 - 1) == "larger than the limit of 4,095 pixels"
    assert read_image(path, max_pixels=64 * 64).shape == (64, 64, 3)


def test_limit_above_the_one_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path / "small.png", Image.fromarray(PICTURE))
    assert read_image(path, max_pixels=10_000).shape == (64, 64, 3)


def test_no_permission(tmp_path: Path) -> None:
    path = saved(tmp_path / "secret.png", Image.fromarray(PICTURE))
    path.chmod(0)
    nobody = 65534
    if os.geteuid() != 0:
        assert reason(path) == "cannot be opened (Permission denied)"
        return
    for folder in (
        tmp_path,
        *tmp_path.parents[:2],
    ):  # root may read everything: become someone who may not
        folder.chmod(0o755)
    os.seteuid(nobody)
    try:
        assert reason(path) == "cannot be opened (Permission denied)"
    finally:
        os.seteuid(0)


def test_folder_and_pipe_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert reason(tmp_path / "folder.jpg") == "a folder, not a file"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"


def test_impossible_names(tmp_path: Path) -> None:
    assert reason(tmp_path / ("x" * 300 + ".jpg")) == "cannot be opened (File name too long)"
    assert reason(tmp_path / "nul\0.jpg").startswith("cannot be opened (embedded null")


def test_32_bits_a_pixel(tmp_path: Path) -> None:
    path = saved(tmp_path / "depth.tif", Image.fromarray(np.ones((32, 32), np.float32)))
    assert reason(path).startswith("32 bits a pixel")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own remarks on broken EXIF data
def test_flipped_bytes_raise_nothing_else(tmp_path: Path, astronaut: np.ndarray) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "x"
    small, outcomes = Image.fromarray(astronaut[::16, ::16]), set()
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        small.save(path, kind)
        intact = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(25):
            broken = intact.copy()
            broken[rng.integers(0, min(len(broken), 300), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(broken[: rng.integers(20, 2 * len(broken))].tobytes())
            try:
                outcomes.add(read_image(path, max_pixels=10**6).dtype)
            except ImageError:
                outcomes.add("refused")
    assert outcomes == {np.dtype(np.uint8), "refused"}


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError(Path("a.jpg"), "an empty file")))
    assert (error.reason, str(error)) == ("an empty file", "a.jpg: an empty file")


# Unusual, and read as what they show.


@pytest.mark.parametrize(
    "name", ["ä ö 顔 😀.png", "x" * 240 + ".png", 'quote\'s "and", comma\n.png', "noext"]
)
def test_names(tmp_path: Path, name: str) -> None:
    Image.fromarray(PICTURE).save(tmp_path / name, "PNG")
    assert (read_image(tmp_path / name) == PICTURE).all()


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "really_png.jpg", "PNG")
    assert (read_image(tmp_path / "really_png.jpg") == PICTURE).all()


def test_16_bit_grey_png(tmp_path: Path) -> None:
    path = saved(tmp_path / "16.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    assert (read_image(path) == GREY[..., None].repeat(3, 2)).all()


def test_16_bit_colour_png(tmp_path: Path) -> None:
    path = tmp_path / "48.png"
    assert cv2.imwrite(str(path), PICTURE[..., ::-1].astype(np.uint16) * 257)
    assert near(read_image(path), PICTURE, 1)


def test_palette_and_two_colour_png(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "palette.png",
        Image.fromarray(PICTURE).convert("P", palette=Image.Palette.ADAPTIVE, colors=4),
    )
    assert near(read_image(path), PICTURE, 0)
    black_white = saved(tmp_path / "1.png", Image.fromarray(GREY > 127))
    assert (read_image(black_white) == (GREY > 127)[..., None].repeat(3, 2) * 255).all()


def test_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(PICTURE).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    image.info["transparency"] = image.getpixel((0, 0))
    expected = PICTURE.copy()
    expected[:32, :32] = 255
    assert near(read_image(saved(tmp_path / "holes.png", image)), expected, 0)


@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
def test_rgba_lies_on_white(tmp_path: Path, kind: str) -> None:
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:32], alpha[32:, :32] = 0, 51  # clear, a fifth, opaque
    path = tmp_path / f"alpha.{kind}"
    image = Image.fromarray(np.concatenate([PICTURE, alpha], 2))
    image.save(path, lossless=True) if kind == "webp" else image.save(path)
    expected = PICTURE.copy()
    expected[:32], expected[32:, :32] = 255, (204, 204, 255)
    assert near(read_image(path), expected, 1)


def test_grey_with_alpha(tmp_path: Path) -> None:
    path = saved(tmp_path / "la.png", Image.fromarray(np.stack([GREY, np.zeros_like(GREY)], 2)))
    assert (read_image(path) == 255).all()


def test_grey_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "grey.jpg", Image.fromarray(GREY), quality=100)
    assert near(read_image(path), GREY[..., None].repeat(3, 2), 2)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "cmyk.jpg", Image.fromarray(PICTURE).convert("CMYK"), quality=100, subsampling=0
    )
    assert Image.open(path).mode == "CMYK"
    assert near(read_image(path), PICTURE)


def test_colour_profiles_are_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = saved(tmp_path / "profile.png", Image.fromarray(PICTURE), icc_profile=profile)
    assert (read_image(path) == PICTURE).all()


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (10, 120, 240)]
    for name in ("moving.gif", "moving.webp", "moving.png", "pages.tif"):
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert near(read_image(path), np.full((32, 32, 3), 10), 3), name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    upright = np.concatenate([PICTURE, PICTURE[:16]])  # 80 x 64: not square
    stored = {  # what a camera held in each way stores of it: TIFF 6.0, tag 274
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind}"
    options = (
        {"lossless": True}
        if kind == "webp"
        else {"quality": 100, "subsampling": 0}
        if kind == "jpg"
        else {}
    )
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    assert near(read_image(path), upright)


def test_nonsense_exif_is_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.fromarray(PICTURE), exif=b"Exif\0\0nonsense")
    assert (read_image(path) == PICTURE).all()
    exif = Image.Exif()
    exif[0x0112] = 99
    assert (read_image(saved(path, Image.fromarray(PICTURE), exif=exif)) == PICTURE).all()
