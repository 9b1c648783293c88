"""The bundled head on CLIP's blocks: does this face look made, rather than photographed?

What generators leave behind is found in middle blocks rather than in the last one (RINE: Koutlis &
Papadopoulos, ECCV 2024). The head reads every block: its class token, and mean and deviation of its
patches over a region. It may have layer normalisations of its own for the last blocks, which then
run again with them: nothing else of CLIP changes (Yermakov et al., WACV 2026, tune all of them).
Trained by training/block_head.py, the normalisations by training/block_norms.py.
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
TUNED = 6  # blocks, the last ones, with normalisations of the head's own: two each
EPS = 1e-5


class BlockHead(nn.Module):
    """tuned: it has layer normalisations of its own; `norms` holds weight and bias of each."""

    def __init__(self, tuned: bool = False) -> None:
        super().__init__()
        count = KINDS * BLOCKS
        self.proj = nn.Parameter(torch.randn(count, WIDTH, SIZE) / WIDTH**0.5)
        self.bias = nn.Parameter(torch.zeros(count, SIZE))
        self.weight = nn.Parameter(torch.zeros(count, SIZE))  # of each statistic in each feature
        layers = nn.LayerNorm(SIZE), nn.Linear(SIZE, SIZE), nn.GELU(), nn.Dropout(0.3)
        self.mlp = nn.Sequential(*layers, nn.Linear(SIZE, 1))
        count = 2 * TUNED if tuned else 0
        make = (torch.ones, torch.zeros) * count
        self.norms = nn.ParameterList(each(WIDTH) for each in make)

    def read(self, net: nn.Module, blocks: list[torch.Tensor]) -> list[torch.Tensor]:
        """What it reads of `net`, timm's transformer: tokens (B, 1 + P, 768) as they leave each block.

        blocks: those of the frozen network; of the last ones, where the head is tuned, no more than
            the first ones are needed.
        """
        if not self.norms:
            return blocks
        found, norms = blocks[: BLOCKS - TUNED], iter(self.norms)
        for block in net.blocks[BLOCKS - TUNED :]:
            x = found[-1]
            x = x + block.attn(_normalised(x, next(norms), next(norms)))
            found.append(x + block.mlp(_normalised(x, next(norms), next(norms))))
        return found

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """(..., 36, 768), as of `statistics` -> logits (...), larger where it looks made."""
        shape = statistics.shape[:-2]
        x = F.layer_norm(statistics.flatten(0, -3).float(), (WIDTH,)).transpose(0, 1)
        seen = F.gelu(torch.baddbmm(self.bias[:, None], x, self.proj))
        mixed = (seen * self.weight.softmax(0)[:, None]).sum(0)
        return self.mlp(mixed)[..., 0].view(shape)


def _normalised(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, (WIDTH,), weight.to(x.dtype), bias.to(x.dtype), EPS)


def statistics(blocks: list[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
    """What a head reads of each region: (B, R, 36, 768) float32.

    blocks: of each, class token and patches, (B, 1 + P, 768). shares: (B, R, P), of each patch in a
    region; they sum to 1 over patches.
    """
    found = []
    for tokens in blocks:
        patches = tokens[:, 1:].float()
        mean = shares @ patches
        spread = (shares @ patches.square() - mean.square()).clamp_min(1e-8).sqrt()
        found += [tokens[:, :1].float().expand_as(mean), mean, spread]
    return torch.stack(found, dim=2)


def load_block_head(path: Path) -> BlockHead:
    """The head in `path`, float32. Raises: FileNotFoundError, WeightsError."""
    path = Path(path)
    tensors = read_tensors(path)
    head = BlockHead(tuned="norms.0" in tensors)
    load_strictly(head, tensors, path)
    return head.eval()
