"""Tune layer normalisations of CLIP's last blocks for the head that reads them, on a GPU.

    python -m training.block_head --features outputs/features/*/lite --left-out
    python -m training.block_norms --features outputs/features/*/lite --left-out --device cuda

Goes on from the heads of the first command. Faces are drawn as there, but kept as pictures in
--out/lots (20 MB a lot, all of them in memory for the training; a second of a core each, and some
for faces that are restored), since now gradients run through the network: 290 steps take a quarter
of a minute of an H200, and hours of a CPU. The same command goes on after a stop. Writes a head with
its normalisations, `block_head.safetensors`, `log.csv` and `state.pt`; --left-out does so without
each dataset in turn, too.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from command_line import run
from data.dump import read_dump
from models import CLIP_MODELS
from models.base import native_bf16
from models.block_head import BLOCKS, TUNED, BlockHead, load_block_head, statistics
from models.clip_image import ClipImage
from models.ensemble import find_weights
from training import block_head
from training.block_head import HEAD, LEFT_OUT, Lots, Pairs, fitted, loss_of, made_lots
from training.loop import Schedule


@dataclass(kw_only=True)
class Config(block_head.Config):
    out: Path = Path("outputs/block_norms")
    heads: Path = Path("outputs/block_head")
    """the folder of the heads to go on from"""
    start: str = ""
    """a head to go on from, instead of the one in --heads"""
    lots: int = 400
    """of 100 faces"""
    faces: int = 0
    """real faces of each dump that pseudo-fakes are made of, at most; 0: all"""
    steps: int = 290
    pairs: int = 96
    """in one step"""
    lr: float = 8e-4
    """of the normalisations; half of it, of the rest"""
    weight_decay: float = 0.01
    autoencoder_steps: int = 300


class Pictures(Lots):
    """Number -> the file with the faces of a lot, (2P, px, px, 4) uint8."""

    name = "faces"

    @staticmethod
    def kept(faces: np.ndarray) -> np.ndarray:
        return faces


def tuned(head: BlockHead, tower: nn.Module) -> BlockHead:
    """The head with normalisations, at first those of the tower, unless it has some already."""
    if head.norms:
        return head
    found = BlockHead(tuned=True)
    found.load_state_dict(head.state_dict(), strict=False)
    norms = [norm for block in tower.blocks[-TUNED:] for norm in (block.norm1, block.norm2)]
    values = [value for norm in norms for value in (norm.weight, norm.bias)]
    for own, value in zip(found.norms, values, strict=True):
        own.data.copy_(value)
    return found


class Tuned(nn.Module):
    """The head and its loss, with gradients through the blocks that have normalisations of its own."""

    rates = {"net.": 0.5, "net.norms": 1.0}

    def __init__(self, net: BlockHead, clip: ClipImage) -> None:
        super().__init__()
        self.net = net
        self.frozen = (clip,)  # not a part of what is trained and kept

    def forward(self, faces: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        """faces: (2P, px, px, 4) uint8, real and fake in turn."""
        (clip,), faces = self.frozen, faces.permute(0, 3, 1, 2)
        turned = (torch.rand(len(faces) // 2, device=faces.device) < 0.5).repeat_interleave(2)
        faces = torch.where(turned[:, None, None, None], faces.flip(3), faces)
        with torch.autocast(faces.device.type, torch.bfloat16, enabled=clip.bf16):
            found = self.net.read(clip.net, self.first(clip, faces))
        patches = found[0].shape[1] - 1
        even = torch.full((len(faces), 1, patches), 1 / patches, device=faces.device)
        return loss_of(self.net(statistics(found, even))[:, 0])

    @staticmethod
    def first(clip: ClipImage, faces: Tensor) -> list[Tensor]:
        """Tokens as they leave each of the blocks that stay frozen."""
        taken = {"output_fmt": "NLC", "return_prefix_tokens": True, "intermediates_only": True}
        taken |= {"indices": [*range(BLOCKS - TUNED)], "stop_early": True}
        found = clip.net.forward_intermediates(clip.network_input(faces), **taken)
        return [torch.cat([first, patches], dim=1) for patches, first in found]


def train(files: list[Path], fakes: dict[str, int], faces: int, config: Config) -> Path:
    """Tune, or resume. config: `start` is the head. Returns: the weights. Raises: as `fit`."""
    torch.manual_seed(config.seed)
    device, tower = torch.device(config.device), CLIP_MODELS["standard"]
    weights = find_weights(["clip"], None, tower)["clip"]
    clip = ClipImage(weights, native_bf16(device), tower).frozen(device, for_gpu=False)
    task = Tuned(tuned(load_block_head(Path(config.start)), clip.net), clip)
    schedule = Schedule(config.steps, config.interval, warm_up=30, clip=1.0)
    pairs = Pairs(files, config, fakes, Pictures.name)
    return fitted(task, pairs, faces, config, schedule)


def main(config: Config) -> Path:
    config.start = config.start or str(config.heads / HEAD)
    names = {read_dump(path).meta["dataset"] for path in config.features}
    names = names if config.left_out and len(names) > 1 else ()
    starts = {name: config.heads / LEFT_OUT / f"{name}.safetensors" for name in names}
    for start in (config.start, *starts.values()):
        load_block_head(Path(start))  # before anything takes long
    files, fakes, faces, names = made_lots(config, Pictures)
    weights = train(files, fakes, faces, config)

    def again(name: str, part: Config) -> Path:
        part.start = str(starts[name])
        return train(files, fakes, faces, part)

    block_head.left_out(config, names, again)
    print(f"weights: {weights}")
    return weights


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.block_norms"))
