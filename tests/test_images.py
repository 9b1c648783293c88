"""Which files are images, and the perceptual hash. Their content: test_bad_images.py."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from data.images import SUFFIXES, perceptual_hash
from data.layouts.tree import files_below


def test_files_below(tmp_path: Path) -> None:
    for name in (
        "b/2.JPG",
        "b/10.jpeg",
        "a.png",
        "notes.txt",
        ".hidden.jpg",
        "__MACOSX/x.jpg",
        ".git/y.png",
        "b/c/z.webp",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "inside.jpg").touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, SUFFIXES)]
    assert found == ["a.png", "b/10.jpeg", "b/2.JPG", "b/c/z.webp", "folder.jpg/inside.jpg"]


def test_files_below_follows_links(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.jpg").touch()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    assert files_below(tmp_path / "near", SUFFIXES) == [tmp_path / "near" / "link" / "x.jpg"]


def test_a_link_back_up_lists_nothing_twice_under_another_label(tmp_path: Path) -> None:
    for name in ("real", "fake"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").touch()
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert files_below(tmp_path / "real", SUFFIXES) == [tmp_path / "real" / "x.jpg"]


def test_perceptual_hash(astronaut: np.ndarray) -> None:
    def distance(a: np.ndarray, b: np.ndarray) -> int:
        return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()

    small = cv2.resize(astronaut, (200, 200), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imdecode(
        cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR
    )
    assert len(perceptual_hash(astronaut)) == 16
    assert distance(astronaut, astronaut) == 0
    assert distance(astronaut, small) <= 2
    assert distance(small, jpeg) <= 4
    assert distance(astronaut, np.ascontiguousarray(astronaut[:, ::-1])) > 16
    assert perceptual_hash(np.full((50, 60, 3), 90, np.uint8)) == perceptual_hash(
        np.full((99, 20, 3), 31, np.uint8)
    )


def test_perceptual_hash_is_phash() -> None:
    """A cosine of one frequency sets that coefficient's bit and the mean's alone."""
    wave = 128 + 100 * np.cos(np.pi * 3 * (2 * np.arange(32) + 1) / 64)
    image = np.tile(wave.round().astype(np.uint8), (32, 1))[..., None].repeat(3, 2)
    bits = f"{int(perceptual_hash(image), 16):064b}"
    assert (bits[0], bits[3]) == ("1", "1")
    assert "1" not in bits[8:]
