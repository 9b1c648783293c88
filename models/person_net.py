"""The bundled network for comparing a face with photographs of a person, region by region.

It has the architecture of `RegionNet` and one output, an identity. The parts of the face are seen as by
the region network; `outer` is seen in a wider crop, with hair, ears and neck, at a smaller scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from features.regions import ALIGNED, REGIONS, Crop, region_masks
from models import BUNDLED
from models.base import Output
from models.region_net import RegionExpert, masked_input

PX = 80  # side of the network's input
HEAD = Crop.around(0.5, 0.5, 1.6, 1.6, 128)  # its middle is the template at `PX`
_START = (HEAD.px - PX) // 2
MIDDLE = slice(_START, _START + PX)
# An ellipse around hair, ears and neck: centre, half width and half height, as `Crop`. What lies outside
# is mostly background, which two photographs of one event share.
ELLIPSE = (0.5, 0.45, 0.68, 0.82)


def head_mask() -> np.ndarray:
    """(128, 128) bool: where `outer` may look in `HEAD`."""
    x, y, width, height = ELLIPSE
    rows = HEAD.y0 + (np.arange(HEAD.px) + 0.5) / HEAD.px * HEAD.height
    columns = HEAD.x0 + (np.arange(HEAD.px) + 0.5) / HEAD.px * HEAD.width
    inside = ((columns - x) / width) ** 2 + ((rows[:, None] - y) / height) ** 2 <= 1
    return inside & region_masks(HEAD, ("outer",))[0]


def region_input(faces: torch.Tensor, region: str) -> torch.Tensor:
    """The network's input (N, 4, 80, 80), see `masked_input`. faces: (N, 4, 128, 128), `HEAD`."""
    if region == "outer":
        return masked_input(faces, torch.from_numpy(head_mask()).to(faces.device), PX)
    mask = torch.from_numpy(region_masks(ALIGNED.at(PX), (region,))[0]).to(faces.device)
    return masked_input(faces[:, :, MIDDLE, MIDDLE], mask, PX)


class PersonExpert(RegionExpert):
    """The frozen network as an expert."""

    name = "person"
    crop = HEAD

    def __init__(self, weights: Path = BUNDLED["person"], bf16: bool = False) -> None:
        super().__init__(weights, bf16)
        sizes = {name: output.size for name, output in self.net.outputs.items()}
        self.outputs = {name: Output("person", size) for name, size in sizes.items()}

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        images = torch.stack([region_input(faces, region) for region in REGIONS], dim=1)
        images = images.flatten(0, 1).to(self.dtype).contiguous(memory_format=torch.channels_last)
        with self.inference(faces.device):
            found = self.net(images)
        return {name: x.float().view(len(faces), len(REGIONS), -1) for name, x in found.items()}
