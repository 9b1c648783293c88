"""The official layouts of published datasets: one module and one row of `LAYOUTS` each.

A module has `fits(root)`, whether a folder looks like it, `read(root, index, compression)` -> its
clips, and `COMPRESSED = True` where the same videos may be there at several compression levels.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from data.layouts import (
    celebdf,
    deepfakebench,
    df40,
    dfd,
    dfdc,
    dfdc_preview,
    faceforensics,
    wilddeepfake,
)

LAYOUTS: dict[str, ModuleType] = {
    "faceforensics": faceforensics,
    "dfd": dfd,
    "celeb-df": celebdf,
    "dfdc": dfdc,
    "dfdc-preview": dfdc_preview,
    "wilddeepfake": wilddeepfake,
    "df40": df40,
    "deepfakebench": deepfakebench,
}


def compressed(name: str) -> bool:
    return getattr(LAYOUTS.get(name), "COMPRESSED", False)


def recognise(root: Path) -> str | None:
    """The name of the layout of `root`; None where it fits none."""
    fitting = [name for name, module in LAYOUTS.items() if module.fits(Path(root))]
    if len(fitting) > 1:
        raise ValueError(f"{root}: looks like {' and '.join(fitting)}; say which with --layout")
    return fitting[0] if fitting else None
