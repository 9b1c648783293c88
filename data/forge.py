"""Self-made forgeries: three ways to fake a face, for demonstrations, tests and training without anybody's fakes.

    face_swap     another person's face, brows to chin
    region_swap   another person's eyes, nose, mouth or jaw, the rest untouched
    self_blend    the same face blended onto itself after a slight change (Shiohara & Yamasaki, CVPR 2022): no second
                  person, only the traces that any blending leaves

Each takes photographs as uint8 RGB (H, W, 3) with five landmarks (5, 2) in pixels as data/faces.py finds them (left eye,
right eye, nose tip, left and right mouth corner, as the viewer sees them). Each returns the forgery, of the first
photograph's size, and a mask (H, W) uint8: how much of a pixel is forged, 255 all of it. The same seed gives the same
forgery. Raises: ValueError for pictures or landmarks of another kind, or a face too small to forge.
"""

from __future__ import annotations

import cv2
import numpy as np

from data import degrade
from data.faces import TEMPLATE

# Five points do not trace a face. So outlines are drawn once, on the 112 px template of data/faces.py (x to the right, y
# down, the middle at x = 56), and carried to each face by the map between its landmarks and the template's.
_RIGHT_HALVES = {  # from the top of the middle line to its bottom, on the viewer's right
    "face": [
        (56, 36),
        (77, 35),
        (86, 40),
        (90, 48),
        (90, 62),
        (87, 78),
        (82, 93),
        (74, 104),
        (56, 112),
    ],
    "eyes": [
        (56, 38),
        (66, 36),
        (77, 35),
        (86, 40),
        (90, 48),
        (88, 58),
        (80, 63),
        (68, 62),
        (56, 60),
    ],
    "nose": [(56, 50), (62, 52), (65, 64), (71, 71), (70, 78), (63, 81), (56, 82)],
    "mouth": [(56, 81), (66, 81), (76, 85), (81, 92), (77, 100), (67, 106), (56, 107)],
    "jaw": [(56, 79), (74, 79), (86, 81), (84, 90), (80, 97), (74, 104), (65, 111), (56, 113)],
}
OUTLINES = {
    name: np.float64([*half, *((112 - x, y) for x, y in half[-2:0:-1])])
    for name, half in _RIGHT_HALVES.items()
}
# The landmarks that must fall onto each other for the part to sit right.
_ANCHORS = {
    "face": slice(0, 5),
    "eyes": slice(0, 2),
    "nose": slice(2, 3),
    "mouth": slice(3, 5),
    "jaw": slice(3, 5),
}
_SMALLEST = 12  # px between the eyes


def face_swap(
    target: np.ndarray,
    source: np.ndarray,
    target_landmarks: np.ndarray,
    source_landmarks: np.ndarray,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """`target` with the face of `source`: warped, recoloured to the target's skin, blended seamlessly."""
    return _transplant("face", target, source, target_landmarks, source_landmarks, seed)


def region_swap(
    target: np.ndarray,
    source: np.ndarray,
    target_landmarks: np.ndarray,
    source_landmarks: np.ndarray,
    region: str = "mouth",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """`target` with the `eyes`, `nose`, `mouth` or `jaw` of `source`."""
    if region not in OUTLINES or region == "face":
        parts = ", ".join(name for name in OUTLINES if name != "face")
        raise ValueError(f"cannot swap {region!r} alone; the regions are {parts}")
    return _transplant(region, target, source, target_landmarks, source_landmarks, seed)


def self_blend(
    image: np.ndarray, landmarks: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`image` blended with a copy of itself whose colours, sharpness and place differ slightly.

    The mask holds the share (0-255) of the copy. Ranges follow the authors' released code.
    """
    landmarks = _checked(image, landmarks)
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    changed = _slightly_changed(image, rng)
    inside, outside = (changed, image) if rng.random() < 0.5 else (image, changed)
    shape = outline("face", landmarks, rng.uniform(0.94, 1.06, 2))
    mask = filled(shape, height, width).astype(np.float32)
    face_px = np.ptp(shape, axis=0).mean()
    mask = softened(mask, face_px, rng, bend=0.06, edge=(0.015, 0.05)) * rng.choice(
        [0.5, 0.75, 1, 1, 1]
    )
    # The copy, and its mask with it, is moved by up to 3% of the face and scaled by up to 5%.
    centre = landmarks.mean(0)
    scale = rng.uniform(0.95, 1.05)
    shift = rng.uniform(-1, 1, 2) * (0.03, 0.015) * face_px
    move = np.column_stack([np.eye(2) * scale, centre + shift - scale * centre])
    inside = cv2.warpAffine(
        inside, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    mask = cv2.warpAffine(mask, move, (width, height))
    blended = inside * (mask[..., None] / 255) + outside * (1 - mask[..., None] / 255)
    return np.rint(blended).astype(np.uint8), np.rint(mask).astype(np.uint8)


def softened(
    mask: np.ndarray,
    face_px: float,
    rng: np.random.Generator,
    bend: float,
    edge: tuple[float, float],
) -> np.ndarray:
    """A mask (H, W) float32 deformed elastically, by up to `bend`, and blurred, by sigma in the range `edge`; both in faces."""
    height, width = mask.shape
    coarse = (max(2, round(height / face_px * 5)), max(2, round(width / face_px * 5)))
    x, y = (
        cv2.resize(
            rng.uniform(-bend, bend, coarse) * face_px,
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in "xy"
    )
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    mask = cv2.remap(
        mask, (columns + x).astype(np.float32), (rows + y).astype(np.float32), cv2.INTER_LINEAR
    )
    return cv2.GaussianBlur(mask, (0, 0), face_px * rng.uniform(*edge))


def colour_transfer(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give `image` the mean and spread that `reference` has in each Lab channel inside the mask (Reinhard et al., 2001).

    image, reference: (H, W, 3) uint8 RGB; mask: (H, W) bool. The spread changes by a factor of 1.3 at most, so that a flat
    picture is not blown up into noise. Returns: (H, W, 3) uint8 RGB.
    """
    given, wanted = (
        cv2.cvtColor(np.float32(x) / 255, cv2.COLOR_RGB2LAB) for x in (image, reference)
    )
    spread = wanted[mask].std(0) / np.maximum(given[mask].std(0), 1e-3)
    lab = (given - given[mask].mean(0)) * np.clip(spread, 1 / 1.3, 1.3) + wanted[mask].mean(0)
    return np.rint(
        np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255
    ).astype(np.uint8)


def _transplant(
    region: str, target: np.ndarray, source: np.ndarray, to: np.ndarray, of: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Warp one region of `source` onto `target`, match its colours, blend its gradients (Perez et al., SIGGRAPH 2003)."""
    to, of = _checked(target, to), _checked(source, of)
    source, of = similar_pose(source, of, to)
    rng = np.random.default_rng(seed)
    height, width = target.shape[:2]
    warp = fit(of, to)
    anchors = _ANCHORS[region]
    warp[:, 2] += (to[anchors] - _apply(warp, of[anchors])).mean(0)
    stretch = rng.uniform(0.97, 1.03, 2)
    # Only where both have face: neither hair beside a turned head nor what lies outside the source's photograph.
    seen = cv2.warpAffine(
        np.full(source.shape[:2], 255, np.uint8), warp, (width, height), flags=cv2.INTER_NEAREST
    )
    mask = seen & filled(outline(region, to, stretch), height, width)
    mask &= filled(_apply(warp, outline(region, of, stretch)), height, width)
    if not mask.any():
        raise ValueError(f"the {region} of the face lies outside the photograph")
    donor = colour_transfer(_warped(source, warp, width, height), target, mask > 0)
    # Blending reads a pixel around the mask, which may touch the border of the photograph.
    padded = [cv2.copyMakeBorder(x, 4, 4, 4, 4, cv2.BORDER_REPLICATE) for x in (donor, target)]
    whole = cv2.copyMakeBorder(mask, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
    x, y, w, h = cv2.boundingRect(whole)
    cloned = cv2.seamlessClone(*padded, whole, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)[
        4:-4, 4:-4
    ]
    # Where the two faces differ in shade along the border only (hair, shadows), the clone as a whole comes out too light
    # or too dark: away from the border it takes the target's tone again.
    toned = colour_transfer(cloned, target, mask > 0)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)[..., None]
    inward = np.minimum(1, depth / (0.6 * max(depth.max(), 1)))
    forged = np.rint(cloned + inward * (toned.astype(np.float32) - cloned)).astype(np.uint8)
    return np.where(mask[..., None] > 0, forged, target), mask


def similar_pose(
    image: np.ndarray, landmarks: np.ndarray, to: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, or its mirror image where that one's landmarks lie nearer to `to` once fitted (a head turned alike)."""
    mirrored = landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (image.shape[1] - 1, 0)
    misfit = [
        np.abs(_apply(fit(points, to), points) - to).sum() for points in (landmarks, mirrored)
    ]
    return (
        (image, landmarks)
        if misfit[0] <= misfit[1]
        else (np.ascontiguousarray(image[:, ::-1]), mirrored)
    )


def _slightly_changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifted colours and contrast, then either a loss of detail or a sharpening."""
    gain, shift = rng.uniform(0.9, 1.1), rng.uniform(-12, 12, 3)
    changed = np.clip((image.astype(np.float32) - 128) * gain + 128 + shift, 0, 255).astype(
        np.uint8
    )
    if rng.random() < 0.5:
        return degrade.downscale(changed, rng.choice([2, 3]))
    return cv2.addWeighted(changed, 1.6, degrade.blur(changed, 1.5), -0.6, 0)


def outline(region: str, landmarks: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """A region's outline on a photograph, (P, 2) pixels.

    stretch: (2,) factors of its width and height, drawn at random so that no two forgeries share a border.
    """
    points = OUTLINES[region]
    centre = points.mean(0)
    points = (points - centre) * stretch + centre
    # Eyes and mouth carry the template; where the nose then falls tells how far the head is turned, and the side that it
    # is turned to is foreshortened.
    flat = [0, 1, 3, 4]
    onto = fit(TEMPLATE[flat], landmarks[flat])
    nose = _apply(fit(landmarks[flat], TEMPLATE[flat]), landmarks[2:3])[0, 0]
    side = 1 if nose > 56 else -1
    beyond = side * (points[:, 0] - 56)
    width = np.clip((side * (TEMPLATE[1 if side > 0 else 0, 0] - nose)) / 17.6, 0.4, 1)
    points[:, 0] = np.where(
        beyond > 0, 56 + side * (side * (nose - 56) + beyond * width), points[:, 0]
    )
    return _apply(onto, points)


def fit(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The affine map (2, 3) that carries the points `of` onto `to`, in the least-squares sense."""
    return np.linalg.lstsq(np.column_stack([of, np.ones(len(of))]), to, rcond=None)[0].T.copy()


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def filled(shape: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) uint8: 255 inside the convex hull of an outline."""
    hull = cv2.convexHull(np.rint(shape).astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((height, width), np.uint8), hull, 255)


def _warped(image: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """Warp, after a blur where the map shrinks the picture, so that nothing aliases."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 0.8:
        image = degrade.blur(image, 0.4 / scale)
    return cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def _checked(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The landmarks as (5, 2) float64. Raises: ValueError unless they are a face on an RGB photograph."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
    ):
        raise ValueError(
            f"expected a uint8 RGB image (H, W, 3), got {getattr(image, 'dtype', type(image))} {np.shape(image)}"
        )
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise ValueError(f"expected five finite landmarks (5, 2), got {landmarks.shape}")
    apart = np.hypot(*(landmarks[1] - landmarks[0]))
    if apart < _SMALLEST:
        raise ValueError(f"the eyes are {apart:.0f} px apart; a forgery needs at least {_SMALLEST}")
    return landmarks
