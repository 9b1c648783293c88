"""The bundled head on CLIP's blocks: does this face look made, rather than photographed?

What generators leave behind is found in middle blocks rather than in the last one (RINE: Koutlis &
Papadopoulos, ECCV 2024). The head reads every block: its class token, and mean and deviation of its
patches over a region. CLIP stays frozen. Trained by training/block_head.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.tensors import load_strictly, read_tensors

BLOCKS, WIDTH = 12, 768  # of ViT-B/16
KINDS = 3  # class token, mean and deviation of the patches
SIZE = 128


class BlockHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        count = KINDS * BLOCKS
        self.proj = nn.Parameter(torch.randn(count, WIDTH, SIZE) / WIDTH**0.5)
        self.bias = nn.Parameter(torch.zeros(count, SIZE))
        self.weight = nn.Parameter(torch.zeros(count, SIZE))  # of each statistic in each feature
        layers = nn.LayerNorm(SIZE), nn.Linear(SIZE, SIZE), nn.GELU(), nn.Dropout(0.3)
        self.mlp = nn.Sequential(*layers, nn.Linear(SIZE, 1))

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """(..., 36, 768), as of `statistics` -> logits (...), larger where it looks made."""
        shape = statistics.shape[:-2]
        x = F.layer_norm(statistics.flatten(0, -3).float(), (WIDTH,)).transpose(0, 1)
        seen = F.gelu(torch.baddbmm(self.bias[:, None], x, self.proj))
        mixed = (seen * self.weight.softmax(0)[:, None]).sum(0)
        return self.mlp(mixed)[..., 0].view(shape)


def statistics(blocks: list[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
    """What a head reads of each region: (B, R, 36, 768) float32.

    blocks: of each, class token and patches, (B, 1 + P, 768). shares: (B, R, P), of each patch in a
    region; they sum to 1 over patches.
    """
    found = []
    for tokens in blocks:
        patches = tokens[:, 1:].float()
        mean = shares @ patches
        spread = (shares @ patches.square() - mean.square()).clamp_min(0).sqrt()
        found += [tokens[:, :1].float().expand_as(mean), mean, spread]
    return torch.stack(found, dim=2)


def load_block_head(path: Path) -> BlockHead:
    """The head in `path`, float32. Raises: FileNotFoundError, WeightsError."""
    head, path = BlockHead(), Path(path)
    load_strictly(head, read_tensors(path), path)
    return head.eval()
