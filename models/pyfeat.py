"""py-feat's multitask network: action units, emotions, affect (Cheong et al. 2023)."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from features.regions import Crop
from models.base import IMAGENET_MEAN, IMAGENET_STD, Output, WholeFaceExpert
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

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.run(images)
        emotion = found["emotion_logits"].float().softmax(-1)
        return {"au": found["p_au"], "emotion": emotion, "affect": found["va"]}


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
