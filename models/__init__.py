"""Frozen experts and the classifiers that judge their disagreements.

`EXPERTS` says where each expert is, `PROFILES` which of them work together; models/ensemble.py builds and asks them. A new
expert is one file and one row.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

# name -> module and class. Imported when it is asked for: some backends take half a minute.
EXPERTS: dict[str, tuple[str, str]] = {
    "lite": ("models.region_net", "RegionExpert"),
    "fairface": ("models.fairface", "FairFace"),
    "arcface": ("models.arcface", "ArcFace"),
    "facenet": ("models.facenet", "FaceNet"),
    "clip": ("models.clip_image", "ClipImage"),
    "pyfeat": ("models.pyfeat", "PyFeat"),
    "traces": ("models.trace_net", "TraceExpert"),
}
PROFILES: dict[str, tuple[str, ...]] = {
    "lite": ("lite", "traces"),
    "full": ("fairface", "arcface", "facenet", "clip", "pyfeat", "traces"),
}
# Experts that come with the project; the weights of all others are downloaded (models/weights.py).
_HERE = Path(__file__).parent.parent / "checkpoints"
BUNDLED: dict[str, Path] = {
    "lite": _HERE / "region_net.safetensors",
    "traces": _HERE / "trace_net.safetensors",
}
CLIP_MODEL = "ViT-B/32"  # unless told otherwise; see models/clip_image.py


def expert_class(name: str) -> type:
    """The subclass of models.base.Expert called `name`. Raises: ValueError that lists the valid names."""
    if name not in EXPERTS:
        raise ValueError(f"unknown expert {name!r}; the experts are {', '.join(EXPERTS)}")
    module, cls = EXPERTS[name]
    return getattr(import_module(module), cls)
