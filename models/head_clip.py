"""CLIP looks at the head around a face, and at the inner face, for comparison with photographs.

The tower ViT-B/16 is shown the head without the inner face (hair, ears, jaw, neck), and the inner face
alone; a linear map, fitted by training/head_clip.py on photographs of people, turns the patches of its
last block into an embedding that tells people apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from features.regions import REGIONS, Crop, region_masks
from models import HEAD_MAPS
from models.base import Expert, Output
from models.clip_image import ALIASES
from models.clip_onnx import read_onnx
from models.tensors import WeightsError, load_strictly, read_tensors

TOWER = ALIASES["ViT-B/16"]
PX, PATCH = 224, 16  # of the tower's input
WHOLE = Crop.around(0.5, 0.45, 1.9, 1.9, 448)
# Region -> the square part of `WHOLE` that the tower sees, px: x, y, side.
VIEWS = {"outer": (0, 0, 448), "inner": (141, 183, 166)}
ELLIPSE = (0.5, 0.45, 0.68, 0.85)  # around hair, ears and neck: as in models/person_net.py


def masks() -> dict[str, np.ndarray]:
    """Region -> (448, 448) bool: what may be seen of `WHOLE`."""
    x, y, width, height = ELLIPSE
    at = (np.arange(WHOLE.px) + 0.5) / WHOLE.px
    columns, rows = WHOLE.x0 + at * WHOLE.width, WHOLE.y0 + at * WHOLE.height
    head = ((columns - x) / width) ** 2 + ((rows[:, None] - y) / height) ** 2 <= 1
    inner, outer = region_masks(WHOLE, ("inner", "outer"))
    return {"outer": head & outer, "inner": inner}


class HeadClip(Expert):
    """weights: of the tower; maps: what `save_maps` wrote (None: the bundled file)."""

    name = "head"
    crop = WHOLE
    faces_on_cpu = 8

    def __init__(self, weights: Path, bf16: bool = False, maps: Path | None = None) -> None:
        from timm import create_model

        maps = maps or HEAD_MAPS
        net = create_model(TOWER, pretrained=False, num_classes=0)
        tensors = read_onnx(weights) if weights.suffix == ".onnx" else read_tensors(weights)
        tensors = {name: x for name, x in tensors.items() if not name.startswith("head.")}
        load_strictly(net, tensors, weights)
        super().__init__(net, weights, bf16)
        self.beside, self.maps = (maps,), load_maps(maps)
        (size,) = {linear.out_features for linear in self.maps.values()}
        self.outputs = {"likeness": Output("person", size)}
        config = net.pretrained_cfg
        for name in ("mean", "std"):
            value = torch.tensor(config[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        for region, mask in masks().items():
            self.register_buffer(f"mask_{region}", torch.from_numpy(mask), persistent=False)

    def tokens(self, faces: torch.Tensor, region: str) -> torch.Tensor:
        """(B, 768) float32: the mean of the patches after the last block that show a region.

        faces: (B, 4, 448, 448) uint8 RGBA. A patch counts by its share of the region and of the photograph.
        """
        x, y, side = VIEWS[region]
        kept = ((faces[:, 3:] > 127) & getattr(self, f"mask_{region}")).float()
        images = (faces[:, :3].float() / 255 - self.mean) / self.std * kept
        both = torch.cat([images, kept], dim=1)[:, :, y : y + side, x : x + side]
        both = F.interpolate(both, (PX, PX), mode="bilinear", antialias=True)
        share = F.avg_pool2d(both[:, 3:], PATCH).flatten(1) + 1e-6  # (B, patches)
        share = share / share.sum(1, keepdim=True)
        images = both[:, :3].contiguous(memory_format=torch.channels_last)
        with self.inference(faces.device):
            (last,) = self.net.forward_intermediates(
                images, indices=1, output_fmt="NLC", intermediates_only=True
            )
        return (share[:, None] @ last.float())[:, 0]

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        size = self.outputs["likeness"].size
        found = torch.zeros(len(faces), len(REGIONS), size, device=faces.device)
        with torch.inference_mode():
            for region, linear in self.maps.items():
                seen = F.normalize(self.tokens(faces, region), dim=-1)
                found[:, REGIONS.index(region)] = F.normalize(linear(seen), dim=-1)
        return {"likeness": found}


def random_maps(path: Path) -> Path:
    """Maps that were never fitted, to read patches with."""
    tensors = {}
    for region in VIEWS:
        tensors |= {f"{region}.weight": torch.eye(8, 768), f"{region}.bias": torch.zeros(8)}
    save_file(tensors, path)
    return path


def load_maps(path: Path) -> nn.ModuleDict:
    """Region -> its map. Raises: WeightsError, FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; make it with training/head_clip.py")
    try:
        tensors, maps = read_tensors(path), nn.ModuleDict()
        for region in VIEWS:
            weight, bias = (tensors[f"{region}.{name}"].float() for name in ("weight", "bias"))
            maps[region] = nn.Linear(weight.shape[1], weight.shape[0])
            maps[region].load_state_dict({"weight": weight, "bias": bias})
    except (KeyError, RuntimeError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{path}: not written by training/head_clip.py ({error})") from error
    return maps
