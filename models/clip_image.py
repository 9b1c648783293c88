"""CLIP's image tower (Radford et al., ICML 2021): any that timm lists."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import Crop
from models import CLIP_MODEL
from models.base import Output, WholeFaceExpert
from models.gpu_layers import Norm, Patches, replace, silu_for_quick_gelu
from models.tensors import load_strictly, read_tensors
from models.weights import WEIGHTS, Weights, from_hub

ALIASES = {"ViT-B/32": WEIGHTS["clip-vit-b-32"].tower, "ViT-L/14": WEIGHTS["clip-vit-l-14"].tower}


def tower_named(name: str) -> str:
    """timm's name of a tower. Raises: ValueError, also without `quickgelu` where it was used in
    training: timm would load the weights without complaint, and compute other embeddings.
    """
    from timm import list_pretrained

    if name in ALIASES:
        return ALIASES[name]
    # Those fine-tuned on ImageNet (`_ft_`) are classifiers.
    towers = [tower for tower in list_pretrained("*clip*") if "." in tower and "_ft_" not in tower]
    quick = name.replace("_clip_", "_clip_quickgelu_")
    if "quickgelu" not in name and quick != name and quick in towers:
        raise ValueError(
            f"--clip-model {name}: these weights were trained with another GELU; use {quick}"
        )
    if name not in towers:
        raise ValueError(
            f"--clip-model {name}: timm lists no such tower; give {', '.join(ALIASES)} or one of "
            f"its {len(towers)} names (timm.list_pretrained('*clip*') prints them)"
        )
    return name


def published(name: str) -> Weights:
    from timm import get_pretrained_cfg

    tower = tower_named(name)
    if entry := next((entry for entry in WEIGHTS.values() if entry.tower == tower), None):
        return entry
    config = get_pretrained_cfg(tower)
    if not config.hf_hub_id:
        raise ValueError(f"--clip-model {name}: its weights are not on the hub that timm reads")
    terms = config.license or "see its page", "see its page", "see its page"
    return from_hub("clip", config.hf_hub_id, *terms, tower=tower)


class ClipImage(WholeFaceExpert):
    """The crop is 1.3 times the face box, as is usual for deepfake detectors.

    tower: timm's name or an alias.
    """

    name = "clip"

    def __init__(self, weights: Path, bf16: bool = False, tower: str = CLIP_MODEL) -> None:
        from timm import create_model
        from timm.models.vision_transformer import checkpoint_filter_fn

        net = create_model(tower_named(tower), pretrained=False)
        config = net.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.crop = Crop.of_box(1.3, config["input_size"][-1])
        self.outputs = {"embedding": Output("embedding", net.num_classes or net.num_features)}
        tensors = read_tensors(weights)
        if "visual.class_embedding" in tensors:  # OpenAI's and open_clip's names, text tower too
            tensors = checkpoint_filter_fn(tensors, net)
        load_strictly(net, tensors, weights)
        super().__init__(net, weights, bf16)

    def rewritten(self) -> nn.Module:
        from timm.layers.activations import QuickGELU

        silu_for_quick_gelu(self.net, QuickGELU)
        replace(self.net, nn.LayerNorm, Norm)
        replace(self.net, nn.Conv2d, Patches)
        return self.net

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embedding": F.normalize(self.net(images).float(), dim=-1)}
