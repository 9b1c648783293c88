"""What is beside the pixels of a picture decides nothing; frames of animations; other files."""

from __future__ import annotations

import zlib
from contextlib import suppress
from unittest.mock import patch

import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from data.images import ImageError, frame_count, read_image
from tests.test_bad_images import PICTURE, near, png, reason, saved


@pytest.mark.parametrize("place", ["before", "after"], ids=str)
@pytest.mark.parametrize(
    "kind, head",
    [(b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")],
    ids=["zTXt", "iCCP", "iTXt"],
)
def test_large_texts_and_profiles_do_not_decide_about_pixels(tmp_path, kind, head, place):
    content = saved(tmp_path / "a.png", Image.fromarray(PICTURE)).read_bytes()
    where = 33 if place == "before" else len(content) - 12
    text = png([(kind, head + zlib.compress(bytes(5_000_000)))])[8:]
    (tmp_path / "a.png").write_bytes(content[:where] + text * 2 + content[where:])
    assert (read_image(tmp_path / "a.png") == PICTURE).all()


def test_comments_of_a_gif_cost_nothing(tmp_path):
    content = saved(tmp_path / "a.gif", Image.fromarray(PICTURE)).read_bytes()
    expected = read_image(tmp_path / "a.gif")
    start = 13 + 3 * 2 ** ((content[10] & 7) + 1)
    comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 20_000 + b"\0"
    (tmp_path / "a.gif").write_bytes(content[:start] + comment + content[start:])
    blocks = GifImagePlugin.GifImageFile.data
    with patch.object(
        GifImagePlugin.GifImageFile, "data", autospec=True, side_effect=blocks
    ) as data:
        assert (read_image(tmp_path / "a.gif") == expected).all()
    assert data.call_count < 100


def test_a_jpeg_of_many_scans_is_refused_and_one_with_a_film_behind_it_is_not(tmp_path):
    image = Image.fromarray(PICTURE)
    content = saved(tmp_path / "a.jpg", image, progressive=True).read_bytes()
    scan = content.index(b"\xff\xda")
    header = content[scan : scan + 2 + int.from_bytes(content[scan + 2 : scan + 4])]
    (tmp_path / "b.jpg").write_bytes(content[:scan] + (header + b"\0") * 100 + content[scan:])
    assert "more than 64 scans" in reason(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(content + b"\xff\xda\0\x02" * 100)
    assert (read_image(tmp_path / "c.jpg") == read_image(tmp_path / "a.jpg")).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif"])
def test_frames_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("black", "red", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert frame_count(tmp_path / name) == 3
    for number, frame in enumerate(frames):
        assert near(read_image(tmp_path / name, frame=number), np.array(frame), 4)
    with pytest.raises(ImageError):
        read_image(tmp_path / name, frame=3)


def test_pages_are_no_animation(tmp_path):
    image = Image.fromarray(PICTURE)
    for name in ("a.tif", "a.mpo"):
        image.save(tmp_path / name, save_all=True, append_images=[image])
        assert frame_count(tmp_path / name) == 1


@pytest.mark.parametrize(
    "head, said",
    [
        (b"\0\0\0\x18ftypmp42", "a video, not a picture; name it .mp4"),
        (b"\x1a\x45\xdf\xa3", "a video, not a picture; name it .mkv"),
        (b"\0\0\0\x18ftypheic", "HEIC is not read; convert it"),
        (b"\xff\x0a", "JPEG XL is not read"),
        (b"\x89PNG\r\n\x1a\n", "damaged or cut short"),
        (b"hello", "not an image"),
    ],
)
def test_what_a_file_is_instead(tmp_path, head, said):
    (tmp_path / "a.jpg").write_bytes(head + bytes(100))
    assert said in reason(tmp_path / "a.jpg")


def test_damage_prints_nothing(tmp_path, capfd):
    for method in ("tiff_deflate", "tiff_lzw", "jpeg"):
        content = saved(tmp_path / "a.tif", Image.fromarray(PICTURE), compression=method)
        damaged = bytearray(content.read_bytes())
        damaged[len(damaged) // 3 : len(damaged) // 2] = b"\x55" * (
            len(damaged) // 2 - len(damaged) // 3
        )
        (tmp_path / "a.tif").write_bytes(damaged)
        with suppress(ImageError):
            read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")
