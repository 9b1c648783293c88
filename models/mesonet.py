"""MesoInception-4, a small network made to find deepfakes (Afchar et al., "MesoNet", WIFS 2018), from the paper's description."""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)  # the picture keeps its size
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation),
        nn.ReLU(inplace=True),
    ]


class Inception(nn.Module):
    """A 1x1 convolution beside three of 3x3, dilated 1, 2 and 3 times and each after one of 1x1. widths: channels of the four."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        wide = [
            nn.Sequential(*_conv(inputs, width, 1), *_conv(width, width, 3, dilation))
            for dilation, width in enumerate(widths[1:], start=1)
        ]
        self.branches = nn.ModuleList([nn.Sequential(*_conv(inputs, widths[0], 1)), *wide])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class MesoInception4(nn.Module):
    """Two inception modules and two convolutions, each normalised and pooled, then two dense layers.

    px: side of the picture, 256 in the paper (28,615 parameters); the first dense layer grows and shrinks with it.
    """

    def __init__(self, px: int = 256) -> None:
        super().__init__()

        def normed(outputs: int, pool: int) -> list[nn.Module]:
            # Sides that the pooling does not divide are rounded up, so that no border is lost.
            return [nn.BatchNorm2d(outputs), nn.MaxPool2d(pool, ceil_mode=True)]

        self.features = nn.Sequential(
            *(Inception(3, (1, 4, 4, 2)), *normed(11, 2)),
            *(Inception(11, (2, 4, 4, 2)), *normed(12, 2)),
            *(*_conv(12, 16, 5), *normed(16, 2)),
            *(*_conv(16, 16, 5), *normed(16, 4)),
        )
        side = -(-px // 32)
        self.judge = nn.Sequential(
            *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * side * side, 16), nn.LeakyReLU(0.1)),
            *(nn.Dropout(0.5), nn.Linear(16, 1)),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: (N, 3, px, px) float RGB in [0, 1]. Returns: (N, 1), the logit of fake."""
        return self.judge(self.features(images))
