"""Operations on batches of pictures, each picture with parameters of its own, on any device.

Pictures are (N, C, S, S) float32 of whole numbers from 0 to 255, a parameter is (N,). Nothing here
loops over pictures or makes the host wait for the device. They do what OpenCV does on the CPU
(data/degrade.py, training/augment.py) up to a grey level or so.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.augment import BANDS, LARGEST_GAIN

# The standard tables of ITU-T T.81, annex K, for luma and chroma.
_LUMA = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMA = (
    """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99"""
    + " 99" * 32
)
_TABLES = tuple(float(x) for x in (_LUMA + " " + _CHROMA).split())
_YCC = (0.299, 0.587, 0.114, -0.168736, -0.331264, 0.5, 0.5, -0.418688, -0.081312)
_FROM_YCC = (1.0, 0.0, 1.402, 1.0, -0.344136, -0.714136, 1.0, 1.772, 0.0)
# Linear RGB to XYZ over that of white, as in OpenCV.
_XYZ = (0.412453, 0.357580, 0.180423, 0.212671, 0.715160, 0.072169, 0.019334, 0.119193, 0.950227)
_WHITE = (0.950456, 1.0, 1.088754)
LARGEST = 1.3  # change of contrast by `colour_transfer`


class Draws:
    """Random numbers that follow from (seed, step), on a device."""

    def __init__(self, seed: int, step: int, device: torch.device) -> None:
        number = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
        self.device, self.generator = device, torch.Generator(device)
        self.generator.manual_seed(int(number >> np.uint64(1)))

    def uniform(self, low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        draw = torch.rand(shape, generator=self.generator, device=self.device)
        return draw * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def chance(self, share: float | Tensor, n: int) -> Tensor:
        """(N,) bool."""
        return self.uniform(0.0, 1.0, n) < share

    def below(self, limit: int | Tensor, *shape: int) -> Tensor:
        """Whole numbers from 0 to limit - 1."""
        drawn = (self.uniform(0.0, 1.0, *shape) * limit).long()
        return drawn.clamp(max=limit - 1)  # should the product have been rounded up

    def choice(self, values: tuple[float, ...], n: int) -> Tensor:
        return constant(values, self.device)[self.below(len(values), n)]


@cache
def constant(values: tuple, device: torch.device) -> Tensor:
    """A small float32 tensor that is copied to the device once."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def each(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return values[:, None, None, None]


def whole(images: Tensor) -> Tensor:
    """Rounded to grey levels."""
    return images.round().clamp(0, 255)


def cut(images: Tensor) -> Tensor:
    """Cut down to grey levels, as numpy's conversion to uint8 does after clipping."""
    return images.clamp(0, 255).floor()


def separable(images: Tensor, matrix: Tensor) -> Tensor:
    """Along both axes. matrix: (N, s, S), weights of S pixels for each of s."""
    return matrix[:, None] @ (images @ matrix[:, None].mT)


def gaussian(sigma: Tensor, side: int, reach: int = 3) -> Tensor:
    """Matrices (N, side, side) of a blur that mirrors the picture at its border; 0: no blur.

    reach: in sigma; OpenCV takes 3 for uint8, 4 for float32.
    """
    sigma = sigma.clamp_min(1e-3)[:, None, None]
    radius = ((2 * reach * sigma + 1).round() / 2).floor()
    place = torch.arange(side, device=sigma.device, dtype=torch.float32)
    source, target = place[None, None], place[None, :, None]

    def weight(distance: Tensor) -> Tensor:
        near = (-0.5 * (distance / sigma).square()).exp()
        return near * (distance.abs() <= radius)

    inner = weight(source - target)
    before = weight(source + target) * (source > 0)
    after = weight(2 * (side - 1) - source - target) * (source < side - 1)
    matrix = inner + before + after
    return matrix / matrix.sum(-1, keepdim=True)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    return whole(separable(images, gaussian(sigma, images.shape[-1])))


def area(sizes: Tensor, side: int) -> Tensor:
    """Matrices (N, side, side) that shrink by averaging to sizes (N,); the last row repeats."""
    scale = side / sizes[:, None, None]
    place = torch.arange(side, device=sizes.device, dtype=torch.float32)
    row = torch.minimum(place[None, :, None], sizes[:, None, None] - 1) * scale
    overlap = torch.minimum(row + scale, place + 1) - torch.maximum(row, place)
    overlap = overlap.clamp_min(0)
    return overlap / overlap.sum(-1, keepdim=True)


def linear(sizes: Tensor, side: int) -> Tensor:
    """Matrices (N, side, side) that enlarge the first sizes (N,) pixels to all."""
    place = torch.arange(side, device=sizes.device, dtype=torch.float32)
    wanted = (place + 0.5) * (sizes[:, None] / side) - 0.5
    wanted = torch.minimum(wanted.clamp_min(0), sizes[:, None] - 1)
    return (1 - (wanted[..., None] - place).abs()).clamp_min(0)


def repeated(images: Tensor, sizes: Tensor) -> Tensor:
    """Beyond the first sizes (N,) pixels of each axis, the last of them repeats."""
    place = torch.arange(images.shape[-1], device=images.device)
    index = torch.minimum(place, sizes[:, None].long() - 1)
    images = images.gather(3, index[:, None, None, :].expand_as(images))
    return images.gather(2, index[:, None, :, None].expand_as(images))


def downscale(images: Tensor, sizes: Tensor) -> Tensor:
    """Shrunk to sizes (N,) px by averaging and enlarged again."""
    side = images.shape[-1]
    small = whole(separable(images, area(sizes, side)))
    return whole(separable(small, linear(sizes, side)))


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compressed and decompressed as by libjpeg: 4:2:0, smooth upsampling of chroma.

    images: their side is a multiple of 16. quality: whole numbers of 1 to 100.
    """
    side, device = images.shape[-1], images.device
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    tables = constant(_TABLES, device).view(1, 2, 8, 8)
    tables = ((tables * each(scale) + 50) / 100).floor().clamp(1, 255)
    luma_chroma = _mixed(images, _YCC)
    chroma = luma_chroma[:, 1:].round() + 128
    bias = torch.arange(side // 2, device=device) % 2 * 0.25 + 0.25  # libjpeg's rounding
    chroma = (F.avg_pool2d(chroma, 2) + bias).floor()
    luma = _coded(luma_chroma[:, :1].round(), tables[:, :1])
    chroma = F.interpolate(_coded(chroma, tables[:, 1:]), scale_factor=2.0, mode="bilinear")
    return whole(_mixed(torch.cat([luma, chroma.round() - 128], 1), _FROM_YCC))


def _coded(planes: Tensor, tables: Tensor) -> Tensor:
    """Rounded cosine transforms of blocks of 8 x 8, and back."""
    tiles = planes.shape[-1] // 8
    steps = tables.repeat(1, 1, tiles, tiles)
    basis = _cosines(planes.device)
    found = (_blockwise(planes - 128, basis) / steps).round() * steps
    return whole(_blockwise(found, basis.mT) + 128)


@cache
def _cosines(device: torch.device) -> Tensor:
    k, x = np.mgrid[:8, :8]
    rows = np.cos((2 * x + 1) * k * np.pi / 16) / 2
    rows[0] /= np.sqrt(2)
    return torch.from_numpy(rows).float().to(device)


def _blockwise(planes: Tensor, matrix: Tensor) -> Tensor:
    for _ in "xy":
        planes = (planes.unflatten(-1, (-1, 8)) @ matrix.mT).flatten(-2).mT
    return planes


def _mixed(images: Tensor, matrix: tuple[float, ...]) -> Tensor:
    """Colours times a matrix (3, 3)."""
    mix = constant(matrix, images.device).view(3, 3)
    return (mix @ images.flatten(2)).view_as(images)


def to_lab(images: Tensor) -> Tensor:
    rgb = images / 255
    light = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = _mixed(light, _XYZ) / constant(_WHITE, images.device)[:, None, None]
    root = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(lab: Tensor) -> Tensor:
    level, a, b = lab.unbind(1)
    y = (level + 16) / 116
    root = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(root > 6 / 29, root**3, (root - 16 / 116) / 7.787)
    xyz = xyz * constant(_WHITE, lab.device)[:, None, None]
    inverse = tuple(np.linalg.inv(np.reshape(_XYZ, (3, 3))).ravel().tolist())
    light = _mixed(xyz, inverse).clamp(0, 1)
    rgb = torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(1e-6) ** (1 / 2.4) - 0.055
    )
    return whole(rgb * 255)


def colour_transfer(images: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation of the Lab channels in a mask (N, 1, S, S) become those of the reference.

    As `training.pseudo_fakes.colour_transfer`.
    """
    weight = mask.float()
    weight = weight / weight.sum((2, 3), keepdim=True).clamp_min(1)
    lab, wanted = to_lab(images), to_lab(reference)
    means = [(x * weight).sum((2, 3), keepdim=True) for x in (lab, wanted)]
    spread, aim = (
        ((x - mean).square() * weight).sum((2, 3), keepdim=True).sqrt()
        for x, mean in zip((lab, wanted), means, strict=True)
    )
    ratio = (aim / spread.clamp_min(1e-3)).clamp(1 / LARGEST, LARGEST)
    return from_lab((lab - means[0]) * ratio + means[1])


def detail_transfer(images: Tensor, reference: Tensor, mask: Tensor, strength: Tensor) -> Tensor:
    """As `training.augment.detail_transfer`. mask: (N, 1, S, S). strength: (N,)."""
    weight = mask.float()
    weight = weight / (3 * weight.sum((2, 3), keepdim=True)).clamp_min(1)
    result, both = images, torch.stack([images, reference])
    for sigma in BANDS:
        sigma = constant((sigma,), images.device)
        softer = separable(both.flatten(0, 1), gaussian(sigma, images.shape[-1], reach=4))
        detail, both = both - softer.view_as(both), softer.view_as(both)
        spread, aim = (detail.square() * weight).sum((2, 3, 4)).sqrt().clamp_min(0.1)
        gain = ((aim / spread) ** strength).clamp_max(LARGEST_GAIN)
        result = result + detail[0] * (each(gain) - 1)
    return whole(result)


def warp(
    images: Tensor, back: Tensor, side: int, mode: str = "bilinear", border: str = "zeros"
) -> Tensor:
    """Pictures (N, C, side, side). back: (N, 2, 3), from px of the result to px of the picture.

    mode, border: as in torch's grid_sample.
    """
    grid = pixels(side, images.device).flatten(0, 1) @ back[:, :, :2].mT + back[:, None, :, 2]
    grid = ((2 * grid + 1) / images.shape[-1] - 1).unflatten(1, (side, side))
    return F.grid_sample(images, grid, mode, border, align_corners=False)


def pixels(side: int, device: torch.device) -> Tensor:
    """(side, side, 2): x and y of every pixel."""
    place = torch.arange(side, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)
