"""What a picture goes through on its way to us: JPEG, blur, noise, downscaling, light.

Each function takes and returns uint8 RGB (H, W, 3). `DEGRADATIONS` maps a name and a strength to a function; the same
table serves the training of the region network and robustness tests.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress. quality: 1 (worst) to 100."""
    ok, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not ok:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape} as JPEG")
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur. sigma: standard deviation in pixels."""
    return cv2.GaussianBlur(image, (0, 0), float(sigma))


def downscale(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink by `factor` (2 halves both sides) with area averaging and enlarge again, linearly."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return cv2.resize(
        cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_LINEAR
    )


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Additive Gaussian noise. sigma: standard deviation in grey levels (0-255). Without `rng`, seeded by 0."""
    rng = rng or np.random.default_rng(0)
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def brightness(image: np.ndarray, gain: float) -> np.ndarray:
    """Multiply all channels by `gain`, clipped to 255."""
    return cv2.convertScaleAbs(image, alpha=float(gain))


DEGRADATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "jpeg": jpeg,
    "blur": blur,
    "downscale": downscale,
    "noise": noise,
    "brightness": brightness,
}
