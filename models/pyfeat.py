"""py-feat's multitask network: action units, emotions, affect (Cheong et al. 2023)."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from features.regions import Crop
from models.base import IMAGENET_MEAN, IMAGENET_STD, Output, WholeFaceExpert
from models.gpu_layers import Conv, ConvNeXtBlock, Norm, Patches, cast, replace
from models.tensors import DAMAGED, WeightsError

UNITS = (
    *("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU11", "AU12"),
    *("AU14", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25", "AU26", "AU28", "AU43"),
)
EMOTIONS = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger")
AFFECT = ("valence", "arousal")


class PyFeat(WholeFaceExpert):
    """Trained on square chips of 256 px, 1.2 times the face box, resized to 224 px.

    The file holds the network's configuration in its header.
    """

    name = "pyfeat"
    crop = Crop.of_box(1.2, 256)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    input_px = 224
    outputs = {
        "au": Output("vector", len(UNITS), UNITS),
        "emotion": Output("distribution", len(EMOTIONS), EMOTIONS),
        "affect": Output("vector", len(AFFECT), AFFECT),
    }

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        if weights.suffix != ".safetensors":
            raise WeightsError(f"{weights}: only safetensors are read; py-feat would unpickle it")
        inference = import_feat("multitask.inference")
        try:
            model = inference.MultitaskModel(weights_path=str(weights))
        except DAMAGED as error:
            reason = f"not a whole multitask network of py-feat ({error})"
            raise WeightsError(f"{weights}: {reason}; fetch it again") from error
        found = tuple(model.au_names), tuple(model.emotion_names)
        if found != (UNITS, EMOTIONS):
            raise WeightsError(
                f"{weights}: has outputs {found}, expected {(UNITS, EMOTIONS)}: another version?"
            )
        super().__init__(model.model, weights, bf16)

    def rewrite(self, dtype: torch.dtype = torch.bfloat16) -> None:
        if self.bf16 and Attributes.fits(self.net):
            self.net, self.dtype = Attributes(self.net, dtype), dtype

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.net(images)
        emotion = found["emotion_logits"].float().softmax(-1)
        return {"au": found["p_au"], "emotion": emotion, "affect": found["va"]}


class Attributes(nn.Module):
    """What the outputs above take of py-feat's network. The backbone computes in `dtype`, the
    heads in float32: they choose each unit's nearest neighbours, and rounding changes these.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        replace(net.backbone, type(net.backbone.stages_0.blocks[0]), ConvNeXtBlock)
        net.backbone.stem_0 = Patches(net.backbone.stem_0)
        replace(net.backbone, nn.Conv2d, Conv)
        replace(
            net.backbone, nn.LayerNorm, lambda norm: Norm(norm, first=True)
        )  # timm's LayerNorm2d
        self.backbone, self.project = net.backbone, net.proj
        self.landmarks, self.graph, self.prototypes = net.lmk, net.fgg, net.sc
        self.unified, self.emotion = net.unified, net.emotion
        units = [fuse_conv_bn_eval(head[0], head[1]) for head in net.afg.heads]
        self.units = nn.Linear(units[0].in_channels, sum(unit.out_channels for unit in units))
        self.units.weight = nn.Parameter(torch.cat([unit.weight.flatten(1) for unit in units]))
        self.units.bias = nn.Parameter(torch.cat([unit.bias for unit in units]))
        for part in (self.backbone, self.project, self.units):
            cast(part, dtype)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @staticmethod
    def fits(net: nn.Module) -> bool:
        """Whether the network has the heads of the published file."""
        config = net.cfg
        backbone = config.backbone.startswith("convnextv2")
        return backbone and config.use_head_v3 and config.drop_mefl and config.emotion_use_au_prob

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, 3, 224, 224) -> float32, as py-feat's network names them."""
        features = self.backbone(images)[-1]
        x = self.project(features)  # (N, C, 7, 7)
        cells = x.permute(0, 2, 3, 1).flatten(0, 2)
        found = torch._addmm_activation(self.units.bias, cells, self.units.weight.t())  # ReLU
        nodes = found.view(len(x), -1, len(UNITS), x.shape[1]).mean(1, dtype=torch.float32)
        p_au = self.prototypes(self.graph(nodes))
        unified = self.unified(features.float(), self.landmarks(x.float()))
        return {"p_au": p_au, **self.emotion(unified, p_au)}


def import_feat(module: str) -> ModuleType:
    """`feat.<module>`; the first import takes 10 to 30 seconds. Its side effects are undone: on
    environment variables (threads), warning filters, and `__main__`.
    """
    main, environment = vars(sys.modules["__main__"]), dict(os.environ)
    before = dict(main)
    try:
        with warnings.catch_warnings(action="ignore"):
            import feat

            return import_module(f"{feat.__name__}.{module}")
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for name in set(main) - set(before):
            del main[name]
        main.update(before)
