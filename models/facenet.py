"""FaceNet: who a face looks like, as a direction; the identity model of this project's first version.

InceptionResnetV1 of facenet-pytorch, trained on VGGFace2 as a classifier (after Schroff et al., CVPR 2015).
"""

from __future__ import annotations

from pathlib import Path

import torch
from facenet_pytorch import InceptionResnetV1
from torch.nn import functional as F

from features.regions import Crop
from models.base import Output, WholeFaceExpert
from models.tensors import load_strictly, read_tensors


class FaceNet(WholeFaceExpert):
    """weights: the file of `models.weights.WEIGHTS["facenet"]`.

    It was trained on MTCNN's boxes with a margin, squeezed into a square of 160 px, RGB as (x - 127.5) / 128. The
    margin of 14 px makes the box a tenth larger.
    """

    name = "facenet"
    crop = Crop.of_box(160 / 146, 160, square=False)
    mean = (0.5, 0.5, 0.5)
    std = (128 / 255, 128 / 255, 128 / 255)
    outputs = {"identity": Output("embedding", 512)}

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        net = InceptionResnetV1(pretrained=None)
        # The file also holds the classifier over the people of VGGFace2.
        load_strictly(net, read_tensors(weights), weights, lambda key: key.startswith("logits."))
        super().__init__(net, weights, bf16)

    def prediction(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"identity": F.normalize(self.net(images).float(), dim=-1)}
