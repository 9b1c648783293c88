"""Pictures of several sizes in one tensor: one copy brings a whole batch to a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

LARGEST = 2048  # px, the longer side of a picture that is worked on by a GPU; a CPU takes larger
STEP = 64  # px: sides are multiples of it, so that memory and plans of kernels are used again


@dataclass
class Stack:
    """B pictures.

    pixels: (B, H, W, 3) uint8 RGB; beyond the right and bottom border of a picture its last pixels
    are repeated. shapes: (B, 2) int, height and width of each.
    """

    pixels: torch.Tensor
    shapes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[np.ndarray]) -> Stack:
        """images: (H, W, 3) uint8 each. Raises: ValueError for none, or one larger than LARGEST."""
        if not fits(images):
            raise ValueError(f"a stack holds pictures of at most {LARGEST} px a side")
        shapes = np.array([image.shape[:2] for image in images])
        height, width = -(-shapes.max(0) // STEP) * STEP
        pixels = np.empty((len(images), height, width, 3), np.uint8)
        for place, image, (h, w) in zip(pixels, images, shapes, strict=True):
            place[:h, :w] = image
            place[:h, w:] = image[:, -1:]
            place[h:] = place[h - 1]
        return cls(torch.from_numpy(pixels), shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def pin_memory(self) -> Stack:
        return Stack(self.pixels.pin_memory(), self.shapes)

    def to(self, device: torch.device) -> Stack:
        """A copy there; nobody waits for one to a GPU."""
        return Stack(_sent(self.pixels, device), self.shapes)

    def select(self, rows: Sequence[int]) -> Stack:
        rows = np.asarray(rows, int)
        return Stack(self.pixels[self.tensor(rows)], self.shapes[rows])

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """Numbers on the device of the stack, without waiting for it."""
        return _sent(torch.from_numpy(np.ascontiguousarray(values)), self.device)

    def resized(
        self,
        images: torch.Tensor,
        part: torch.Tensor,
        size: torch.Tensor,
        side: int,
        offset: torch.Tensor | None = None,
        shapes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Parts of pictures, each resized as OpenCV's INTER_AREA does, or INTER_LINEAR to enlarge.

        Both are linear in each direction, so two products of matrices do it for all at once.

        Args:
            images: (F, 3, H, W) float32.
            part: (F, 4), x0, y0, x1, y1. size: (F, 2), width and height to which it is resized.
            side: px of the result.
            offset: (F, 2), x and y where the part is put, black around it; without, it lies in the
                corner and its border is repeated.
            shapes: (F, 2), width and height of the photographs; black beyond them (without:
                as the images continue).

        Returns: (F, 3, side, side) float32 of whole numbers.
        """
        height, width = images.shape[2:]
        part, size = part.double(), size.double()
        across, down = (
            _weights(
                part[:, axis],
                part[:, axis + 2] - part[:, axis],
                size[:, axis],
                side,
                length,
                None if offset is None else offset[:, axis],
                None if shapes is None else shapes[:, axis],
            )
            for axis, length in ((0, width), (1, height))
        )
        small = down[:, None] @ images @ across[:, None].transpose(2, 3)
        halved = (part[:, 2:] - part[:, :2] == 2 * size).all(1)[:, None, None, None]
        return torch.where(halved, (small + 0.5).floor(), small.round())  # of halves, as OpenCV


def fits(images: Sequence[np.ndarray]) -> bool:
    """Whether pictures can be stacked."""
    return bool(images) and all(max(image.shape[:2]) <= LARGEST for image in images)


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type != "cuda" or values.device == device:
        return values.to(device)
    values = values if values.is_pinned() else values.pin_memory()
    return values.to(device, non_blocking=True)


def _weights(
    start: torch.Tensor,
    length: torch.Tensor,
    size: torch.Tensor,
    side: int,
    pixels: int,
    offset: torch.Tensor | None,
    end: torch.Tensor | None,
) -> torch.Tensor:
    """(F, side, pixels) float32: the share of each pixel of a line in each of the resized line.

    start, length: (F,) of the part, px. size: (F,) of its resized copy. offset, end: see `resized`.
    """
    place = torch.arange(side, dtype=torch.float64, device=start.device)[None]
    last = size[:, None] - 1
    place = torch.minimum(place, last) if offset is None else place - offset[:, None]
    ratio = (length / size)[:, None]
    low = start[:, None] + place * ratio  # (F, side)
    pixel = torch.arange(pixels, dtype=torch.float64, device=start.device)
    area = torch.minimum(pixel + 1, (low + ratio)[..., None]) - torch.maximum(pixel, low[..., None])
    area = area.clamp_min(0) / ratio[..., None]
    within = ((place + 0.5) * ratio - 0.5).clamp_min(0)
    centre = start[:, None] + torch.minimum(within, length[:, None] - 1)
    linear = (1 - (pixel - centre[..., None]).abs()).clamp_min(0)
    weights = torch.where(ratio[..., None] >= 1, area, linear)
    if offset is not None:
        weights = weights * ((place >= 0) & (place < size[:, None]))[..., None]
    if end is not None:
        weights = weights * (pixel < end[:, None, None])
    return weights.float()
