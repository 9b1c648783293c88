"""How pictures and videos are opened where verdicts are given: in this process, or in another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.images import MAX_PIXELS, ImageError, frame_count, picture_count, read_image
from data.video import read_frames, seconds_of, stream_count


class Reader:
    """Decodes in this process. max_pixels: larger pictures are refused."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels

    def close(self) -> None:
        """What it holds is free; it can be used again."""

    def image(self, path: Path, frame: int = 0) -> np.ndarray:
        """(H, W, 3) uint8 RGB, as `data.images.read_image`. Raises only ImageError."""
        return read_image(path, self.max_pixels, frame)

    def frame_count(self, path: Path) -> int:
        """Frames of an animated picture, 1 of any other. Raises only ImageError."""
        return frame_count(path, self.max_pixels)

    def picture_count(self, path: Path) -> int:
        """All pictures in a file: frames, pages, or others. Raises only ImageError."""
        return picture_count(path, self.max_pixels)

    def frames(
        self, video: Path, wanted: Sequence[tuple[int, int]]
    ) -> list[np.ndarray | ImageError]:
        """The frames (i, n) of a video, as `data.video.read_frames`."""
        return read_frames(video, wanted, self.max_pixels)

    def seconds(self, video: Path) -> float | None:
        """Its duration by its header; None unknown."""
        return seconds_of(video)

    def stream_count(self, video: Path) -> int:
        """Videos in a file, of which the first is read; 0 unreadable."""
        return stream_count(video)
