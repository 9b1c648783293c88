"""Random augmentation of batches of pictures on any device: the batched twin of augment.py.

Pictures are (n, 3, 224, 224) float32 of whole numbers: see device_images.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.trace_net import CROP
from training import device_images as images
from training.aligned_crops import FACE_WIDTH, WIDE_CROP
from training.device_images import Draws, cut, each, warp, whole
from training.device_masks import inverse

SIDE = WIDE_CROP.px


def perturb(x: Tensor, draws: Draws) -> Tensor:
    """As `augment.perturb`."""
    n = len(x)
    used = draws.chance(0.6, n)
    x = x + each(used) * draws.uniform(-14.0, 14.0, n, 3, 1, 1)
    used, gain = draws.chance(0.5, n), draws.uniform(0.88, 1.12, n)
    shift = draws.uniform(-12.0, 12.0, n, 3, 1, 1)
    x = torch.where(each(used), (x - 128) * each(gain) + 128 + shift, x)
    used, gain = draws.chance(0.3, n), draws.uniform(0.75, 1.25, n)
    grey = x.mean(1, keepdim=True)
    x = torch.where(each(used), grey + (x - grey) * each(gain), x)
    x, detail = cut(x), draws.uniform(0.0, 1.0, n)
    small = (SIDE / draws.uniform(1.2, 3.5, n)).round()
    x = images.downscale(x, torch.where(detail < 0.35, small, SIDE))
    sharper, softer = (detail >= 0.55) & (detail < 0.8), (detail >= 0.35) & (detail < 0.55)
    sigma = torch.where(softer, draws.uniform(0.4, 1.4, n), torch.where(sharper, 1.2, 0.0))
    soft = images.blur(x, sigma)
    sharp = cut(x + (x - soft) * each(draws.uniform(0.3, 1.2, n)))
    x = torch.where(each(sharper), sharp, soft)
    sigma = draws.uniform(1.0, 6.0, n) * draws.chance(0.2, n)
    x = cut(x + each(sigma) * draws.normal(*x.shape))
    used, quality = draws.chance(0.25, n), 40 + draws.below(55, n)
    return torch.where(each(used), images.jpeg(x, quality), x)


def sharpen(x: Tensor, sigma: Tensor, amount: Tensor) -> Tensor:
    """As `augment.sharpen`."""
    return cut(x + (x - images.blur(x, sigma)) * each(amount))


def displace(x: Tensor, landmarks: Tensor, draws: Draws) -> Tensor:
    """As `augment.displace`."""
    n, middle = len(x), landmarks.mean(1)
    stretched, smooth = draws.chance(0.7, n)[:, None], draws.chance(0.5, n)
    scale = torch.where(stretched, draws.uniform(0.95, 1.05, n, 2), 1.0)
    reach = images.constant((0.03 * FACE_WIDTH, 0.02 * FACE_WIDTH), x.device)
    shift = draws.uniform(-1.0, 1.0, n, 2) * reach
    turn = torch.diag_embed(1 / scale)
    back = torch.cat([turn, (middle - (middle + shift) / scale)[..., None]], 2)
    plain, cubic = (warp(x, back, SIDE, mode, "reflection") for mode in ("bilinear", "bicubic"))
    return whole(torch.where(each(smooth), plain, cubic))


def transmit(x: Tensor, draws: Draws) -> Tensor:
    """As `augment.transmit`. x: (n, 2, 3, S, S) pairs; both of a pair in the same way."""
    n, shape = len(x), x.shape
    x, bad = x.flatten(0, 1), draws.chance(0.3, n)

    def both(values: Tensor) -> Tensor:
        return values.repeat_interleave(2, 0)

    def worse(poor: float, good: float) -> Tensor:
        return torch.where(bad, poor, good)

    used, light = draws.chance(0.3, n), draws.uniform(-25.0, 25.0, n, 1, 1, 1)
    light = 128 + light + 0.5 * draws.uniform(-25.0, 25.0, n, 3, 1, 1)
    lit = cut((x - 128) * each(both(draws.uniform(0.75, 1.25, n))) + both(light))
    x = torch.where(each(both(used)), lit, x)
    sigma = draws.uniform(0.3, worse(3.0, 1.3), n) * draws.chance(worse(0.4, 0.25), n)
    x = images.blur(x, both(sigma))
    small = (SIDE / draws.uniform(1.1, worse(4.0, 2.2), n)).round()
    small = torch.where(draws.chance(worse(0.5, 0.35), n), small, SIDE)
    x = whole(images.separable(x, images.area(both(small), SIDE)))
    sizes = torch.where(draws.chance(0.5, n), SIDE, small)  # while there is noise and compression
    early = torch.where(sizes == SIDE, small, SIDE)
    x = whole(images.separable(x, images.linear(both(early), SIDE)))
    sigma = draws.uniform(1.0, worse(20.0, 8.0), n) * draws.chance(worse(0.4, 0.15), n)
    noise = images.repeated(draws.normal(n, 3, SIDE, SIDE) * each(sigma), sizes)
    x = cut(x + both(noise))
    used, lowest = draws.chance(worse(0.8, 0.6), n), torch.where(bad, 20, 35)
    quality = lowest + draws.below(98 - lowest, n)
    x = torch.where(each(both(used)), images.jpeg(x, both(quality)), x)
    x = whole(images.separable(x, images.linear(both(sizes), SIDE)))
    return x.view(shape)


def random_windows(n: int, draws: Draws) -> Tensor:
    """As `augment.random_window`, maps (n, 2, 3) the other way: from the crop to the wide crop."""
    zoom = draws.uniform(0.93, 1.07, n) * (WIDE_CROP.width / SIDE) / (CROP.width / CROP.px)
    angle = torch.deg2rad(draws.uniform(-6.0, 6.0, n))
    cos, sin, mirror = angle.cos() * zoom, angle.sin() * zoom, draws.chance(0.5, n)
    sign = torch.where(mirror, -1.0, 1.0)
    turn = torch.stack([cos * sign, -sin, sin * sign, cos], 1).view(n, 2, 2)
    middle = (CROP.px - 1) / 2 + draws.uniform(-4.0, 4.0, n, 2, 1)
    start = turn.sum(2, keepdim=True) * ((SIDE - 1) / 2)  # turn @ the middle of the wide crop
    return inverse(torch.cat([turn, middle - start], 2))
