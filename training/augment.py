"""Random augmentation of uint8 RGB pictures (H, W, 3): framing, colours, channels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from data import degrade
from features.regions import ALIGNED, REGIONS, Crop, region_masks

BANDS = (1.0, 2.0, 4.0)  # px, sigma of blurs; between them there are bands of detail
LARGEST_GAIN = 3.0


def sharpen(image: np.ndarray, sigma: float, amount: float) -> np.ndarray:
    """Unsharp masking."""
    detail = image.astype(np.float32) - degrade.blur(image, sigma)
    return np.clip(image + detail * amount, 0, 255).astype(np.uint8)


def detail_transfer(
    image: np.ndarray, reference: np.ndarray, mask: np.ndarray, strength: float
) -> np.ndarray:
    """A picture whose detail in a mask (H, W) bool is as strong as that of the reference.

    Three bands of detail are scaled everywhere. strength: 0: not at all, 1: to the same deviation,
    2: as far beyond it.
    """
    image, reference = np.float32(image), np.float32(reference)
    result = image
    for sigma in BANDS:
        finer, wanted = image, reference
        image, reference = (cv2.GaussianBlur(x, (0, 0), sigma) for x in (image, reference))
        spread, aim = ((x[mask] ** 2).mean() ** 0.5 for x in (finer - image, wanted - reference))
        gain = min((max(aim, 0.1) / max(spread, 0.1)) ** strength, LARGEST_GAIN)
        result = result + (finer - image) * (gain - 1)
    return np.rint(np.clip(result, 0, 255)).astype(np.uint8)


def shift_colours(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Colours and contrast, then less detail or more, as in self-blended images (CVPR 2022)."""
    gain, shift = rng.uniform(0.9, 1.1), rng.uniform(-12, 12, 3)
    image = np.clip((image.astype(np.float32) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        return degrade.downscale(image, rng.choice([2, 3]))
    return cv2.addWeighted(image, 1.6, degrade.blur(image, 1.5), -0.6, 0)


def perturb(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Slight changes of colour, contrast, detail, noise and compression."""
    x = image.astype(np.float32)
    if rng.random() < 0.6:
        x += rng.uniform(-14, 14, 3)
    if rng.random() < 0.5:
        x = (x - 128) * rng.uniform(0.88, 1.12) + 128 + rng.uniform(-12, 12)
    if rng.random() < 0.3:
        grey = x.mean(-1, keepdims=True)
        x = grey + (x - grey) * rng.uniform(0.75, 1.25)
    x, detail = np.clip(x, 0, 255).astype(np.uint8), rng.random()
    if detail < 0.35:
        x = degrade.downscale(x, rng.uniform(1.2, 3.5))
    elif detail < 0.55:
        x = degrade.blur(x, rng.uniform(0.4, 1.4))
    elif detail < 0.8:
        x = sharpen(x, 1.2, rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        x = degrade.noise(x, rng.uniform(1, 6), rng)
    return degrade.jpeg(x, int(rng.integers(40, 95))) if rng.random() < 0.25 else x


def displace(
    image: np.ndarray, landmarks: np.ndarray, face_px: float, rng: Generator
) -> np.ndarray:
    """Shifted by up to 3% of the face, mostly also stretched by up to 5%."""
    middle = landmarks.mean(0)
    scale = rng.uniform(0.95, 1.05, 2) if rng.random() < 0.7 else np.ones(2)
    shift = rng.uniform(-1, 1, 2) * (0.03, 0.02) * face_px
    flags = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    warp = np.column_stack([np.diag(scale), middle + shift - scale * middle])
    size = image.shape[1::-1]
    return cv2.warpAffine(image, warp, size, flags=flags, borderMode=cv2.BORDER_REFLECT)


def transmit(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Another camera and channel: light, blur, size, noise, JPEG. Three in ten are bad ones."""
    bad = rng.random() < 0.3
    if rng.random() < 0.3:
        light = 128 + rng.uniform(-25, 25, 3) * 0.5 + rng.uniform(-25, 25)
        contrast = (image.astype(np.float32) - 128) * rng.uniform(0.75, 1.25)
        image = np.clip(contrast + light, 0, 255).astype(np.uint8)
    if rng.random() < (0.4 if bad else 0.25):
        image = degrade.blur(image, rng.uniform(0.3, 3 if bad else 1.3))
    height, width = image.shape[:2]
    if rng.random() < (0.5 if bad else 0.35):  # half of them are enlarged again only at the end
        factor = rng.uniform(1.1, 4 if bad else 2.2)
        small = (round(width / factor), round(height / factor))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < (0.4 if bad else 0.15):
        image = degrade.noise(image, rng.uniform(1, 20 if bad else 8), rng)
    if rng.random() < (0.8 if bad else 0.6):
        image = degrade.jpeg(image, int(rng.integers(20 if bad else 35, 98)))
    if len(image) < height:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def random_window(wide: Crop, crop: Crop, rng: Generator) -> np.ndarray:
    """A map (2, 3) from a wide crop to a narrower one, turned, zoomed, shifted and mirrored."""
    zoom = rng.uniform(0.93, 1.07) * (wide.width / wide.px) / (crop.width / crop.px)
    angle = np.deg2rad(rng.uniform(-6, 6))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1, 1])
    middle = np.full(2, (wide.px - 1) / 2)
    return np.column_stack([turn, (crop.px - 1) / 2 + rng.uniform(-4, 4, 2) - turn @ middle])


def jitter(image: np.ndarray, px: int, rng: Generator) -> np.ndarray:
    """Mirrored, turned, zoomed, shifted. image: (S, S, 4). Returns: (px, px, 4)."""
    side = len(image)
    scale = px / side * rng.uniform(0.92, 1.1)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.normal(0, 4), scale)
    matrix[:, 2] += (px - side) / 2 + rng.normal(0, 0.018 * px, 2)
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, side - 1], [0, 1, 0], [0, 0, 1.0]])
    flags = cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, matrix, (px, px), flags=flags)


def degrade_crop(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Gamma, gain and offset per channel; sometimes grey, blurred or shrunk, noisy, compressed."""
    curve = np.arange(256)[:, None] / 255.0
    gain = rng.uniform(0.75, 1.25) * rng.normal(1, 0.05, 3)
    curve = (curve ** np.exp(rng.normal(0, 0.2)) - 0.5) * gain + 0.5 + rng.uniform(-0.1, 0.1)
    image = cv2.LUT(image, (np.clip(curve, 0, 1) * 255).astype(np.uint8)[:, None])
    if rng.random() < 0.15:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.15:
        image = degrade.blur(image, rng.uniform(0.5, 2.0) * len(image) / ALIGNED.px)
    elif rng.random() < 0.2:
        image = degrade.downscale(image, rng.uniform(1.3, 3.5))
    if rng.random() < 0.1:
        image = degrade.noise(image, rng.uniform(2, 12), rng)
    if rng.random() < 0.25:
        image = degrade.jpeg(image, int(rng.integers(25, 90)))
    return image


def random_region(px: int, rng: Generator) -> np.ndarray:
    """The whole face, sometimes with a hole; a named region; or a random box or its complement."""
    draw = rng.random()
    if draw < 0.25:
        mask = np.ones((px, px), bool)
        if rng.random() < 0.4:  # something in front of the face
            x, y = rng.integers(0, px, 2)
            w, h = rng.integers(px // 8, px // 2, 2)
            mask[max(0, y - h // 2) : y + h // 2, max(0, x - w // 2) : x + w // 2] = False
        return mask
    if draw < 0.85:
        region = REGIONS[1 + rng.integers(len(REGIONS) - 1)]
        return region_masks(ALIGNED.at(px), (region,))[0]
    mask = np.zeros((px, px), bool)
    w, h = rng.integers(int(px * 0.35), px, 2)
    x, y = rng.integers(0, px - w + 1), rng.integers(0, px - h + 1)
    mask[y : y + h, x : x + w] = True
    return ~mask if rng.random() < 0.3 and w * h < 0.5 * px * px else mask
