"""The regions of an aligned face, defined once.

Every raw array of this project has the regions, in the order of `REGIONS`, as its second axis. Coordinates are
fractions of the square aligned crop (x to the right, y down; the ArcFace five-point template at any resolution: eyes at
y = .46, nose tip at .64, mouth at .82), so one definition serves 112-px crops and larger chips.

`left` and `right` are the viewer's. `inner` is the face core that a face swap replaces; `outer` is everything around it.
"""

from __future__ import annotations

import numpy as np

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


def region_masks(size: int, regions: tuple[str, ...] = REGIONS) -> np.ndarray:
    """Which pixels belong to each region of a `size` x `size` aligned face.

    Returns: (R, size, size) bool, in the order of `regions`.
    Raises: ValueError for a name that is not in `REGIONS`.
    """
    masks = np.zeros((len(regions), size, size), dtype=bool)
    for mask, region in zip(masks, regions, strict=True):
        if region not in BOXES:
            raise ValueError(f"unknown region {region!r}; the regions are {', '.join(REGIONS)}")
        x0, y0, x1, y1 = (round(edge * size) for edge in BOXES[region])
        mask[y0:y1, x0:x1] = True
        if region == "outer":
            np.logical_not(mask, out=mask)
    return masks
