"""Train the trace network on real faces and pseudo-fakes of them. It sees no deepfake.

Much as the bundled network was trained at first (about 80 minutes on 2 cores; docs/trace_net.md):
    python preprocessing_pipeline.py --experts lite --data_root DATA/dfdc --index DATA/index.csv
    python -m training.trace_net --features outputs/features/*/lite --steps 4500

Uses the landmarks of the dumps, and the pictures where the dump found them or --data-root says:
real faces of the train split. Starts from the ImageNet weights of
an installed package, or from --start FILE. Writes `trace_net.safetensors`, `log.csv`, `state.pt`, from
which the same command resumes a stopped run, and `packed.safetensors`, a small state from which
--start goes on elsewhere.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from command_line import run
from data.dump import read_dump
from evaluation.metrics import auc
from models.base import native_bf16
from models.lite0 import lite0_weights
from models.tensors import load_strictly, write_half
from models.trace_net import CROP, GRID, TraceNet, as_seen, load_trace_net
from training.aligned_crops import AlignedCrops, real_faces, roots_of
from training.device_fakes import DeviceFakes
from training.loop import Options, Schedule, fit
from training.pack_faces import packed_faces
from training.packed_state import part_of, read_state, write_state
from training.pseudo_fakes import PseudoFakes
from training.reconstruction import with_reconstructions

log = logging.getLogger("masc")
PAIRED_CELLS = 48  # of a face, compared in one step
MANIPULATED = 0.06  # share of a region from which it counts as manipulated
UNTOUCHED = 0.01  # ... and up to which as untouched
PACKED = "packed.safetensors"
TOGETHER = 128  # pairs made at once on a GPU
WEIGHTS = {"whole": 1.0, "parts": 0.5, "cells": 0.5, "origins": 0.5}


@dataclass(kw_only=True)
class Config(Options):
    features: tuple[Path, ...] = ()
    """dumps whose real faces are used"""
    faces: Path | None = None
    """a file of training.pack_faces, instead of dumps"""
    data_root: tuple[str, ...] = ()
    """DATASET=DIR for pictures that have moved"""
    out: Path = Path("outputs/trace_net")
    start: str = ""
    """a trace network to train further, or the packed state of a run to go on from, instead of
    ImageNet's weights"""
    steps: int = 5000
    pairs: int = 16
    """real faces, each with its pseudo-fake, in one step"""
    lr: float = 8e-4
    weight_decay: float = 0.02
    autoencoder_steps: int = 300
    fakes_on: Literal["cpu", "device"] = "cpu"
    """where pseudo-fakes are made: by --workers processes, or in batches on --device"""
    interval: int = 100
    """steps between rows of the log; weights and states are written with each"""


class Pairs(torch.utils.data.Dataset):
    """Step -> faces (2P, 3, px, px) uint8, real and fake in turn; shares of cells (2P, 20, 20)."""

    def __init__(self, pseudo_fakes: PseudoFakes, pairs: int, seed: int) -> None:
        self.pseudo_fakes, self.pairs, self.seed = pseudo_fakes, pairs, seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng, faces, shares = np.random.default_rng((self.seed, step)), [], []
        while len(shares) < 2 * self.pairs:
            index = self.pseudo_fakes.crops.sample(rng)
            pair = self.pseudo_fakes.pair(index, int(rng.integers(1 << 40)), CROP, GRID)
            if pair is not None:
                faces += pair[:2]
                shares += [np.zeros_like(pair[2]), pair[2]]
        images = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(np.stack(shares))


class Localisation(nn.Module):
    """The network and its losses, with a scale and bias that turn similarities into logits.

    Cross-entropy of the whole face; of each region (those hardly touched do not count); of each
    cell (its manipulated share); of pairs of cells (one source or two).
    """

    def __init__(self, net: TraceNet) -> None:
        super().__init__()
        self.net, self.predict = net, folded(net)
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, faces: Tensor, shares: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        bf16 = native_bf16(faces.device)
        with torch.autocast(faces.device.type, torch.bfloat16, enabled=bf16):
            outputs = self.predict(as_seen(faces))
        losses = self.losses(outputs, shares)
        figures = {name: loss.detach() for name, loss in losses.items()}
        scores = outputs["whole"].detach()
        if scores.is_cuda:  # which is not waited for
            gaps = scores[1::2, None] - scores[0::2]
            figures["AUC on pseudo-fakes"] = (gaps.sign() / 2 + 0.5).mean()
        else:
            figures["AUC on pseudo-fakes"] = auc(np.arange(len(scores)) % 2, scores.numpy())
        return sum(WEIGHTS[name] * loss for name, loss in losses.items()), figures

    def losses(self, outputs: dict[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
        """outputs: of `TraceNet`. shares: (N, 20, 20), as in `Pairs`."""
        fake = (torch.arange(len(shares), device=shares.device) % 2).float()
        touched = torch.einsum("nhw,rhw->nr", shares, self.net.shares)
        manipulated, cross_entropy = touched > MANIPULATED, F.binary_cross_entropy_with_logits
        clear = (manipulated | (touched <= UNTOUCHED)).float()
        parts = cross_entropy(outputs["parts"], manipulated.float(), reduction="none")
        cells = torch.randint(GRID * GRID, (PAIRED_CELLS,), device=shares.device)
        source = outputs["cell_source"].flatten(2)[:, :, cells]  # (N, 32, cells)
        share = shares.flatten(1)[:, cells]
        similarity = self.scale * torch.einsum("ncp,ncq->npq", source, source) + self.bias
        same = 1 - (share[:, :, None] - share[:, None]).abs()
        return {
            "whole": cross_entropy(outputs["whole"], fake),
            "parts": (parts * clear).sum() / clear.sum(),
            "cells": cross_entropy(outputs["cells"], shares),
            "origins": cross_entropy(similarity, same),
        }


def initial(path: str = "") -> TraceNet:
    """The network in a file, or ImageNet's EfficientNet-Lite0. Raises: as load_trace_net."""
    if path and (state := read_state(Path(path))):
        net = TraceNet()
        load_strictly(net, part_of(state, "net."), Path(path))
        return net
    if path:
        return load_trace_net(Path(path))
    net, found = TraceNet(), lite0_weights()
    net.stem.load_state_dict(dict(zip(net.stem.state_dict(), found.values(), strict=False)))
    net.blocks.load_state_dict({key: found[f"blocks.{key}"] for key in net.blocks.state_dict()})
    return net


def folded(net: TraceNet) -> Callable[[Tensor], dict[str, Tensor]]:
    """The network in training mode, except for its batch statistics, which pairs would distort.

    Each normalisation is folded into the convolution before it: same outputs and gradients, faster.
    """
    pairs = [
        (f"{name}.{conv}", f"{name}.{norm}")
        for name, module in net.named_modules()
        for (conv, _), (norm, layer) in pairwise(module.named_children())
        if isinstance(layer, nn.BatchNorm2d)
    ]
    twin = deepcopy(net).train()
    for conv, norm in pairs:
        layer = twin.get_submodule(conv)
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0, 0, 0]))
        twin.set_submodule(norm, twin.get_submodule(norm).act)

    def forward(images: Tensor) -> dict[str, Tensor]:
        values = dict(net.named_parameters())
        for conv, norm in pairs:
            layer = net.get_submodule(norm)
            scale = values.pop(f"{norm}.weight") * torch.rsqrt(layer.running_var + layer.eps)
            values[f"{conv}.weight"] = values[f"{conv}.weight"] * scale[:, None, None, None]
            values[f"{conv}.bias"] = values.pop(f"{norm}.bias") - layer.running_mean * scale
        return functional_call(twin, values, (images,))

    return forward


def train(crops: AlignedCrops, config: Config) -> Path:
    """Train, or resume. Returns: the weights. Raises: as `fit`; ValueError: no steps are left."""
    torch.manual_seed(config.seed)
    weights, device = config.out / "trace_net.safetensors", torch.device(config.device)
    net = initial(config.start).to(device, memory_format=torch.channels_last)

    def write(average: TraceNet, progress: str) -> None:
        write_half(average, weights, {"trained": progress})

    fakes, task = PseudoFakes(crops), Localisation(net).to(device)
    if config.fakes_on == "device":
        together = TOGETHER if device.type == "cuda" else config.pairs
        pairs = DeviceFakes(fakes, config.pairs, config.seed, device, together)
    else:
        pairs = Pairs(fakes, config.pairs, config.seed)
    schedule = Schedule(config.steps, config.interval, warm_up=100, clip=3.0, constant=0.55)
    keep = partial(write_state, path=config.out / PACKED)
    fit(task, pairs, write, config, schedule, len(crops), earlier(config), keep)
    return weights


def earlier(config: Config) -> dict | None:
    """The packed state that --start names, if it is one. Raises: ValueError: no steps are left."""
    state = read_state(Path(config.start)) if config.start else None
    if state and state["step"] >= config.steps:
        raise ValueError(f"{config.start}: had {state['step']} steps; give more --steps")
    return state


def faces_of(config: Config) -> AlignedCrops:
    """Raises: OSError, ValueError: they cannot be read."""
    workers = max(1, config.workers)
    if bool(config.features) == bool(config.faces):
        raise ValueError("give either --features, dumps, or --faces, a file of packed faces")
    if config.faces:
        return packed_faces(config.faces, config.limit, workers)
    dumps = [read_dump(path) for path in config.features]
    return real_faces(dumps, roots_of(dumps, config.data_root), config.limit, workers)


def main(config: Config) -> Path:
    begun = time.monotonic()
    initial(config.start)  # report a wrong file before anything takes long
    earlier(config)
    crops = faces_of(config)
    counts = Counter(crops.sources.tolist())
    log.info("real faces: %s", ", ".join(f"{count} of {name}" for name, count in counts.items()))
    device = torch.device(config.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"  # all batches are of one size
    crops = with_reconstructions(crops, config.autoencoder_steps, config.seed, device)
    if config.seconds:  # what is left of them
        config = replace(config, seconds=max(1.0, config.seconds - time.monotonic() + begun))
    weights = train(crops, config)
    print(f"weights: {weights}")
    return weights


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.trace_net"))
