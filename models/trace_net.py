"""The bundled trace network: does a region of a face come from the same picture as the rest?

An EfficientNet-Lite0 (Tan & Le, ICML 2019) with a small feature pyramid (Lin et al., CVPR 2017) on
the whole face, unmasked: traces of blending are local, and removing pixels would add borders.
`source` is an embedding of a region's origin, similar for regions of one picture (pairwise
self-consistency: Zhao et al., ICCV 2021), `altered` its forgery logit. Trained by
training/trace_net.py on real faces and on pseudo-fakes made of them, never on deepfakes.
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
from models.gpu_layers import cast
from models.tensors import load_strictly, read_tensors

CROP = Crop.of_box(1.25, 160)
GRID = 20  # cells per side, over which regions are pooled
SOURCE = 32  # size of the embedding
WIDTH = 96  # channels of the pyramid
SWAPPED = {"left": "right", "right": "left"}
MIRRORED = [REGIONS.index(SWAPPED.get(region, region)) for region in REGIONS]  # in the mirror image
STAGES = {2: 40, 4: 112, 6: 320}  # block -> channels, at 1/8, 1/16 and 1/32 of the side


class TraceNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        trunk = create_model("tf_efficientnet_lite0", pretrained=False)
        self.stem = nn.Sequential(trunk.conv_stem, trunk.bn1)  # timm's bn1 holds the activation
        self.blocks = trunk.blocks
        levels = {str(block): nn.Conv2d(channels, WIDTH, 1) for block, channels in STAGES.items()}
        self.pyramid = nn.ModuleDict(levels)
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

    def reduce(self, dtype: torch.dtype) -> None:
        """All convolutions in `dtype`; what follows them stays float32."""
        for part in (self.stem, self.blocks, self.pyramid, self.mix, self.source, self.cell):
            cast(part, dtype)
        cast(self.whole, dtype)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Args: images: (N, 3, 160, 160) float, see `as_seen`.

        Returns: float32 logits `whole` (N,), `parts` (N, R) and `cells` (N, 20, 20); unit vectors
        `cell_source` (N, 32, 20, 20) and `source` (N, R, 32).
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
        pool = "nchw,rhw->nrc"
        pooled = torch.einsum(pool, cells.float(), self.shares)
        outputs = {
            "whole": self.verdict(self.drop(self.whole(x).float().mean((2, 3))))[:, 0],
            "parts": torch.einsum("nrc,rc->nr", pooled, self.part.weight) + self.part.bias,
            "cells": self.cell(cells).float()[:, 0],
            "cell_source": source,
            "source": F.normalize(torch.einsum(pool, source, self.shares).float(), dim=-1),
        }
        return {name: value.float() for name, value in outputs.items()}


def region_shares() -> torch.Tensor:
    """(R, 20, 20) float32: share of each region in each cell; they sum to 1 over cells."""
    masks = torch.from_numpy(region_masks(CROP)).float()
    shares = F.interpolate(masks[None], size=(GRID, GRID), mode="area")[0]
    return shares / shares.sum((1, 2), keepdim=True)


def as_seen(faces: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(N, 3, 160, 160) uint8 RGB -> `dtype` in [-1, 1], channels last."""
    seen = (faces.float() - 127.5) / 127.5
    return seen.to(dtype).contiguous(memory_format=torch.channels_last)


class TraceExpert(Expert):
    """The frozen network as an expert, averaged over the face and its mirror image."""

    name = "traces"
    crop = CROP
    outputs = {
        "source": Output("embedding", SOURCE),
        "altered": Output("forgery_logit", 1, ("logit",)),
    }
    faces_on_cpu = 8
    at_once = False  # both images in one batch

    def __init__(self, weights: Path = BUNDLED["traces"], bf16: bool = False) -> None:
        super().__init__(load_trace_net(weights), weights, bf16)
        # On the device: the host would wait for the copy of a list.
        self.register_buffer("mirror", torch.tensor(MIRRORED), persistent=False)

    def rewrite(self, dtype: torch.dtype = torch.float16) -> None:
        """float16, since bfloat16 moves the logit by up to .3; activations are at most 6."""
        self.at_once = True
        if self.bf16:
            self.net.reduce(dtype)
            self.dtype = dtype

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        colours = faces[:, :3] * (faces[:, 3:] > 127)
        views = colours, colours.flip(-1)
        with self.inference(faces.device):
            if self.at_once:
                both = self.net(as_seen(torch.cat(views), self.dtype))
                plain, mirrored = ({k: v.chunk(2)[i] for k, v in both.items()} for i in range(2))
            else:
                plain, mirrored = (self.net(as_seen(images, self.dtype)) for images in views)
        source = F.normalize(plain["source"] + mirrored["source"][:, self.mirror], dim=-1)
        altered = (region_logits(plain) + region_logits(mirrored)[:, self.mirror]) / 2
        return {"source": source, "altered": altered[..., None]}


def region_logits(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(N, R) forgery logits; `full`, the first region, has the one of the whole face."""
    return torch.cat([outputs["whole"][:, None], outputs["parts"][:, 1:]], dim=1)


def load_trace_net(path: Path) -> TraceNet:
    """The network in `path`, float32. Raises: FileNotFoundError, WeightsError."""
    net, path = TraceNet(), Path(path)
    load_strictly(net, read_tensors(path), path)
    return net
