"""CLIP's image tower (Radford et al., ICML 2021): any vision transformer that timm lists."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import Crop
from models import BLOCK_HEAD, CLIP_MODEL
from models.base import Output, WholeFaceExpert
from models.block_head import load_block_head, statistics
from models.clip_onnx import read_onnx
from models.gpu_layers import Norm, Patches, replace, silu_for_quick_gelu
from models.tensors import WeightsError, load_strictly, read_tensors
from models.weights import WEIGHTS, Weights, from_hub

# OpenAI's names -> rows of the table. ViT-B/16 is the one that a package carries in 8 bits.
ROWS = {"ViT-B/32": "clip-vit-b-32", "ViT-L/14": "clip-vit-l-14", "ViT-B/16": "clip-vit-b-16"}
ALIASES = {name: WEIGHTS[row].tower for name, row in ROWS.items()}


def tower_named(name: str) -> str:
    """timm's name of a tower. Raises: ValueError, also without `quickgelu` where it was used in
    training: timm would load the weights without complaint, and compute other embeddings.
    """
    from timm import list_pretrained

    if name in ALIASES:
        return ALIASES[name]
    # Those fine-tuned on ImageNet (`_ft_`) are classifiers.
    named = list_pretrained("vit_*_clip_*")
    towers = [tower for tower in named if "." in tower and "_ft_" not in tower]
    quick = name.replace("_clip_", "_clip_quickgelu_")
    if "quickgelu" not in name and quick != name and quick in towers:
        raise ValueError(
            f"--clip-model {name}: these weights were trained with another GELU; use {quick}"
        )
    if name not in towers:
        raise ValueError(
            f"--clip-model {name}: timm lists no such tower; give {', '.join(ALIASES)} or one of "
            f"its {len(towers)} names (timm.list_pretrained('vit_*_clip_*') prints them)"
        )
    return name


def published(name: str) -> Weights:
    from timm import get_pretrained_cfg

    if name in ROWS:
        return WEIGHTS[ROWS[name]]
    tower = tower_named(name)
    rows = (row for row in WEIGHTS.values() if row.tower == tower and not row.package)
    if entry := next(rows, None):
        return entry
    config = get_pretrained_cfg(tower)
    if not config.hf_hub_id:
        raise ValueError(f"--clip-model {name}: its weights are not on the hub that timm reads")
    terms = config.license or "see its page", "see its page", "see its page"
    return from_hub("clip", config.hf_hub_id, *terms, tower=tower)


def left_out_heads(folder: Path) -> list[Path]:
    """Raises: FileNotFoundError: there are none."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"{folder}: no heads there; training.block_head or block_norms --left-out makes them"
        )
    return files


class ClipImage(WholeFaceExpert):
    """Looks once at the whole crop, 1.3 times the face box, as is usual for deepfake detectors.

    The embedding of `full` is the class token's. That of another region is the mean of its patches
    after the last block, through the same projection; a patch counts by its share of the region
    and of the photograph. Through attention patches know of the rest of the face, too.

    tower: timm's name or an alias. Beside the tower that it was trained on, ViT-B/16, a head reads
    all blocks (models/block_head.py): `made`, of a region by its patches; the last blocks run again
    for it, with its own normalisations. heads: a folder with more of them, each called after the
    dataset it was trained without; `made~NAME` is what it says.
    """

    name = "clip"
    faces_on_cpu = 8

    def __init__(
        self,
        weights: Path,
        bf16: bool = False,
        tower: str = CLIP_MODEL,
        heads: Path | None = None,
    ) -> None:
        from timm import create_model
        from timm.models.vision_transformer import checkpoint_filter_fn

        net = create_model(tower_named(tower), pretrained=False)
        config = net.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.crop = Crop.of_box(1.3, config["input_size"][-1])
        self.outputs = {"embedding": Output("embedding", net.num_classes or net.num_features)}
        tensors = read_onnx(weights) if weights.suffix == ".onnx" else read_tensors(weights)
        if "visual.class_embedding" in tensors:  # OpenAI's and open_clip's names, text tower too
            tensors = checkpoint_filter_fn(tensors, net)
        load_strictly(net, tensors, weights)
        super().__init__(net, weights, bf16)
        self.heads, self.head_names = nn.ModuleList(), []
        if tower_named(tower) == ALIASES["ViT-B/16"]:
            self.beside, files = (BLOCK_HEAD,), {"made": BLOCK_HEAD}
            files |= {f"made~{x.stem}": x for x in left_out_heads(heads)} if heads else {}
            self.heads.extend(load_block_head(file) for file in files.values())
            self.head_names = [*files]
            if len({bool(head.norms) for head in self.heads}) > 1:
                raise WeightsError(
                    f"{heads}: heads that are tuned as the bundled one is not, or the other way round"
                )
            self.outputs |= dict.fromkeys(files, Output("forgery_logit", 1, ("logit",)))
        self.patch = net.patch_embed.patch_size
        shares = F.avg_pool2d(self.masks[1:].float(), self.patch).flatten(1)
        self.register_buffer("shares", shares, persistent=False)  # (R - 1, patches)
        self.masks = self.masks[:1]  # the network is shown the whole crop, once

    def rewritten(self) -> nn.Module:
        from timm.layers.activations import QuickGELU

        silu_for_quick_gelu(self.net, QuickGELU)
        replace(self.net, nn.LayerNorm, Norm)
        replace(self.net, nn.Conv2d, Patches)
        return self.net

    def shares_of(self, faces: torch.Tensor) -> torch.Tensor:
        """(B, R - 1, P): how much each patch counts in each region but `full`."""
        there = F.avg_pool2d((faces[:, 3:] > 127).float(), self.patch).flatten(2)
        shares = self.shares * (there + 1e-6)  # a region outside the photograph: of nothing else
        return shares / shares.sum(-1, keepdim=True)

    def blocks(self, faces: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Tokens (B, 1 + P, width): normalised after the last block, and as they leave each block."""
        taken = {"output_fmt": "NLC", "return_prefix_tokens": True}
        last, found = self.net.forward_intermediates(self.network_input(faces), **taken)
        return last, [torch.cat([first, patches], dim=1) for patches, first in found]

    def statistics(self, faces: torch.Tensor, blocks: list[torch.Tensor]) -> torch.Tensor:
        """What the head reads of each region, (B, R, 36, 768) float32; of `full` all patches."""
        shares = self.shares_of(faces)
        everywhere = torch.full_like(shares[:, :1], 1 / shares.shape[-1])
        return statistics(blocks, torch.cat([everywhere, shares], dim=1))

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        with self.inference(faces.device):
            last, blocks = self.blocks(faces)
            shares = self.shares_of(faces).to(last.dtype)
            seen = torch.cat([last[:, :1], shares @ last[:, 1:]], dim=1)
            found = {"embedding": F.normalize(self.net.head(seen).float(), dim=-1)}
            for name, head in zip(self.head_names, self.heads, strict=True):
                read = head.read(self.net, blocks)
                with torch.autocast(faces.device.type, enabled=False):  # small, in full precision
                    found[name] = head(self.statistics(faces, read))[..., None]
        return found
