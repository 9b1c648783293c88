"""Frozen experts and the classifiers over their consistency features.

A new expert is one file and one row of `EXPERTS` (and one row of models/weights.py, where its
weights are downloaded).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

# name -> module and class; imported when used, since some backends take half a minute.
EXPERTS: dict[str, tuple[str, str]] = {
    "lite": ("models.region_net", "RegionExpert"),
    "fairface": ("models.fairface", "FairFace"),
    "arcface": ("models.arcface", "ArcFace"),
    "facenet": ("models.facenet", "FaceNet"),
    "clip": ("models.clip_image", "ClipImage"),
    "pyfeat": ("models.pyfeat", "PyFeat"),
    "traces": ("models.trace_net", "TraceExpert"),
    "person": ("models.person_net", "PersonExpert"),
    "head": ("models.head_clip", "HeadClip"),
    "gend": ("models.gend", "GenD"),
    "gend_pe": ("models.gend", "GenDPE"),
    "gend_dinov3": ("models.gend", "GenDDINOv3"),
    "community_forensics": ("models.community_forensics", "CommunityForensics"),
    "community_forensics_224": ("models.community_forensics", "CommunityForensics224"),
}
PROFILES: dict[str, tuple[str, ...]] = {
    "lite": ("lite", "traces"),
    "full": ("fairface", "arcface", "facenet", "clip", "pyfeat", "traces"),
    "standard": ("lite", "clip", "traces"),
}
# Experts whose weights come with the project.
_FOLDER = Path(__file__).parent.parent / "checkpoints"
BUNDLED: dict[str, Path] = {
    "lite": _FOLDER / "region_net.safetensors",
    "traces": _FOLDER / "trace_net.safetensors",
    "person": _FOLDER / "person_net.safetensors",
}
HEAD_MAPS = _FOLDER / "head_maps.safetensors"  # beside `head`
BLOCK_HEAD = _FOLDER / "block_head.safetensors"  # beside `clip` with the tower ViT-B/16
CLIP_MODEL = "ViT-B/32"  # the default (models/clip_image.py), but for these profiles
CLIP_MODELS = {"standard": "ViT-B/16"}


def expert_class(name: str) -> type:
    """The class of an expert. Raises: ValueError that lists the valid names."""
    if name not in EXPERTS:
        raise ValueError(f"unknown expert {name!r}; the experts are {', '.join(EXPERTS)}")
    module, cls = EXPERTS[name]
    return getattr(import_module(module), cls)
