"""The regions of an aligned face, and the crops of it that experts look at, defined once.

Every raw array of this project has the regions, in the order of `REGIONS`, as its second axis. Coordinates are
fractions of the ArcFace template, a square (x to the right, y down; eyes at y = .46, nose tip at .64, mouth at .82). A
face is turned and scaled to it first; a crop then is an upright rectangle in the same plane, which may reach beyond the
square. So one definition of the regions serves every expert, whatever it was trained on.

`left` and `right` are the viewer's. `inner` is the face core that a face swap replaces; `outer` is everything around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Crop:
    """What of an aligned face an expert sees. x0, y0, width, height: fractions of the template; px: side in pixels.

    A rectangle that is not square is squeezed into a square picture, as some experts saw faces in training.
    """

    x0: float
    y0: float
    width: float
    height: float
    px: int

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float, px: int) -> Crop:
        """The crop whose middle is x, y."""
        return cls(x - width / 2, y - height / 2, width, height, px)

    @classmethod
    def of_box(cls, times: float, px: int, square: bool = True) -> Crop:
        """A face's box, so many times as large; square: with its height as both sides.

        Where MTCNN's boxes lie on faces that look ahead: between the medians over LFW, UTKFace, DFDC and
        OpenForensics, which are within .03 of it in the middle, .02 in the width and .05 in the height.
        """
        width, height = (0.89 if square else 0.70), 0.89
        return cls.around(0.487, 0.585, times * width, times * height, px)

    def at(self, px: int) -> Crop:
        """The same part of the face at another resolution."""
        return replace(self, px=px)


ALIGNED = Crop(0.0, 0.0, 1.0, 1.0, 112)  # the template itself

# x0, y0, x1, y1 as fractions of the crop.
BOXES: dict[str, tuple[float, float, float, float]] = {
    "full": (0.0, 0.0, 1.0, 1.0),
    "upper": (0.0, 0.0, 1.0, 0.5625),  # forehead, brows, eyes
    "middle": (0.0, 0.4375, 1.0, 0.75),  # lower lids, cheeks, nose
    "lower": (0.0, 0.625, 1.0, 1.0),  # below the nose tip: mouth, chin, jaw
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 1.0, 1.0),
    "inner": (0.1875, 0.3125, 0.8125, 0.9375),  # brows to below the lips, cheek to cheek
    "outer": (0.1875, 0.3125, 0.8125, 0.9375),  # what lies outside this box
}
REGIONS: tuple[str, ...] = tuple(BOXES)
# The pairs of regions that are compared. `full` against each part is the seed's choice; the rest are parts that share
# few or no pixels, so that agreement between them says something.
PAIRS: tuple[tuple[str, str], ...] = (
    *(("full", region) for region in REGIONS[1:]),
    ("upper", "lower"),
    ("upper", "middle"),
    ("middle", "lower"),
    ("left", "right"),
    ("inner", "outer"),
)


def region_masks(crop: Crop = ALIGNED, regions: tuple[str, ...] = REGIONS) -> np.ndarray:
    """Which pixels of a crop belong to each region. Regions that reach the template's border reach on to the crop's.

    Returns: (R, px, px) bool, in the order of `regions`.
    Raises: ValueError for a name that is not in `REGIONS`.
    """
    masks = np.zeros((len(regions), crop.px, crop.px), dtype=bool)
    for mask, region in zip(masks, regions, strict=True):
        if region not in BOXES:
            raise ValueError(f"unknown region {region!r}; the regions are {', '.join(REGIONS)}")
        x0, y0, x1, y1 = BOXES[region]
        columns = _span(x0, x1, crop.x0, crop.width, crop.px)
        mask[_span(y0, y1, crop.y0, crop.height, crop.px), columns] = True
        if region == "outer":
            np.logical_not(mask, out=mask)
    return masks


def _span(low: float, high: float, start: float, length: float, px: int) -> slice:
    """The pixels of a crop's side, from `start` over `length`, that lie between `low` and `high`."""
    first = 0 if low == 0 else round((low - start) / length * px)
    last = px if high == 1 else round((high - start) / length * px)
    return slice(max(first, 0), max(last, 0))
