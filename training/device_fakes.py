"""Pairs of real faces and pseudo-fakes made on a device, many at once: pseudo_fakes.py in batches.

The same kinds in the same shares, with the same ranges of random numbers, through the same channel
and window. All random numbers are the device's and follow from (seed, step). No loop over faces,
and the host never waits. Different from the CPU's:

- Every batch holds the kinds in nearly their shares. Faces that would change too little are not
  drawn again one by one: a few pairs more are made than are needed, and only good ones are kept.
- `poisson_swap` fills the difference at the outline inwards by a few averages at four sizes
  instead of solving for it, and its tone returns with the depth towards the middle of the face.
- Outlines are exact to half a pixel; the other steps to a grey level or so (device_images.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from models.trace_net import CROP, GRID
from training import device_images as images
from training.aligned_crops import CANDIDATES, FACE_WINDOW, WIDE_CROP, AlignedCrops
from training.device_augment import displace, perturb, random_windows, sharpen, transmit
from training.device_images import Draws, each, warp, whole
from training.device_masks import (
    depth,
    fit,
    inverse,
    outline,
    similar_pose,
    soft_mask,
    transform,
    wide_mask,
)
from training.pseudo_fakes import COPIED, DECODED, ENLARGED, MIN_PIXELS, REDRAWN, PseudoFakes

SIDE = WIDE_CROP.px
SPARE = 16  # one pair in so many is made beyond those that are needed, at least `FEWEST`
FEWEST = 2
SWEEPS = (60, 30, 20, 10)  # averages of `membrane`, from the coarsest size to the finest
# Real pictures, fakes of them, masks (n, 1, S, S), whether too little changed
Fake = tuple[Tensor, Tensor, Tensor, Tensor]


class Faces:
    """Real faces on a device, sorted by dataset."""

    def __init__(self, crops: AlignedCrops, device: torch.device) -> None:
        order = np.argsort(crops.sources, kind="stable")
        _, source, sizes = np.unique(crops.sources, return_inverse=True, return_counts=True)
        self.images = _planes(crops.images[order]).to(device)  # (N, 4, 224, 224) uint8
        decoded = crops.reconstructed
        self.decoded = None if decoded is None else _planes(decoded[order]).to(device)
        self.landmarks = torch.from_numpy(crops.landmarks[order]).float().to(device)
        self.appearance = torch.from_numpy(crops.appearance[order]).to(device)
        self.sizes = torch.from_numpy(sizes).to(device)  # of datasets
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.source = torch.from_numpy(source[order]).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, draws: Draws, n: int) -> Tensor:
        """As `AlignedCrops.sample`: (n,) rows."""
        dataset = draws.below(len(self.sizes), n)
        there = self.starts[dataset] + draws.below(self.sizes[dataset], n)
        return torch.where(draws.chance(0.5, n), there, draws.below(len(self), n))

    def donors(self, rows: Tensor, draws: Draws) -> Tensor:
        """As `AlignedCrops.donor`: (n,) rows."""
        n, source = len(rows), self.source[rows]
        alike = draws.chance(0.7, n) & (self.sizes[source] > 1)
        first = torch.where(alike, self.starts[source], 0)[:, None]
        count = torch.where(alike, self.sizes[source], len(self))[:, None]
        pool = first + draws.below(count - 1, n, CANDIDATES)
        pool = pool + (pool >= rows[:, None])  # any but the face itself
        distance = (self.appearance[pool] - self.appearance[rows][:, None]).square().sum(2)
        return pool.gather(1, distance.argmin(1, keepdim=True))[:, 0]

    def rgb(self, rows: Tensor) -> Tensor:
        return self.images[rows, :3].float()

    def alpha(self, rows: Tensor) -> Tensor:
        return self.images[rows, 3:].float()


def _planes(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def alpha_blend(
    inside: Tensor, outside: Tensor, mask: Tensor, draws: Draws, strongest: float = COPIED
) -> Fake:
    mixed = inside * mask + outside * (1 - mask)
    core = mask > mask.amax((1, 2, 3), True) / 2
    strength = draws.uniform(0.0, strongest, len(mask))
    outside = images.detail_transfer(outside, mixed, core, strength)
    mixed = whole(inside * mask + outside * (1 - mask))
    return outside, mixed, mask, (mask.amax((1, 2, 3)) < 0.2) | _few(mask > 0.1)


def _few(mask: Tensor) -> Tensor:
    return mask.sum((1, 2, 3)) < MIN_PIXELS


def self_blend(faces: Faces, rows: Tensor, draws: Draws) -> Fake:
    image, landmarks, n = faces.rgb(rows), faces.landmarks[rows], len(rows)
    changed, first = perturb(image, draws), each(draws.chance(0.5, n))
    moved, still = torch.where(first, image, changed), torch.where(first, changed, image)
    moved, outer = displace(moved, landmarks, draws), each(draws.chance(0.5, n))
    inside, outside = torch.where(outer, still, moved), torch.where(outer, moved, still)
    mask = soft_mask(landmarks, draws, SIDE)
    mask = mask * each(draws.choice((0.25, 0.5, 0.75, 1, 1, 1), n))
    return alpha_blend(inside, outside, mask, draws)


def alpha_swap(faces: Faces, rows: Tensor, draws: Draws) -> Fake:
    donors, _, back = _posed(faces, rows, draws)
    inside = whole(warp(faces.rgb(donors), back, SIDE, "bicubic", "border"))
    valid = warp(faces.alpha(donors), back, SIDE, "nearest")
    return paste(faces, rows, inside, valid, soft_mask(faces.landmarks[rows], draws, SIDE), draws)


def _posed(faces: Faces, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Donors; their landmarks, mirrored if need be; and maps (n, 2, 3) from px of faces to theirs."""
    donors = faces.donors(rows, draws)
    points, turned = similar_pose(faces.landmarks[donors], faces.landmarks[rows], SIDE)
    back = inverse(fit(points, faces.landmarks[rows]))
    x = torch.where(turned[:, None], -back[:, 0], back[:, 0])
    mirror = images.constant((0.0, 0.0, SIDE - 1.0), x.device) * turned[:, None]
    return donors, points, torch.stack([x + mirror, back[:, 1]], 1)


def reconstruction(faces: Faces, rows: Tensor, draws: Draws) -> Fake:
    """As `pseudo_fakes.crop_reconstruction`."""
    n, swapped = len(rows), draws.chance(0.35, len(rows))
    chosen = torch.where(swapped, faces.donors(rows, draws), rows)
    face = enlarged(faces.decoded[chosen].float(), draws)
    used, amount = draws.chance(0.4, n), draws.uniform(0.3, 1.5, n)
    face = torch.where(each(used), sharpen(face, torch.full_like(amount, 1.5), amount), face)
    mask = soft_mask(faces.landmarks[rows], draws, SIDE)
    inside, valid = placed(faces, rows, chosen, face)
    return paste(faces, rows, inside, valid, mask, draws, strongest=REDRAWN)


def upsampled_swap(faces: Faces, rows: Tensor, draws: Draws) -> Fake:
    """As `pseudo_fakes.crop_upsampled_swap`."""
    n, (left, top, side) = len(rows), FACE_WINDOW
    chosen = torch.where(draws.chance(0.7, n), faces.donors(rows, draws), rows)
    window = faces.rgb(chosen)[:, :, top : top + side, left : left + side]
    small = images.area(images.constant((DECODED[-1],), rows.device), side)[:, : DECODED[-1]]
    window = whole(images.separable(window, small))
    redrawn = each(draws.chance(0.5, n))
    face = enlarged(torch.where(redrawn, faces.decoded[chosen].float(), window), draws)
    used, sigma = draws.chance(0.6, n), draws.uniform(0.8, 2.5, n)
    face = torch.where(each(used), sharpen(face, sigma, draws.uniform(0.3, 2.0, n)), face)
    mask = wide_mask(faces.landmarks[rows], draws, SIDE)
    inside, valid = placed(faces, rows, chosen, face)
    return paste(faces, rows, inside, valid, mask, draws, toned=0.5, strongest=REDRAWN)


def enlarged(face: Tensor, draws: Draws) -> Tensor:
    """As `pseudo_fakes._enlarged`."""
    smaller, larger = _resizes(face.device)
    size, way = draws.below(len(DECODED), len(face)), draws.below(len(ENLARGED), len(face))
    face = whole(images.separable(face, smaller[size]))
    return whole(images.separable(face, larger[size, way]))


@cache
def _resizes(device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices of the sizes `DECODED`: (4, 128, 128) shrink, (4, 3, 160, 128) enlarge again."""
    side = FACE_WINDOW[2]
    larger = torch.zeros(len(DECODED), len(ENLARGED), side, DECODED[-1])
    for row, size in enumerate(DECODED):
        for column, way in enumerate(ENLARGED):
            basis = cv2.resize(np.eye(size, dtype=np.float32), (size, side), interpolation=way)
            larger[row, column, :, :size] = torch.from_numpy(basis)
    smaller = images.area(torch.tensor(DECODED, dtype=torch.float32), DECODED[-1])
    return smaller.to(device), larger.to(device)


def placed(faces: Faces, rows: Tensor, chosen: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """As `pseudo_fakes._placed`."""
    left, top, side = FACE_WINDOW
    inside, valid = faces.rgb(chosen), torch.zeros_like(faces.alpha(rows))
    inside[:, :, top : top + side, left : left + side] = face
    valid[:, :, top + 3 : top + side - 3, left + 3 : left + side - 3] = 255
    back, swapped = inverse(fit(faces.landmarks[chosen], faces.landmarks[rows])), chosen != rows
    moved = whole(warp(inside, back, SIDE, "bilinear", "border"))
    inside = torch.where(each(swapped), moved, inside)
    return inside, torch.where(each(swapped), warp(valid, back, SIDE, "nearest"), valid)


def paste(
    faces: Faces,
    rows: Tensor,
    inside: Tensor,
    valid: Tensor,
    mask: Tensor,
    draws: Draws,
    toned: float = 0.8,
    strongest: float = COPIED,
) -> Fake:
    """As `pseudo_fakes._paste`. valid: (n, 1, S, S), 255 where `inside` is a photograph."""
    n, outside = len(rows), faces.rgb(rows)
    valid = torch.minimum(-F.max_pool2d(-valid, 3, 1, 1), faces.alpha(rows))
    edge = images.blur(valid, torch.full((n,), 1.5, device=valid.device)) / 255
    mask = mask * edge * each(draws.choice((0.75, 1, 1, 1), n))
    matched = images.colour_transfer(inside, outside, mask > 0.5)
    inside = torch.where(each(draws.chance(toned, n)), matched, inside)
    used, inner = each(draws.chance(0.5, n)), each(draws.chance(0.5, n))
    changed = perturb(torch.where(inner, inside, outside), draws)
    inside = torch.where(used & inner, changed, inside)
    outside = torch.where(used & ~inner, changed, outside)
    real, fake, mask, failed = alpha_blend(inside, outside, mask, draws, strongest)
    return real, fake, mask, failed | _few(mask > 0.5)


def poisson_swap(faces: Faces, rows: Tensor, draws: Draws) -> Fake:
    """As `pseudo_fakes.face_swap`, with `membrane` for the solution of Poisson's equation."""
    image, to, n = faces.rgb(rows), faces.landmarks[rows], len(rows)
    donors, points, back = _posed(faces, rows, draws)
    stretch, part = draws.uniform(0.97, 1.03, n, 2), torch.zeros_like(rows)
    places = images.pixels(SIDE, rows.device).expand(n, -1, -1, -1)
    face = depth(outline(part, to, torch.ones_like(stretch)), places) > -0.5
    strength = draws.uniform(0.0, 2.0, n)
    image = images.detail_transfer(image, faces.rgb(donors), face, strength)
    shapes = outline(part, to, stretch), outline(part, points, stretch)
    shapes = shapes[0], transform(fit(points, to), shapes[1])
    deep = torch.minimum(*(depth(shape, places) for shape in shapes)) + 0.5
    inside = warp(torch.ones_like(faces.alpha(donors)), back, SIDE, "nearest")
    mask = (deep > 0).float() * inside
    source = whole(warp(faces.rgb(donors), back, SIDE, "bicubic", "border"))
    source = images.colour_transfer(source, image, mask)
    clone = whole(source + membrane(image - source, mask))
    deepest = (deep * mask).amax((1, 2, 3)).clamp_min(1)
    inward = (deep / (0.6 * each(deepest))).clamp(0, 1)
    toned = images.colour_transfer(clone, image, mask)
    fake = whole(clone + inward * (toned - clone))
    return image, torch.where(mask > 0, fake, image), mask, _few(mask)


def membrane(outer: Tensor, mask: Tensor) -> Tensor:
    """Values as outside a mask (n, 1, S, S) of 0 and 1, and smoothly between them inside."""
    levels = [(outer, 1 - mask)]
    for _ in SWEEPS[1:]:
        values, known = levels[-1]
        share = F.avg_pool2d(known, 2)
        values = F.avg_pool2d(values * known, 2) / share.clamp_min(1e-6)
        levels.append((values, (share > 0).float()))
    x = torch.zeros_like(levels[-1][0])
    for sweeps, (values, known) in zip(SWEEPS, levels[::-1], strict=True):
        if x.shape != values.shape:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        for _ in range(sweeps):
            x = torch.where(known > 0, values, x)
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return torch.where(levels[0][1] > 0, outer, x)


KINDS: dict[str, Callable[[Faces, Tensor, Draws], Fake]] = {
    "self_blend": self_blend,
    "alpha_swap": alpha_swap,
    "poisson_swap": poisson_swap,
    "reconstruction": reconstruction,
    "upsampled_swap": upsampled_swap,
}


class DeviceFakes(Dataset):
    """Step -> faces (2P, 3, px, px) uint8, real and fake in turn; shares of cells (2P, 20, 20).

    Both lie on the device. together: pairs that are made at once, for several steps if that is more
    than P: a GPU takes hardly longer for them.
    """

    on_device = True

    def __init__(
        self, fakes: PseudoFakes, pairs: int, seed: int, device: torch.device, together: int = 1
    ) -> None:
        self.faces, self.pairs, self.seed = Faces(fakes.crops, device), pairs, seed
        used = {kind: share for kind, share in fakes.shares.items() if share > 0}
        self.kinds, self.shares = list(used), np.array(list(used.values())) / sum(used.values())
        self.steps = max(1, together // pairs)
        self.known, self.made = -1, ()

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        chunk, place = divmod(step, self.steps)
        if chunk != self.known:
            self.known, self.made = chunk, self.batch(chunk)
        start = place * 2 * self.pairs
        faces, shares = (part[start : start + 2 * self.pairs] for part in self.made)
        return faces, shares

    @torch.no_grad()
    def batch(self, chunk: int) -> tuple[Tensor, Tensor]:
        """The pairs of a number of steps."""
        draws = Draws(self.seed, chunk, self.faces.device)
        rows, pair, mask = self.make(chunk, draws)
        return self.seen(transmit(pair, draws), self.faces.alpha(rows), mask, draws)

    def make(self, chunk: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (n,) of faces, pairs of each (n, 2, 3, S, S), masks (n, 1, S, S)."""
        wanted = self.pairs * self.steps
        total = wanted + max(FEWEST, -(-wanted // SPARE))
        start = np.random.default_rng((self.seed, chunk)).random()
        ends = np.floor(np.round(self.shares.cumsum() * total, 6) + start).astype(int).tolist()
        rows, made, begin = self.faces.sample(draws, total), [], 0
        for kind, end in zip(self.kinds, ends, strict=True):
            if end > begin:
                made.append(KINDS[kind](self.faces, rows[begin:end], draws))
            begin = end
        real, fake, mask, failed = (torch.cat(parts) for parts in zip(*made, strict=True))
        order = (failed + draws.uniform(0.0, 1.0, total)).argsort()
        # Were there too few good ones, the first would come again.
        order = torch.where(failed[order], order[0], order)[:wanted]
        return rows[order], torch.stack([real[order], fake[order]], 1), mask[order]

    def seen(
        self, pair: Tensor, alpha: Tensor, mask: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Pairs (n, 2, 3, S, S) through random windows, black outside the photograph."""
        back = random_windows(len(pair), draws)
        pair = (pair * (alpha > 0)[:, None]).flatten(0, 1)
        faces = whole(warp(pair, back.repeat_interleave(2, 0), CROP.px)).byte()
        shares = F.avg_pool2d(warp(mask, back, CROP.px), CROP.px // GRID)[:, 0]
        shares = torch.stack([torch.zeros_like(shares), shares], 1).flatten(0, 1)
        return faces, shares
