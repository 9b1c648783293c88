"""The regions of an aligned face, and the crops of it that experts see.

Every raw array has the regions, in the order of `REGIONS`, as its second axis. Coordinates are
fractions of the ArcFace template, a square (x to the right, y down; eyes at y = .46, nose tip at
.64, mouth at .82); a crop is an upright rectangle in its plane, which may reach beyond the square.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Crop:
    """The part of an aligned face that an expert sees; resized to a square where it is none.

    x0, y0, width, height: fractions of the template; px: side in pixels.
    """

    x0: float
    y0: float
    width: float
    height: float
    px: int

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float, px: int) -> Crop:
        return cls(x - width / 2, y - height / 2, width, height, px)

    @classmethod
    def of_box(cls, times: float, px: int, square: bool = True) -> Crop:
        """The face box of MTCNN, enlarged; square: with its height as both sides.

        The box of frontal faces: between the medians over LFW, UTKFace, DFDC and OpenForensics,
        which differ from it by at most .03 in the centre, .02 in the width and .05 in the height.
        """
        width, height = (0.89 if square else 0.70), 0.89
        return cls.around(0.487, 0.585, times * width, times * height, px)

    def at(self, px: int) -> Crop:
        return replace(self, px=px)


ALIGNED = Crop(0.0, 0.0, 1.0, 1.0, 112)  # the template itself

# x0, y0, x1, y1. `left` and `right` are the viewer's; `inner` is what a face swap replaces.
BOXES: dict[str, tuple[float, float, float, float]] = {
    "full": (0.0, 0.0, 1.0, 1.0),
    "upper": (0.0, 0.0, 1.0, 0.5625),  # forehead, brows, eyes
    "middle": (0.0, 0.4375, 1.0, 0.75),  # lower lids, cheeks, nose
    "lower": (0.0, 0.625, 1.0, 1.0),  # below the nose tip: mouth, chin, jaw
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 1.0, 1.0),
    "inner": (0.1875, 0.3125, 0.8125, 0.9375),  # brows to below the lips, cheek to cheek
    "outer": (0.1875, 0.3125, 0.8125, 0.9375),  # everything outside this box
}
REGIONS: tuple[str, ...] = tuple(BOXES)
# The compared pairs: `full` with each part, and parts that share few or no pixels.
PAIRS: tuple[tuple[str, str], ...] = (
    *(("full", region) for region in REGIONS[1:]),
    ("upper", "lower"),
    ("upper", "middle"),
    ("middle", "lower"),
    ("left", "right"),
    ("inner", "outer"),
)


def region_masks(crop: Crop = ALIGNED, regions: tuple[str, ...] = REGIONS) -> np.ndarray:
    """(R, px, px) bool. Regions at the template's border continue to the crop's."""
    masks = np.zeros((len(regions), crop.px, crop.px), dtype=bool)
    for mask, region in zip(masks, regions, strict=True):
        if region not in BOXES:
            raise ValueError(f"unknown region {region!r}; the regions are {', '.join(REGIONS)}")
        x0, y0, x1, y1 = BOXES[region]
        rows = _span(y0, y1, crop.y0, crop.height, crop.px)
        mask[rows, _span(x0, x1, crop.x0, crop.width, crop.px)] = True
        if region == "outer":
            np.logical_not(mask, out=mask)
    return masks


def _span(low: float, high: float, start: float, length: float, px: int) -> slice:
    """The pixels between `low` and `high` of a side that begins at `start`."""
    first = 0 if low == 0 else round((low - start) / length * px)
    last = px if high == 1 else round((high - start) / length * px)
    return slice(max(first, 0), max(last, 0))
