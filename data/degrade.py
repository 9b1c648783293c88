"""Degradations of a picture: functions of uint8 RGB (H, W, 3).

`FAMILIES` are the conditions of robustness tables; a new one is a function and a row of it. Six are
of DeeperForensics-1.0 with the parameters of its code (Jiang et al., CVPR 2020).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

BLOCK = 8  # px, the side of a block that `blocks` covers
H264 = "h264"  # the family of data/video.py


def jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """Compress and decompress. quality: 1 (worst) to 100."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), float(sigma))


def downscale(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink by `factor` with area averaging and enlarge again, linearly."""
    height, width = image.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return _through(image, size, cv2.INTER_AREA)


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Gaussian noise. sigma: standard deviation in grey levels (0-255). Without `rng`: seed 0."""
    rng = rng or np.random.default_rng(0)
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def brightness(image: np.ndarray, gain: float) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=float(gain))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Both chroma components times `factor`; 0 leaves grey."""
    luma_chroma = _luma_chroma(image)
    luma_chroma[..., 1:] = 0.5 + (luma_chroma[..., 1:] - 0.5) * np.float32(factor)
    return _rgb(luma_chroma)


def blocks(image: np.ndarray, count: float) -> np.ndarray:
    """`count` grey squares at random places in a picture of 256 px, and in proportion in others."""
    changed, rng = image.copy(), _rng(image)
    height, width = image.shape[:2]
    for _ in range(round(min(height, width) / 256 * count)):
        y, x = rng.integers(height - BLOCK), rng.integers(width - BLOCK)
        changed[y : y + BLOCK, x : x + BLOCK] = 128
    return changed


def colour_noise(image: np.ndarray, variance: float) -> np.ndarray:
    """Gaussian noise in luma and chroma. variance: on a scale of 0 to 1, in their studio range."""
    luma_chroma = _luma_chroma(image)
    sigma = np.sqrt(variance) * np.array([255 / 219, 255 / 224, 255 / 224])
    luma_chroma += (_rng(image).normal(size=image.shape) * sigma).astype(np.float32)
    return _rgb(luma_chroma)


def kernel_blur(image: np.ndarray, size: float) -> np.ndarray:
    """Gaussian blur with a kernel of `size` x `size` px and a standard deviation of size / 6."""
    return cv2.GaussianBlur(image, (int(size), int(size)), size / 6)


def pixelation(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink by `factor` and enlarge again, linearly both times, without averaging."""
    height, width = image.shape[:2]
    return _through(image, (int(width // factor), int(height // factor)), cv2.INTER_LINEAR)


def resize(image: np.ndarray, side: float) -> np.ndarray:
    """Shrink by area averaging to a shorter side of `side` px; a smaller picture stays as it is."""
    height, width = image.shape[:2]
    factor = side / min(height, width)
    if factor >= 1:
        return image
    size = (round(width * factor), round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _through(image: np.ndarray, size: tuple[int, int], method: int) -> np.ndarray:
    small = cv2.resize(image, size, interpolation=method)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _luma_chroma(image: np.ndarray) -> np.ndarray:
    """float32 YCrCb, 0 to 1."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2YCR_CB)


def _rgb(luma_chroma: np.ndarray) -> np.ndarray:
    rgb = cv2.cvtColor(luma_chroma, cv2.COLOR_YCR_CB2RGB)
    return (rgb * 255).round().clip(0, 255).astype(np.uint8)


def _rng(image: np.ndarray) -> np.random.Generator:
    """Seeded by the picture itself, so that its place in a dataset does not matter."""
    return np.random.default_rng(zlib.crc32(np.ascontiguousarray(image)))


@dataclass(frozen=True)
class Family:
    """One kind of degradation. levels: its parameter, from mild to strong, in `unit`."""

    function: Callable[[np.ndarray, float], np.ndarray] | None
    levels: tuple[float, ...]
    unit: str


FAMILIES = {
    "jpeg": Family(jpeg, (90, 70, 50, 30, 20), "quality"),
    "resize": Family(resize, (224, 112, 64), "px, shorter side"),
    "saturation": Family(saturation, (0.4, 0.3, 0.2, 0.1, 0.0), "of the chroma"),
    "contrast": Family(brightness, (0.85, 0.725, 0.6, 0.475, 0.35), "of the intensity"),
    "blocks": Family(blocks, (16, 32, 48, 64, 80), "grey blocks"),
    "noise": Family(colour_noise, (0.001, 0.002, 0.005, 0.01, 0.05), "variance"),
    "blur": Family(kernel_blur, (7, 9, 13, 17, 21), "px kernel"),
    "pixelation": Family(pixelation, (2, 3, 4, 5, 6), "times smaller"),
    H264: Family(None, (30, 32, 35, 38, 40), "crf"),
}


@dataclass(frozen=True)
class Condition:
    """A family at one of its levels. level: 1 is the mildest."""

    family: str
    level: int

    @property
    def value(self) -> float:
        return FAMILIES[self.family].levels[self.level - 1]

    @property
    def clips_only(self) -> bool:
        return FAMILIES[self.family].function is None

    def __str__(self) -> str:
        return f"{self.family}:{self.level}"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self.clips_only:
            raise ValueError(f"{self.family} compresses clips, not pictures")
        return FAMILIES[self.family].function(image, self.value)

    @classmethod
    def of(cls, text: str) -> Condition:
        """From "family:level"."""
        family, _, level = text.partition(":")
        if family in FAMILIES and level in map(str, range(1, len(FAMILIES[family].levels) + 1)):
            return cls(family, int(level))
        known = ", ".join(f"{name}:1 to {len(family.levels)}" for name, family in FAMILIES.items())
        raise ValueError(f"unknown degradation {text!r}; give one of {known}")


def conditions(wanted: tuple[str, ...]) -> list[Condition]:
    """Every level of families (jpeg), and single levels (jpeg:5)."""
    found = []
    for name in wanted:
        if ":" in name:
            found.append(Condition.of(name))
        elif name in FAMILIES:
            found += [Condition(name, level + 1) for level in range(len(FAMILIES[name].levels))]
        else:
            known = ", ".join(FAMILIES)
            raise ValueError(f"unknown degradation {name}; the families are {known}")
    return list(dict.fromkeys(found))
