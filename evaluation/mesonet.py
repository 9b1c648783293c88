"""MesoInception-4 (Afchar et al., "MesoNet", WIFS 2018), written from the paper's description."""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding="same", dilation=dilation)
    return [conv, nn.ReLU(inplace=True)]


class Inception(nn.Module):
    """Four parallel branches: 1x1, and 1x1 then 3x3 with dilation 1, 2 and 3. widths: channels."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        dilated = [
            nn.Sequential(*_conv(inputs, width, 1), *_conv(width, width, 3, dilation))
            for dilation, width in enumerate(widths[1:], start=1)
        ]
        self.branches = nn.ModuleList([nn.Sequential(*_conv(inputs, widths[0], 1)), *dilated])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class MesoInception4(nn.Module):
    """(N, 3, px, px) float RGB in [0, 1] -> (N, 1) logit of fake. px: 256 in the paper."""

    pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # as timm's networks have it

    def __init__(self, px: int = 256) -> None:
        super().__init__()

        def pooled(outputs: int, pool: int) -> list[nn.Module]:
            # ceil_mode: where the side is no multiple of `pool`, no border is lost.
            return [nn.BatchNorm2d(outputs), nn.MaxPool2d(pool, ceil_mode=True)]

        side = -(-px // 32)
        self.features = nn.Sequential(
            *(Inception(3, (1, 4, 4, 2)), *pooled(11, 2)),
            *(Inception(11, (2, 4, 4, 2)), *pooled(12, 2)),
            *(*_conv(12, 16, 5), *pooled(16, 2)),
            *(*_conv(16, 16, 5), *pooled(16, 4)),
        )
        self.classifier = nn.Sequential(
            *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * side * side, 16), nn.LeakyReLU(0.1)),
            *(nn.Dropout(0.5), nn.Linear(16, 1)),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))
