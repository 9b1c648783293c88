"""The bundled trace network: was each region of a face made together with the rest of it, or put there?

An EfficientNet-Lite0 (Tan & Le, ICML 2019) with a small feature pyramid (Lin et al., CVPR 2017) looks at the whole face in
colour, 160 px, unmasked: what betrays a blended face (its border, another sharpness, noise or resampling than its
surroundings) is local, and removing pixels would add borders of its own. It is trained by scripts/train_trace_net.py on
real faces and forgeries that are made of them on the fly; it never sees anybody's deepfakes. It answers

    source     where a region's pixels come from, as an embedding. Regions of one origin agree, of two do not, as in pairwise
               self-consistency learning (Zhao et al., ICCV 2021)
    altered    evidence that something in the region was put there, in logits; for the whole face: that it is forged

These are traces of making, not meaning: a family of its own, reported with and without.
"""

from __future__ import annotations

from pathlib import Path

import torch
from timm import create_model
from torch import nn
from torch.nn import functional as F

from features.regions import REGIONS, Crop, region_masks
from models import BUNDLED
from models.base import Expert, Output
from models.tensors import load_strictly, read_tensors

CROP = Crop.of_box(1.25, 160)
GRID = 20  # cells a side, on which regions are pooled
SOURCE = 32  # size of an embedding
WIDTH = 96  # channels of the pyramid
# Where each region lies in the mirror image.
MIRRORED = [
    REGIONS.index({"left": "right", "right": "left"}.get(region, region)) for region in REGIONS
]
STAGES = {
    2: 40,
    4: 112,
    6: 320,
}  # of the trunk, at 1/8, 1/16 and 1/32 of the side: which block, how many channels


class TraceNet(nn.Module):
    """The network itself."""

    def __init__(self) -> None:
        super().__init__()
        trunk = create_model("tf_efficientnet_lite0", pretrained=False)
        self.stem = nn.Sequential(trunk.conv_stem, trunk.bn1)  # timm's bn1 holds the activation
        self.blocks = trunk.blocks
        self.pyramid = nn.ModuleDict(
            {str(stage): nn.Conv2d(channels, WIDTH, 1) for stage, channels in STAGES.items()}
        )
        self.mix = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
            nn.Conv2d(WIDTH, 2 * WIDTH, 1),
            nn.ReLU(),
        )
        self.source = nn.Conv2d(2 * WIDTH, SOURCE, 1)
        self.cell = nn.Conv2d(2 * WIDTH, 1, 1)
        self.part = nn.Linear(2 * WIDTH, len(REGIONS))
        self.whole = nn.Sequential(nn.Conv2d(STAGES[6], 512, 1), nn.ReLU())
        self.verdict = nn.Linear(512, 1)
        self.drop = nn.Dropout(0.2)
        self.register_buffer("shares", region_shares(), persistent=False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """images: (N, 3, 160, 160) float, see `as_seen`.

        Returns, float32: `whole` (N,) logits; `parts` (N, R) logits; `cells` (N, 20, 20) logits: how much of a cell was put
        there; `cell_source` (N, 32, 20, 20) and `source` (N, R, 32), unit vectors.
        """
        x, levels = self.stem(images), {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in STAGES:
                levels[index] = self.pyramid[str(index)](x)
        size = levels[2].shape[-2:]
        merged = sum(F.interpolate(level, size=size, mode="bilinear") for level in levels.values())
        cells = self.mix(torch.relu(merged))
        source = F.normalize(self.source(cells).float(), dim=1)
        pooled = torch.einsum("nchw,rhw->nrc", cells.float(), self.shares)
        said = {
            "whole": self.verdict(self.drop(self.whole(x).float().mean((2, 3))))[:, 0],
            "parts": torch.einsum("nrc,rc->nr", pooled, self.part.weight) + self.part.bias,
            "cells": self.cell(cells).float()[:, 0],
            "cell_source": source,
            "source": F.normalize(
                torch.einsum("nchw,rhw->nrc", source, self.shares).float(), dim=-1
            ),
        }
        return {name: value.float() for name, value in said.items()}


def region_shares() -> torch.Tensor:
    """(R, 20, 20) float32: how much of a region lies in each cell of the grid; each region sums to 1."""
    masks = torch.from_numpy(region_masks(CROP)).float()
    shares = F.interpolate(masks[None], size=(GRID, GRID), mode="area")[0]
    return shares / shares.sum((1, 2), keepdim=True)


def as_seen(faces: torch.Tensor) -> torch.Tensor:
    """faces: (N, 3, 160, 160) uint8 RGB. Returns: float32 in [-1, 1], channels last."""
    return ((faces.float() - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


class TraceExpert(Expert):
    """The frozen network as an expert: what it says of a face and of its mirror image, on average.

    weights: a file that scripts/train_trace_net.py wrote. bf16: compute in bfloat16.
    """

    name = "traces"
    crop = CROP
    outputs = {
        "source": Output("embedding", SOURCE),
        "altered": Output("forgery_logit", 1, ("logit",)),
    }
    faces_on_cpu = 8

    def __init__(self, weights: Path = BUNDLED["traces"], bf16: bool = False) -> None:
        super().__init__()
        self.net = load_trace_net(weights).to(memory_format=torch.channels_last)
        self.weights = Path(weights)
        self.bf16 = bf16

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        colours = faces[:, :3] * (faces[:, 3:] > 127)
        with (
            torch.inference_mode(),
            torch.autocast(faces.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            said, mirrored = (self.net(as_seen(seen)) for seen in (colours, colours.flip(-1)))
        source = F.normalize(said["source"] + mirrored["source"][:, MIRRORED], dim=-1)
        altered = (regional(said) + regional(mirrored)[:, MIRRORED]) / 2
        return {"source": source, "altered": altered[..., None]}


def regional(said: dict[str, torch.Tensor]) -> torch.Tensor:
    """(N, R) logits of altered regions: of the whole face what is said of it as such. `full` is the first region."""
    return torch.cat([said["whole"][:, None], said["parts"][:, 1:]], dim=1)


def load_trace_net(path: Path) -> TraceNet:
    """The network in `path`, float32, on the CPU.

    Raises: FileNotFoundError; ValueError where the file is not one of models.tensors.write_half's of this network.
    """
    net, path = TraceNet(), Path(path)
    load_strictly(net, read_tensors(path), path)
    return net
