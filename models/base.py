"""What every expert promises.

An expert is a frozen network that looks at every region of every face of a batch and answers with named outputs. Each
output is of one kind, and the kind alone decides how two regions are compared (features/measures.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import REGIONS, Crop, region_masks

KINDS = ("distribution", "embedding", "scalar", "vector", "forgery_logit")


@dataclass(frozen=True)
class Output:
    """One named output of an expert.

    kind: `distribution` (sums to 1 over `names`), `embedding` (L2-normalised, compared by cosine), `scalar` (one number in
        a unit of its own), `vector` (named scalars) or `forgery_logit` (one number, larger where the region itself looks forged,
        which is taken as it is and compared with no other region).
    size: length of the last axis.
    names: class or component names, `size` of them; empty for embeddings.
    """

    kind: str
    size: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown output kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if self.names and len(self.names) != self.size:
            raise ValueError(f"{len(self.names)} names for an output of size {self.size}")

    def to_json(self) -> dict:
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, data: dict) -> Output:
        return cls(data["kind"], int(data["size"]), tuple(data["names"]))


# What torchvision's and timm's networks were trained with, of R, G, B in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def native_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself. A CPU that only imitates it takes ten times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class Expert(nn.Module):
    """A frozen network over face regions. Subclasses set the attributes and write `forward`.

    name: the first part of every column it yields (`lite` in `lite.age/js/full~lower`).
    crop: what of an aligned face it sees.
    outputs: what it answers, by name.
    weights: the file it was loaded from.
    faces_on_cpu: how many faces are one call on a CPU, where few that stay in its cache are faster than many.
    """

    name: str
    crop: Crop
    outputs: dict[str, Output]
    weights: Path
    faces_on_cpu: int = 1

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """faces: (B, 4, px, px) uint8 RGBA of `crop`, on the expert's device; alpha 0 marks pixels outside the photograph.

        Returns: for each name in `outputs` a float32 tensor (B, R, size), regions in the order of `REGIONS`.
        """
        raise TypeError(f"{type(self).__name__} must define forward")

    def frozen(self, device: str | torch.device) -> Expert:
        """This expert on `device`, in evaluation mode, with gradients off."""
        return self.requires_grad_(False).eval().to(device)


class WholeFaceExpert(Expert):
    """A published network that was trained on whole faces, here shown one region at a time.

    What lies outside a region, or outside the photograph, becomes the mean colour of the network's training: zero after
    normalisation. Subclasses load the network, set the attributes below and say in `answer` what its output means.

    mean, std: of R, G, B in [0, 1]: what the network's training subtracted and divided by.
    input_px: side of the picture that the network takes, where it is not the crop's.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_px: int | None = None

    def __init__(self, net: nn.Module, weights: Path, bf16: bool) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)
        self.weights = weights
        self.bf16 = bf16
        self.register_buffer("masks", torch.from_numpy(region_masks(self.crop)), persistent=False)
        self.register_buffer("shift", torch.tensor(self.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(self.std).view(3, 1, 1), persistent=False)

    def prediction(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """images: (N, 3, px, px) normalised RGB, channels last. Returns: for each name in `outputs` (N, size), any float."""
        raise TypeError(f"{type(self).__name__} must define answer")

    def see(self, faces: torch.Tensor) -> torch.Tensor:
        """Every region of every face as the network takes it, face by face, region by region: (B * R, 3, px, px) float32."""
        colours = (faces[:, :3].float() / 255 - self.shift) / self.scale
        seen = (faces[:, 3:] > 127) & self.masks  # (B, R, px, px)
        images = (colours[:, None] * seen[:, :, None]).flatten(0, 1)
        if self.input_px not in (None, self.crop.px):
            images = F.interpolate(
                images, size=(self.input_px, self.input_px), mode="bilinear", antialias=True
            )
        return images.contiguous(memory_format=torch.channels_last)

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        with (
            torch.inference_mode(),
            torch.autocast(faces.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            predictions = self.prediction(self.see(faces))
        return {
            name: value.float().view(len(faces), len(REGIONS), -1)
            for name, value in predictions.items()
        }
