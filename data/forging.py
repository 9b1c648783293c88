"""Real faces and forgeries of them, made on the fly, to train a network that never sees anybody's deepfakes.

Every face is cut once to a canvas, which holds it on the template of data/faces.py with its surroundings. A forgery replaces
part of the canvas and is blended in softly:

    self_blend   the face itself, slightly changed (Shiohara & Yamasaki, CVPR 2022)
    swap         the face of somebody who looks alike in pose and colour (Li et al., Face X-ray, CVPR 2020), alpha-blended
    clone        the same, blended by gradients (data/forge.py)
    resynthesis  the face, or a swapped one, as an autoencoder draws it (models/resynthesis.py)

The real face and its forgery then go through the same window, relighting, blur, shrinking, noise and compression, so that
nothing but the forging tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from data import degrade, forge
from data.faces import SIZE, similarity
from features.regions import Crop

ALIGNED_PX = Crop.of_box(1.75, 224)
FACE = 90  # px, about the width of a face on a canvas
KINDS = {"self_blend": 0.4, "swap": 0.25, "clone": 0.1, "resynthesis": 0.25}
NEIGHBOURS = 60  # candidates of whom the one most alike is the donor


def on_crop(landmarks: np.ndarray, crop: Crop) -> np.ndarray:
    """Where landmarks of a picture fall on a crop of it. landmarks: (N, 5, 2) px of the picture. Returns: (N, 5, 2) px."""
    scale, shift = similarity(landmarks)
    points = (landmarks @ (1, 1j) - shift[:, None]) / scale[:, None]  # px of the template
    step = np.array([crop.width, crop.height]) * SIZE / crop.px
    start = np.array([crop.x0, crop.y0]) * SIZE - 0.5 + step / 2
    return (np.stack([points.real, points.imag], -1) - start) / step


@dataclass
class AlignedCrops:
    """N real faces.

    images: (N, 224, 224, 4) uint8 RGBA of `CANVAS`, alpha 0 outside the photograph. landmarks: (N, 5, 2) px of the canvas.
    sources: (N,) str, the dataset of each. redrawn: (N, S, S, 3) uint8, what an autoencoder made of `window`, or None.
    """

    images: np.ndarray
    landmarks: np.ndarray
    sources: np.ndarray
    redrawn: np.ndarray | None = None
    by_source: dict[str, np.ndarray] = field(init=False)
    looks: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.by_source = {
            name: np.flatnonzero(self.sources == name)
            for name in sorted(set(self.sources.tolist()))
        }
        # Pose, and the colour of the skin, in units in which people who look alike are near each other.
        skin = self.images[:, 80:150, 80:145, :3].reshape(len(self.images), -1, 3).mean(
            1
        ) / np.float32(255)
        lab = cv2.cvtColor(skin[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
        self.looks = np.column_stack([self.landmarks.reshape(len(lab), -1) / 2, 0.35 * lab]).astype(
            np.float32
        )

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, rng: np.random.Generator) -> int:
        """A face: half of the time of a dataset drawn first, so that small ones count."""
        if rng.random() < 0.5:
            pool = self.by_source[list(self.by_source)[rng.integers(len(self.by_source))]]
            return int(pool[rng.integers(len(pool))])
        return int(rng.integers(len(self)))

    def donor(self, index: int, rng: np.random.Generator) -> int:
        """Somebody else who looks alike, mostly of the same dataset."""
        pool = (
            self.by_source[str(self.sources[index])] if rng.random() < 0.7 else np.arange(len(self))
        )
        pool = pool[pool != index]
        if not len(pool):  # the only face of its dataset
            pool = np.delete(np.arange(len(self)), index)
        pool = pool[rng.integers(len(pool), size=NEIGHBOURS)]
        return int(pool[np.square(self.looks[pool] - self.looks[index]).sum(1).argmin()])


def window() -> tuple[int, int, int]:
    """x, y, side of the square of a canvas that an autoencoder redraws: the face with some room."""
    side = round(ALIGNED_PX.px / ALIGNED_PX.width) + 16
    x, y = (
        round(-start / ALIGNED_PX.width * ALIGNED_PX.px) - 8
        for start in (ALIGNED_PX.x0, ALIGNED_PX.y0)
    )
    return x, min(y + 8, ALIGNED_PX.px - side), side


def changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slightly other colours, contrast, sharpness, noise and compression: what sets a pasted face off its surroundings."""
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
        x = _sharpened(x, 1.2, rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        x = degrade.noise(x, rng.uniform(1, 6), rng)
    return degrade.jpeg(x, int(rng.integers(40, 95))) if rng.random() < 0.25 else x


def soft_mask(landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random outline on a canvas, deformed and with a soft edge: (224, 224) float32 in [0, 1]."""
    middle, kind = landmarks.mean(0), rng.random()
    if kind < 0.6:
        outline = forge.outline("face", landmarks, rng.uniform(0.88, 1.12, 2))
    elif kind < 0.75:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radii = np.array([rng.uniform(0.35, 0.6), rng.uniform(0.45, 0.73)]) * FACE
        outline = middle + rng.normal(0, 3, 2) + np.stack([np.cos(angle), np.sin(angle)], 1) * radii
    elif kind < 0.9:
        part = ("eyes", "nose", "mouth", "jaw")[rng.integers(4)]
        outline = forge.outline(part, landmarks, rng.uniform(0.9, 1.25, 2))
    else:
        half = np.array([rng.uniform(0.35, 0.58), rng.uniform(0.42, 0.67)]) * FACE
        outline = middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    mask = forge.filled(outline, ALIGNED_PX.px, ALIGNED_PX.px).astype(np.float32)
    mask = forge.softened(mask, FACE, rng, bend=0.08, edge=(0.008, 0.06))
    return mask / max(float(mask.max()), 1.0)


@dataclass(frozen=True)
class PseudoFakes:
    """Makes pairs of a real face and a forgery of it. kinds: how often each way is taken; they need not sum to 1."""

    faces: AlignedCrops
    kinds: Mapping[str, float] = field(default_factory=lambda: dict(KINDS))

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(KINDS)
        if unknown or not sum(self.kinds.values()) > 0:
            raise ValueError(
                f"unknown ways to forge: {', '.join(sorted(unknown)) or 'none given'}; they are {', '.join(KINDS)}"
            )
        if self.kinds.get("resynthesis") and self.faces.redrawn is None:
            raise ValueError("resynthesis needs redrawn faces: see models/resynthesis.py")

    def forgery(
        self, index: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, str] | None:
        """Returns: the forged canvas (224, 224, 3) uint8, how much of each pixel is forged (224, 224) float32, and the way
        it was made; None where nothing to speak of was changed (the donor's face lies outside its photograph, say)."""
        share = np.array(list(self.kinds.values()), float)
        kind = list(self.kinds)[rng.choice(len(share), p=share / share.sum())]
        image, landmarks = self.faces.images[index, ..., :3], self.faces.landmarks[index]
        if kind == "clone":
            donor = self.faces.donor(index, rng)
            other, points = self.faces.images[donor, ..., :3], self.faces.landmarks[donor]
            try:
                forged, mask = forge.face_swap(
                    image, other, landmarks, points, int(rng.integers(1 << 30))
                )
            except ValueError:
                return None
            return forged, mask.astype(np.float32) / 255, kind
        if kind == "self_blend":
            inside, outside = changed(image, rng), image
            if rng.random() < 0.5:
                inside, outside = outside, inside
            inside = _moved(inside, landmarks, rng)
            mask = soft_mask(landmarks, rng) * rng.choice([0.25, 0.5, 0.75, 1, 1, 1])
        else:
            outside = image
            inside, there = (self._swapped if kind == "swap" else self._reconstructed)(index, rng)
            there = cv2.erode(there, np.ones((3, 3))) & self.faces.images[index, ..., 3]
            mask = soft_mask(landmarks, rng) * (
                cv2.GaussianBlur(there, (0, 0), 1.5) / np.float32(255)
            )
            mask *= rng.choice([0.75, 1, 1, 1])
            if (mask > 0.5).sum() < 150:
                return None
            if rng.random() < 0.8:
                inside = forge.colour_transfer(inside, image, mask > 0.5)
            if rng.random() < 0.4:
                inside = changed(inside, rng)
        if mask.max() < 0.2 or (mask > 0.1).sum() < 150:
            return None
        mixed = inside * mask[..., None] + outside * (1 - mask[..., None])
        return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8), mask.astype(np.float32), kind

    def _swapped(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Somebody else's canvas laid over this face, and where (224, 224) uint8 it holds a photograph."""
        donor, landmarks = self.faces.donor(index, rng), self.faces.landmarks[index]
        image, points = forge.similar_pose(
            self.faces.images[donor], self.faces.landmarks[donor], landmarks
        )
        warp = forge.fit(points, landmarks)
        return _laid(image[..., :3], warp, cv2.INTER_CUBIC), _laid(
            image[..., 3], warp, cv2.INTER_NEAREST
        )

    def _reconstructed(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """This face, or sometimes another one laid over it, as the autoencoder draws it; and where it does."""
        which = self.faces.donor(index, rng) if rng.random() < 0.35 else index
        (x, y, side), drawn = window(), self.faces.redrawn[which]
        px = int(rng.choice([64, 96, 128, 128]))
        if px != len(drawn):
            drawn = cv2.resize(drawn, (px, px), interpolation=cv2.INTER_AREA)
        drawn = cv2.resize(
            drawn, (side, side), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
        )
        if rng.random() < 0.4:
            drawn = _sharpened(drawn, 1.5, rng.uniform(0.3, 1.5))
        image, there = (
            self.faces.images[index, ..., :3].copy(),
            np.zeros((ALIGNED_PX.px,) * 2, np.uint8),
        )
        image[y : y + side, x : x + side] = drawn
        there[y + 3 : y + side - 3, x + 3 : x + side - 3] = 255
        if which == index:
            return image, there
        warp = forge.fit(self.faces.landmarks[which], self.faces.landmarks[index])
        return _laid(image, warp, cv2.INTER_LINEAR), _laid(there, warp, cv2.INTER_NEAREST)

    def pair(
        self, index: int, seed: int, crop: Crop, grid: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, str] | None:
        """One face and its forgery as the network sees them. The same seed gives the same pair.

        crop: what to cut out of the canvases, around the same middle. grid: cells a side.
        Returns: both (px, px, 3) uint8, black outside the photograph; the share of each cell that is forged, (grid, grid)
        float32; the way it was made. Or None, see `forgery`.
        """
        rng = np.random.default_rng(seed)
        made = self.forgery(index, rng)
        if made is None:
            return None
        forged, mask, kind = made
        spoil, view, inside = (
            int(rng.integers(1 << 30)),
            _window(crop, rng),
            self.faces.images[index, ..., 3:] > 0,
        )
        seen = [
            cv2.warpAffine(
                _taken(image, np.random.default_rng(spoil)) * inside, view, (crop.px, crop.px)
            )
            for image in (np.ascontiguousarray(self.faces.images[index, ..., :3]), forged)
        ]
        share = cv2.resize(
            cv2.warpAffine(mask, view, (crop.px, crop.px)),
            (grid, grid),
            interpolation=cv2.INTER_AREA,
        )
        return seen[0], seen[1], share, kind


def _sharpened(image: np.ndarray, sigma: float, amount: float) -> np.ndarray:
    detail = image.astype(np.float32) - degrade.blur(image, sigma)
    return np.clip(image + detail * amount, 0, 255).astype(np.uint8)


def _moved(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifted by up to 3% of the face's width and 2% of its height, mostly also stretched by up to 5%."""
    middle = landmarks.mean(0)
    scale = rng.uniform(0.95, 1.05, 2) if rng.random() < 0.7 else np.ones(2)
    shift = rng.uniform(-1, 1, 2) * (0.03, 0.02) * FACE
    how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    warp = np.column_stack([np.diag(scale), middle + shift - scale * middle])
    return cv2.warpAffine(
        image, warp, (ALIGNED_PX.px,) * 2, flags=how, borderMode=cv2.BORDER_REFLECT
    )


def _laid(image: np.ndarray, warp: np.ndarray, how: int) -> np.ndarray:
    border = cv2.BORDER_REPLICATE if image.ndim == 3 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        np.ascontiguousarray(image), warp, (ALIGNED_PX.px,) * 2, flags=how, borderMode=border
    )


def _taken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As another camera and another channel would have delivered the whole picture; three in ten through a bad one."""
    bad = rng.random() < 0.3
    if rng.random() < 0.3:
        light = 128 + rng.uniform(-25, 25, 3) * 0.5 + rng.uniform(-25, 25)
        image = np.clip(
            (image.astype(np.float32) - 128) * rng.uniform(0.75, 1.25) + light, 0, 255
        ).astype(np.uint8)
    if rng.random() < (0.4 if bad else 0.25):
        image = degrade.blur(image, rng.uniform(0.3, 3 if bad else 1.3))
    height, width = image.shape[:2]
    if rng.random() < (0.5 if bad else 0.35):  # shrunk, and sent on like this, or enlarged first
        factor = rng.uniform(1.1, 4 if bad else 2.2)
        image = cv2.resize(
            image, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA
        )
        if rng.random() < 0.5:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < (0.4 if bad else 0.15):
        image = degrade.noise(image, rng.uniform(1, 20 if bad else 8), rng)
    if rng.random() < (0.8 if bad else 0.6):
        image = degrade.jpeg(image, int(rng.integers(20 if bad else 35, 98)))
    return (
        cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        if len(image) < height
        else image
    )


def _window(crop: Crop, rng: np.random.Generator) -> np.ndarray:
    """A canvas to a crop around the same middle, turned, zoomed, shifted and mirrored at random: (2, 3)."""
    zoom = rng.uniform(0.93, 1.07) * (ALIGNED_PX.width / ALIGNED_PX.px) / (crop.width / crop.px)
    angle = np.deg2rad(rng.uniform(-6, 6))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * zoom
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1, 1])
    middle = np.full(2, (ALIGNED_PX.px - 1) / 2)
    return np.column_stack([turn, (crop.px - 1) / 2 + rng.uniform(-4, 4, 2) - turn @ middle])
