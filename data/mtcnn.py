"""MTCNN's three stages (Zhang et al., 2016) for a batch of pictures of one size, on a GPU.

The networks, thresholds and roundings of facenet-pytorch, whose `detect_face` cuts and scales every
candidate by itself; here all candidates of a stage are one tensor. The device is waited for only
where a stage has to know how many candidates are left. torchvision's `nms` goes through the
candidates of all pictures one after another; here each picture has its own.
"""

from __future__ import annotations

import torch
from facenet_pytorch import MTCNN
from torch.nn import functional as F

CELL, STRIDE = 12, 2  # px of the first network's window, and of its steps
SMALLEST_BATCH = 4  # pictures or candidates: padded to this or a power of two times it
SWEEPS = 6  # of `_kept`, before it looks whether the last one changed anything
PAIRS = 1 << 24  # of boxes that are compared at once


def search(mtcnn: MTCNN, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The faces in pictures (B, 3, S, S) float32 of 0..255.

    Returns: boxes and scores (n, 5) float32, and the picture (n,) of each, in no order.
    """
    boxes, image = _proposals(mtcnn, squares)
    boxes = _square(boxes)
    sums = _summed(squares)
    moves, logits = batched(mtcnn.rnet, _cut(sums, boxes, image, 24))
    boxes, image, moves = _passed(boxes, image, logits[:, 1], mtcnn.thresholds[1], moves)
    kept = _nms(boxes, image, 0.7)
    boxes, image, moves = boxes[kept], image[kept], moves[kept]
    boxes = _square(_moved(boxes, moves))
    moves, _, logits = batched(mtcnn.onet, _cut(sums, boxes, image, 48))
    boxes, image, moves = _passed(boxes, image, logits[:, 1], mtcnn.thresholds[2], moves)
    boxes = _moved(boxes, moves)
    kept = _nms(boxes, image, 0.7, of_smaller=True)
    return boxes[kept], image[kept]


def batched(net: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`net` of (n, 3, s, s), in few sizes: cuDNN plans each size of a batch anew."""
    count, size = len(images), SMALLEST_BATCH
    if images.device.type == "cpu":
        size = max(1, count)
    while size < count:
        size *= 2
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, size - count))
    return tuple(output[:count] for output in net(padded))


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - 127.5) * 0.0078125


def _proposals(mtcnn: MTCNN, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first network at all scales: boxes and scores (n, 5), pictures (n,)."""
    side, scale = squares.shape[-1], CELL / mtcnn.min_face_size
    found = []
    while side * scale >= CELL:
        size = (int(side * scale + 1),) * 2
        small = _normalised(F.interpolate(squares, size=size, mode="area"))
        moves, scores = batched(mtcnn.pnet, small)
        image, row, column = (scores[:, 1] >= mtcnn.thresholds[0]).nonzero().unbind(1)
        corner = torch.stack([column, row], dim=1).float() * STRIDE
        ends = [((corner + more) / scale).floor() for more in (1, CELL)]
        values = [scores[image, 1, row, column][:, None], moves[image, :, row, column]]
        boxes = torch.cat([*ends, *values], dim=1)  # x0, y0, x1, y1, score, four moves
        kept = _nms(boxes, image, 0.5)
        found.append((boxes[kept], image[kept]))
        scale *= mtcnn.factor
    boxes, image = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = _nms(boxes, image, 0.7)
    boxes, image = boxes[kept], image[kept]
    sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
    corners = boxes[:, :4] + boxes[:, 5:] * sides
    return torch.cat([corners, boxes[:, 4:5]], dim=1), image


def _nms(
    boxes: torch.Tensor, image: torch.Tensor, threshold: float, of_smaller: bool = False
) -> torch.Tensor:
    """Rows that non-maximum suppression keeps, each picture by itself; the highest score first.

    A box goes if a kept one with a higher score covers more than `threshold` of the union of both.
    of_smaller: of the smaller one, in whole pixels; of equal scores, as those of large faces often
    are, the last one is kept.
    """
    if of_smaller:
        order = boxes[:, 4].argsort(stable=True).flip(0)
    else:
        order = boxes[:, 4].argsort(descending=True, stable=True)
    if not len(order):
        return order
    grouped = image[order].argsort(stable=True)
    of = image[order][grouped]
    counts = torch.bincount(of)
    place = torch.arange(len(of), device=of.device) - (counts.cumsum(0) - counts)[of]
    corners = boxes.new_zeros(len(counts), int(counts.max()), 4)
    corners[of, place] = boxes[order[grouped], :4]
    together = max(1, PAIRS // corners.shape[1] ** 2)
    parts = corners.split(together)
    kept = torch.cat([_kept(_overlaps(part, of_smaller) > threshold) for part in parts])
    rows = torch.empty_like(of, dtype=torch.bool)
    rows[grouped] = kept[of, place]
    return order[rows.nonzero()[:, 0]]


def _kept(over: torch.Tensor) -> torch.Tensor:
    """(B, K) bool: which boxes are left. over: (B, K, K) bool, which cover which, sorted."""
    over = over.triu(1)  # [b, i, j]: i, if kept, removes j
    kept = torch.ones_like(over[:, 0])
    while True:
        for _ in range(SWEEPS):  # each decides the boxes that depend on decided ones
            before, kept = kept, ~(over & kept[:, :, None]).any(1)
        if torch.equal(kept, before):
            return kept


def _overlaps(corners: torch.Tensor, of_smaller: bool) -> torch.Tensor:
    """(B, K, K) of boxes (B, K, 4): shared area over that of the union, or of the smaller one."""
    more = 1 if of_smaller else 0
    low = torch.maximum(corners[:, :, None, :2], corners[:, None, :, :2])
    high = torch.minimum(corners[:, :, None, 2:], corners[:, None, :, 2:])
    shared = (high - low + more).clamp_min(0).prod(-1)
    area = (corners[..., 2:] - corners[..., :2] + more).prod(-1)
    one, other = area[:, :, None], area[:, None]
    return shared / (torch.minimum(one, other) if of_smaller else one + other - shared)


def _passed(
    boxes: torch.Tensor,
    image: torch.Tensor,
    scores: torch.Tensor,
    threshold: float,
    moves: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The candidates above a threshold, with their new scores."""
    rows = (scores > threshold).nonzero()[:, 0]
    boxes = torch.cat([boxes[rows, :4], scores[rows, None]], dim=1)
    return boxes, image[rows], moves[rows]


def _moved(boxes: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + moves * sides, boxes[:, 4:]], dim=1)


def _square(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (n, 5) with their longer side as both, around the same middle."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longer = sides.amax(1, keepdim=True)
    corner = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([corner, corner + longer, boxes[:, 4:]], dim=1)


def _summed(squares: torch.Tensor) -> torch.Tensor:
    """(B, 3, S + 1, S + 1) int32: sums of all pixels above and to the left of each corner."""
    sums = squares.int().cumsum(2, dtype=torch.int32).cumsum(3, dtype=torch.int32)
    return F.pad(sums, (1, 0, 1, 0))


def _cut(sums: torch.Tensor, boxes: torch.Tensor, image: torch.Tensor, px: int) -> torch.Tensor:
    """Boxes cut out and area-averaged to (n, 3, px, px), normalised.

    As adaptive average pooling does: pixels floor(i * n / px) to ceil((i + 1) * n / px) of n.
    """
    side = sums.shape[-1] - 1
    corners = boxes[:, :4].trunc().long()
    low = corners[:, :2].clamp(1, side) - 1
    length = (corners[:, 2:].clamp(max=side) - low).clamp_min(1)
    step = torch.arange(px, device=boxes.device)
    first = low[..., None] + step * length[..., None] // px  # (n, 2, px)
    last = low[..., None] - (-(step + 1) * length[..., None]) // px
    columns, rows = (last - first)[..., None].unbind(1)  # how many are averaged
    (x0, y0), (x1, y1) = first.unbind(1), last.unbind(1)

    def at(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return sums[image[:, None, None], :, y[:, :, None], x[:, None]]  # (n, px, px, 3)

    total = at(y1, x1) - at(y0, x1) - at(y1, x0) + at(y0, x0)
    return _normalised((total / rows[:, :, None] / columns[:, None]).permute(0, 3, 1, 2))
