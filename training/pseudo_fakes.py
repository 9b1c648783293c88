"""Pseudo-fakes: manipulated faces made from real ones alone. The same seed gives the same picture.

Of photographs: `face_swap`, `region_swap`, `self_blend`; of aligned crops, for training: `KINDS`.
Photographs are (H, W, 3) uint8 RGB, landmarks (5, 2) px (training/face_masks.py); with the picture
comes a mask (H, W) uint8: how much of a pixel was replaced, 255 for all.

A kind makes a pair of two versions of a face, `inside` and `outside`: the real picture is the
outside alone, the fake has the inside in a mask. So what surrounds a face tells nothing. Neither do
colour and sharpness of the picture as a whole, since the outside is as often the changed, the moved
or the softer version as the inside is. Only where the two versions meet are pairs different.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator, default_rng

from data import degrade
from features.regions import Crop
from training import augment
from training.aligned_crops import FACE_WIDTH, FACE_WINDOW, WIDE_CROP, AlignedCrops
from training.face_masks import (
    OUTLINES,
    deformed,
    fit,
    hull_mask,
    outline,
    similar_pose,
    soft_mask,
    transform,
    wide_mask,
)

# The landmarks that must coincide after warping.
ANCHORS = {"face": [0, 1, 2, 3, 4], "eyes": [0, 1], "nose": [2], "mouth": [3, 4], "jaw": [3, 4]}
MIN_EYES = 12  # px between the eyes
MIN_PIXELS = 150  # of an aligned crop that must change
DECODED = (64, 96, 128, 128)  # px of a face that is enlarged to `FACE_WINDOW`
ENLARGED = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
# The largest strength of `augment.detail_transfer` to the outside: with these the outside is as often
# sharper than the fake as softer. Blending itself softens, above all what was redrawn.
COPIED, REDRAWN = 2.5, 4.0
Blend = tuple[np.ndarray, np.ndarray]  # a picture, and the share of each pixel that was replaced
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # a real picture, a fake of it, and that share


def region_swap(
    target: np.ndarray,
    source: np.ndarray,
    target_landmarks: np.ndarray,
    source_landmarks: np.ndarray,
    region: str = "mouth",
    seed: int = 0,
) -> Blend:
    """`target` with a key of `OUTLINES` of `source`: warped, recoloured, blended by gradients.

    Poisson blending after Perez et al., SIGGRAPH 2003. Raises: ValueError for input of another
    kind, or a face that is too small.
    """
    if region not in OUTLINES:
        raise ValueError(f"cannot swap {region!r}; the regions are {', '.join(OUTLINES)}")
    to, points = _checked(target, target_landmarks), _checked(source, source_landmarks)
    source, points = similar_pose(source, points, to)
    shape, size = target.shape[:2], target.shape[1::-1]
    warp, anchors = fit(points, to), ANCHORS[region]
    warp[:, 2] += (to[anchors] - transform(warp, points[anchors])).mean(0)
    stretch = default_rng(seed).uniform(0.97, 1.03, 2)
    # Only where both have face: no hair beside a turned head, nothing outside the photograph.
    inside = np.full(source.shape[:2], 255, np.uint8)
    mask = cv2.warpAffine(inside, warp, size, flags=cv2.INTER_NEAREST)
    mask &= hull_mask(outline(region, to, stretch), shape)
    mask &= hull_mask(transform(warp, outline(region, points, stretch)), shape)
    if not mask.any():
        raise ValueError(f"the {region} of the face lies outside the photograph")
    scale = np.sqrt(abs(np.linalg.det(warp[:, :2])))
    if scale < 0.8:  # against aliasing
        source = degrade.blur(source, 0.4 / scale)
    donor = colour_transfer(_warp(source, warp, cv2.INTER_CUBIC, size), target, mask > 0)
    # seamlessClone reads a pixel around the mask, which may touch the border of the photograph.
    padded = [np.pad(x, ((4, 4), (4, 4), (0, 0)), "edge") for x in (donor, target)]
    x, y, w, h = cv2.boundingRect(mask)
    middle = (x + 4 + w // 2, y + 4 + h // 2)
    cloned = cv2.seamlessClone(*padded, np.pad(mask, 4), middle, cv2.NORMAL_CLONE)[4:-4, 4:-4]
    # Hair or shadows at the border change the clone's tone: further in, the target's is restored.
    toned = colour_transfer(cloned, target, mask > 0)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)[..., None]
    inward = np.minimum(1, depth / (0.6 * depth.max()))
    fake = np.rint(cloned + inward * (toned.astype(np.float32) - cloned)).astype(np.uint8)
    return np.where(mask[..., None] > 0, fake, target), mask


face_swap = partial(region_swap, region="face")  # brows to chin


def self_blend(image: np.ndarray, landmarks: np.ndarray, seed: int = 0) -> Blend:
    """`image` blended with a changed copy (Shiohara & Yamasaki, CVPR 2022), ranges as in theirs."""
    landmarks, rng = _checked(image, landmarks), default_rng(seed)
    changed = augment.shift_colours(image, rng)
    inside, outside = (changed, image) if rng.random() < 0.5 else (image, changed)
    shape = outline("face", landmarks, rng.uniform(0.94, 1.06, 2))
    face_px = np.ptp(shape, axis=0).mean()
    mask = hull_mask(shape, image.shape[:2]).astype(np.float32)
    mask = deformed(mask, face_px, rng, bend=0.06, edge=(0.015, 0.05))
    mask = mask * rng.choice([0.5, 0.75, 1, 1, 1])
    # The copy and its mask are shifted by up to 3% of the face and scaled by up to 5%.
    centre, scale = landmarks.mean(0), rng.uniform(0.95, 1.05)
    shift = rng.uniform(-1, 1, 2) * (0.03, 0.015) * face_px
    move = np.column_stack([np.eye(2) * scale, centre + shift - scale * centre])
    size = image.shape[1::-1]
    inside = cv2.warpAffine(inside, move, size, borderMode=cv2.BORDER_REFLECT)
    mask = cv2.warpAffine(mask, move, size)
    share = mask[..., None] / 255
    blended = np.rint(inside * share + outside * (1 - share)).astype(np.uint8)
    return blended, np.rint(mask).astype(np.uint8)


def colour_transfer(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Match mean and deviation of the Lab channels in a mask (H, W) bool (Reinhard et al., 2001)."""
    lab, wanted = (cv2.cvtColor(np.float32(x) / 255, cv2.COLOR_RGB2LAB) for x in (image, reference))
    ratio = wanted[mask].std(0) / np.maximum(lab[mask].std(0), 1e-3)
    ratio = np.clip(ratio, 1 / 1.3, 1.3)  # so that noise is not amplified
    lab = (lab - lab[mask].mean(0)) * ratio + wanted[mask].mean(0)
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _checked(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The landmarks as (5, 2) float64, if they are a face in an RGB photograph."""
    kind, shape = getattr(image, "dtype", type(image)), np.shape(image)
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {kind} {shape}")
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise ValueError(f"expected five finite landmarks (5, 2), got {landmarks.shape}")
    distance = np.hypot(*(landmarks[1] - landmarks[0]))
    if distance < MIN_EYES:
        raise ValueError(f"the eyes are {distance:.0f} px apart; {MIN_EYES} are needed")
    return landmarks


def crop_self_blend(crops: AlignedCrops, index: int, rng: Generator) -> Pair | None:
    image, landmarks = crops.images[index, ..., :3], crops.landmarks[index]
    versions = [image, augment.perturb(image, rng)]
    moved = rng.integers(2)
    versions[moved] = augment.displace(versions[moved], landmarks, FACE_WIDTH, rng)
    inside, outside = versions if rng.random() < 0.5 else versions[::-1]
    mask = soft_mask(landmarks, rng, WIDE_CROP.px, FACE_WIDTH)
    return _alpha_blend(inside, outside, mask * rng.choice([0.25, 0.5, 0.75, 1, 1, 1]), rng)


def crop_poisson_swap(crops: AlignedCrops, index: int, rng: Generator) -> Pair | None:
    chosen = [index, crops.donor(index, rng)]
    (image, source), points = crops.images[chosen, ..., :3], crops.landmarks[chosen]
    face = hull_mask(outline("face", points[0], np.ones(2)), image.shape[:2]) > 0
    outside = augment.detail_transfer(image, source, face, rng.uniform(0, 2))
    try:
        fake, mask = face_swap(outside, source, *points, seed=int(rng.integers(1 << 30)))
    except ValueError:
        return None
    return outside, fake, mask.astype(np.float32) / 255


def crop_alpha_swap(crops: AlignedCrops, index: int, rng: Generator) -> Pair | None:
    donor, landmarks = crops.donor(index, rng), crops.landmarks[index]
    image, points = similar_pose(crops.images[donor], crops.landmarks[donor], landmarks)
    warp = fit(points, landmarks)
    inside = _warp(image[..., :3], warp, cv2.INTER_CUBIC)
    valid = _warp(image[..., 3], warp, cv2.INTER_NEAREST)
    mask = soft_mask(landmarks, rng, WIDE_CROP.px, FACE_WIDTH)
    return _paste(crops, index, inside, valid, mask, rng)


def crop_reconstruction(crops: AlignedCrops, index: int, rng: Generator) -> Pair | None:
    chosen = crops.donor(index, rng) if rng.random() < 0.35 else index
    face = _enlarged(crops.reconstructed[chosen], rng)
    if rng.random() < 0.4:
        face = augment.sharpen(face, 1.5, rng.uniform(0.3, 1.5))
    inside, valid = _placed(crops, index, chosen, face)
    mask = soft_mask(crops.landmarks[index], rng, WIDE_CROP.px, FACE_WIDTH)
    return _paste(crops, index, inside, valid, mask, rng, strongest=REDRAWN)


def crop_upsampled_swap(crops: AlignedCrops, index: int, rng: Generator) -> Pair | None:
    chosen = crops.donor(index, rng) if rng.random() < 0.7 else index
    x, y, side = FACE_WINDOW
    if rng.random() < 0.5:
        face = crops.reconstructed[chosen]
    else:
        face = crops.images[chosen, y : y + side, x : x + side, :3]
        face = cv2.resize(face, (DECODED[-1],) * 2, interpolation=cv2.INTER_AREA)
    face = _enlarged(face, rng)
    if rng.random() < 0.6:  # large sigma: smooth skin and strong lines, as restored faces have
        face = augment.sharpen(face, rng.uniform(0.8, 2.5), rng.uniform(0.3, 2))
    inside, valid = _placed(crops, index, chosen, face)
    mask = wide_mask(crops.landmarks[index], rng, WIDE_CROP.px, FACE_WIDTH)
    return _paste(crops, index, inside, valid, mask, rng, toned=0.5, strongest=REDRAWN)


def _enlarged(face: np.ndarray, rng: Generator) -> np.ndarray:
    """A face (128, 128, 3) of fewer pixels, brought to the size of `FACE_WINDOW`."""
    px, side = int(rng.choice(DECODED)), FACE_WINDOW[2]
    face = cv2.resize(face, (px, px), interpolation=cv2.INTER_AREA)
    return cv2.resize(face, (side, side), interpolation=int(rng.choice(ENLARGED)))


def _placed(
    crops: AlignedCrops, index: int, chosen: int, face: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`FACE_WINDOW` of a chosen face, brought to another one, and where it is valid."""
    x, y, side = FACE_WINDOW
    inside, valid = crops.images[chosen, ..., :3].copy(), np.zeros((WIDE_CROP.px,) * 2, np.uint8)
    inside[y : y + side, x : x + side] = face
    valid[y + 3 : y + side - 3, x + 3 : x + side - 3] = 255
    if chosen == index:
        return inside, valid
    warp = fit(crops.landmarks[chosen], crops.landmarks[index])
    return _warp(inside, warp, cv2.INTER_LINEAR), _warp(valid, warp, cv2.INTER_NEAREST)


def _paste(
    crops: AlignedCrops,
    index: int,
    inside: np.ndarray,
    valid: np.ndarray,
    mask: np.ndarray,
    rng: Generator,
    toned: float = 0.8,
    strongest: float = COPIED,
) -> Pair | None:
    """Blend `inside` into a version of a face.

    valid: (224, 224) uint8, 255 where `inside` is a photograph. toned: how often its colours are
    matched.
    """
    valid = cv2.erode(valid, np.ones((3, 3))) & crops.images[index, ..., 3]
    edge = cv2.GaussianBlur(valid, (0, 0), 1.5) / np.float32(255)
    mask = mask * edge * rng.choice([0.75, 1, 1, 1])
    if (mask > 0.5).sum() < MIN_PIXELS:
        return None
    outside = crops.images[index, ..., :3]
    if rng.random() < toned:
        inside = colour_transfer(inside, outside, mask > 0.5)
    changed = rng.random()
    if changed < 0.25:
        inside = augment.perturb(inside, rng)
    elif changed < 0.5:
        outside = augment.perturb(outside, rng)
    return _alpha_blend(inside, outside, mask, rng, strongest)


def _alpha_blend(
    inside: np.ndarray,
    outside: np.ndarray,
    mask: np.ndarray,
    rng: Generator,
    strongest: float = COPIED,
) -> Pair | None:
    if mask.max() < 0.2 or (mask > 0.1).sum() < MIN_PIXELS:
        return None
    share = mask[..., None]
    mixed = inside * share + outside * (1 - share)
    core = mask > mask.max() / 2
    outside = augment.detail_transfer(outside, mixed, core, rng.uniform(0, strongest))
    mixed = inside * share + outside * (1 - share)
    return outside, np.rint(mixed).astype(np.uint8), mask.astype(np.float32)


def _warp(
    image: np.ndarray, warp: np.ndarray, flags: int, size: tuple[int, int] = (WIDE_CROP.px,) * 2
) -> np.ndarray:
    border = cv2.BORDER_REPLICATE if image.ndim == 3 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(np.ascontiguousarray(image), warp, size, flags=flags, borderMode=border)


# Name -> share in training, and a function that returns a real picture and a fake (224, 224, 3)
# uint8 and a mask (224, 224) float32 in [0, 1], or None where too little would change.
KINDS: dict[str, tuple[float, Callable[[AlignedCrops, int, Generator], Pair | None]]] = {
    "self_blend": (0.3, crop_self_blend),  # with more kinds of changes and masks
    # A similar person's face, alpha-blended (Li et al., Face X-ray, CVPR 2020), or by gradients.
    "alpha_swap": (0.15, crop_alpha_swap),
    "poisson_swap": (0.1, crop_poisson_swap),
    "reconstruction": (0.15, crop_reconstruction),  # this face, or a swapped one, by an autoencoder
    # A few pixels enlarged, often redrawn and sharpened, with a wide mask: inswapper and its kin.
    "upsampled_swap": (0.3, crop_upsampled_swap),
}
NEED_DECODED = ("reconstruction", "upsampled_swap")


@dataclass(frozen=True)
class PseudoFakes:
    """Pairs of a real face and a pseudo-fake. shares: of each kind; they need not sum to 1."""

    crops: AlignedCrops
    shares: Mapping[str, float] = field(default_factory=lambda: {k: v[0] for k, v in KINDS.items()})

    def __post_init__(self) -> None:
        unknown = ", ".join(sorted(set(self.shares) - set(KINDS)))
        if unknown or not sum(self.shares.values()) > 0:
            wrong = f"unknown kinds of pseudo-fake: {unknown or 'none given'}"
            raise ValueError(f"{wrong}; they are {', '.join(KINDS)}")
        needy = [kind for kind in NEED_DECODED if self.shares.get(kind)]
        if needy and self.crops.reconstructed is None:
            raise ValueError(f"{needy[0]} needs reconstructed faces: training/reconstruction.py")

    def make(self, index: int, rng: Generator) -> tuple[*Pair, str] | None:
        """A version of a face, a pseudo-fake of it, its mask and its kind, or None: see `KINDS`."""
        share = np.array(list(self.shares.values()), float)
        kind = list(self.shares)[rng.choice(len(share), p=share / share.sum())]
        pair = KINDS[kind][1](self.crops, index, rng)
        return pair and (*pair, kind)

    def pair(
        self, index: int, seed: int, crop: Crop, grid: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, str] | None:
        """A face and its pseudo-fake, through the same channel and the same window.

        crop: what to cut out, around the same middle. grid: cells a side.
        Returns: both pictures (px, px, 3) uint8, black outside the photograph; the replaced share
        of each cell (grid, grid) float32; the kind. Or None, see `KINDS`.
        """
        rng = default_rng(seed)
        made = self.make(index, rng)
        if made is None:
            return None
        *pair, mask, kind = made
        channel, view = int(rng.integers(1 << 30)), augment.random_window(WIDE_CROP, crop, rng)
        inside, size = self.crops.images[index, ..., 3:] > 0, (crop.px, crop.px)
        pair = [augment.transmit(np.ascontiguousarray(x), default_rng(channel)) for x in pair]
        pair = [x * inside for x in pair]  # black outside the photograph
        real, fake, mask = (cv2.warpAffine(x, view, size) for x in (*pair, mask))
        return real, fake, cv2.resize(mask, (grid, grid), interpolation=cv2.INTER_AREA), kind
