"""The bundled region-aware network: whole-face attributes, predicted from ONE region.

A residual network (at most 3 M parameters). It sees an aligned face with everything outside a
region removed, and the mask of what remains. It is trained by training/region_net.py on real
faces only, so that two regions of a real face yield similar outputs.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional as F

from features.regions import ALIGNED, REGIONS, region_masks
from models import BUNDLED
from models.base import Expert, Output
from models.gpu_layers import cast
from models.tensors import load_strictly, read_tensors, write_half

# FairFace's bins as [first, last] year (Karkkainen & Joo, WACV 2021): sums over the single years
# 0..100 that the age head scores (deep label distribution learning: Gao et al., IJCAI 2018).
AGE_BINS = ((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, 100))
AGE_NAMES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
YEARS = 101


def age_bin_matrix() -> torch.Tensor:
    """(101, 9) float32, 1 where a year is in one of FairFace's bins."""
    matrix = torch.zeros(YEARS, len(AGE_BINS))
    for column, (first, last) in enumerate(AGE_BINS):
        matrix[first : last + 1, column] = 1
    return matrix


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *_conv(outputs, outputs, 3)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class RegionNet(nn.Module):
    """Masked faces -> one linear head per output; `age` and `age_years` share one of single years.

    widths, depths: channels and blocks of the stages at 1/4, 1/8 and 1/16 of the input side (px);
    grid: side of the coarse map of local features.
    """

    def __init__(
        self,
        outputs: dict[str, Output],
        widths: tuple[int, ...] = (64, 128, 256),
        depths: tuple[int, ...] = (2, 3, 1),
        grid: int = 3,
        px: int = 80,
    ) -> None:
        super().__init__()
        self.config = {"widths": list(widths), "depths": list(depths), "grid": grid, "px": px}
        self.outputs = outputs
        layers: list[nn.Module] = [*_conv(4, 32, 3, 2), nn.ReLU(inplace=True)]
        channels = 32
        for width, depth in zip(widths, depths, strict=True):
            layers += [
                Block(channels, width, 2),
                *(Block(width, width, 1) for _ in range(depth - 1)),
            ]
            channels = width
        self.trunk = nn.Sequential(*layers)
        # The place of a feature matters for identity: a coarse grid of a few channels.
        self.local = nn.Sequential(
            *_conv(channels, channels // 4, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(grid)
        )
        features = channels + channels // 4 * grid * grid
        self.norm = nn.BatchNorm1d(features)
        self.drop = nn.Dropout(0.1)
        sizes = {name: output.size for name, output in outputs.items() if name != "age_years"}
        if "age" in sizes:
            sizes["age"] = YEARS
        heads = {name: nn.Linear(features, size) for name, size in sizes.items()}
        self.heads = nn.ModuleDict(heads)
        self.register_buffer("age_bins", age_bin_matrix(), persistent=False)

    def logits(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, 4, px, px) float, see `masked_input` -> (N, size) float32 of each head."""
        x = self.trunk(images)
        x = torch.cat([x.mean((2, 3)), self.local(x).flatten(1)], dim=1)
        x = self.drop(self.norm(x.float()))
        return {name: head(x).float() for name, head in self.heads.items()}

    def predictions(self, logits: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Head values -> probabilities, unit vectors, components in [0, 1], years."""
        result = {}
        for name, value in logits.items():
            kind = self.outputs[name].kind
            if name == "age":
                years = value.softmax(-1)
                scale = torch.arange(YEARS, device=years.device, dtype=years.dtype)
                result |= {"age": years @ self.age_bins, "age_years": years @ scale[:, None]}
            elif kind == "distribution":
                result[name] = value.softmax(-1)
            elif kind == "embedding":
                result[name] = F.normalize(value, dim=-1)
            else:
                result[name] = value.sigmoid() if kind == "vector" else value
        return result

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.predictions(self.logits(images))


def masked_input(faces: torch.Tensor, masks: torch.Tensor, px: int) -> torch.Tensor:
    """The network's input (N, 4, px, px): colours in [-1, 1], 0 where removed, and the mask.

    Pixels are removed before resizing, and the rest is averaged by itself, so that no removed pixel
    shows at the border. faces: (N, 4, S, S) uint8 RGBA; masks: (N, S, S) or (S, S) bool.
    """
    kept = ((faces[:, 3] > 127) & masks).unsqueeze(1).float()
    images = torch.cat([(faces[:, :3].float() / 127.5 - 1) * kept, kept], dim=1)
    if px == faces.shape[-1]:
        return images
    images = F.interpolate(images, size=(px, px), mode="bilinear", antialias=True)
    left = (images[:, 3:] > 0.5).float()
    return torch.cat([images[:, :3] / images[:, 3:].clamp_min(0.5) * left, left], dim=1)


class RegionExpert(Expert):
    """The frozen network as an expert: all regions of all faces in one batch."""

    name = "lite"
    crop = ALIGNED
    faces_on_cpu = 8  # 64 take 1.5 times as long each

    def __init__(self, weights: Path = BUNDLED["lite"], bf16: bool = False) -> None:
        super().__init__(load_region_net(weights), weights, bf16)
        self.outputs = self.net.outputs
        self.register_buffer("masks", torch.from_numpy(region_masks(self.crop)), persistent=False)

    def rewrite(self, dtype: torch.dtype = torch.float16) -> None:
        """float16, which is closer to float32 than bfloat16; the heads stay float32."""
        if self.bf16:
            self.dtype = dtype
            for part in (self.net.trunk, self.net.local):
                cast(part, dtype)

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, regions = len(faces), len(REGIONS)
        # (B * R, ...), face by face
        repeated = faces[:, None].expand(-1, regions, -1, -1, -1).flatten(0, 1)
        images = masked_input(repeated, self.masks.repeat(batch, 1, 1), self.net.config["px"])
        images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        with self.inference(faces.device):
            predictions = self.net(images)
        return {name: value.float().view(batch, regions, -1) for name, value in predictions.items()}


def save_region_net(net: RegionNet, path: Path, notes: dict[str, str]) -> None:
    """Write weights in float16; the header holds what rebuilds the network, and `notes`."""
    outputs = {name: output.to_json() for name, output in net.outputs.items()}
    header = {"config": json.dumps(net.config), "outputs": json.dumps(outputs), **notes}
    write_half(net, path, header)


def load_region_net(path: Path) -> RegionNet:
    """The network that `save_region_net` wrote, float32. Raises: FileNotFoundError, ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: missing; train a network with training/region_net.py")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        outputs = {k: Output.from_json(v) for k, v in json.loads(header["outputs"]).items()}
        net = RegionNet(outputs, **json.loads(header["config"]))
        load_strictly(net, read_tensors(Path(path)), Path(path))  # into float32
    except (KeyError, TypeError, RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a region network of this project ({error})") from error
    return net
