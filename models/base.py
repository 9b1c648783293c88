"""The interface of an expert: a frozen network that looks at every region of every face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import Crop, region_masks
from models.gpu_layers import cast

KINDS = ("distribution", "embedding", "scalar", "vector", "forgery_logit", "person")
# Of R, G, B in [0, 1], as torchvision's and timm's networks were trained.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Output:
    """One named output of an expert; the kind decides how two regions are compared.

    kind: `distribution` (sums to 1 over `names`), `embedding` (L2-normalised), `scalar`, `vector`
    (named scalars), `forgery_logit` (larger where the region looks manipulated; not compared) or `person`
    (an embedding that is compared with photographs of a person only; 0 of a region it does not look at).
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


def native_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; CPUs that emulate it are ten times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; libraries raise different exceptions."""
    words = ("out of memory", "alloc_failed", "can't allocate memory")
    told = any(word in str(error).lower() for word in words)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


class Expert(nn.Module):
    """A frozen network over face regions. Subclasses set the class attributes, define `forward`.

    weights: the file that `net` was loaded from; bf16: compute in bfloat16.
    """

    name: str  # the first part of its columns' names (`lite` in `lite.age/js/full~lower`)
    crop: Crop  # the part of an aligned face that it sees
    outputs: dict[str, Output]
    beside: tuple[Path, ...] = ()  # more files that its outputs depend on
    faces_on_cpu: int = 1  # per call; a few that fit the cache of a CPU are faster than many

    def __init__(self, net: nn.Module, weights: Path, bf16: bool = False) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)
        self.weights = Path(weights)
        self.bf16 = bf16
        self.dtype = torch.float32  # of the network's weights and input

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every output for every region of every face: (B, R, size) float32.

        faces: (B, 4, px, px) uint8 RGBA of `crop`; alpha 0 is outside the photograph.
        """
        raise NotImplementedError

    @contextmanager
    def inference(self, device: torch.device) -> Iterator[None]:
        """Without gradients, and in the expert's precision."""
        mixed = self.bf16 and self.dtype == torch.float32
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            yield

    def frozen(self, device: str | torch.device, for_gpu: bool | None = None) -> Expert:
        """On `device`, without gradients; for_gpu: as `rewrite` makes it (None: on a GPU only)."""
        self.requires_grad_(False).eval()
        if torch.device(device).type == "cuda" if for_gpu is None else for_gpu:
            self.rewrite()
        return self.to(device)

    def rewrite(self) -> None:
        """Give `net` the form that a GPU computes fastest; with `bf16`, in 16 bits. By default it
        stays as it is, and mixed precision does the rest.
        """


class WholeFaceExpert(Expert):
    """A published network of whole faces, applied to one region at a time.

    Pixels outside a region, or outside the photograph, become the mean colour of its training: 0
    after normalisation. Subclasses load the network and define `predict`.
    """

    mean: tuple[float, float, float]  # of R, G, B in [0, 1]
    std: tuple[float, float, float]
    input_px: int | None = None  # side of the network's input, where it is not the crop's

    def __init__(self, net: nn.Module, weights: Path, bf16: bool) -> None:
        super().__init__(net, weights, bf16)
        self.register_buffer("masks", torch.from_numpy(region_masks(self.crop)), persistent=False)
        self.register_buffer("shift", torch.tensor(self.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(self.std).view(3, 1, 1), persistent=False)

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, 3, px, px), see `network_input` -> for each output (N, size), any float type."""
        raise NotImplementedError

    def rewrite(self, dtype: torch.dtype = torch.bfloat16) -> None:
        if self.bf16:
            self.net, self.dtype = cast(self.rewritten(), dtype), dtype

    def rewritten(self) -> nn.Module:
        """`net` in another form (models/gpu_layers.py), before it is cast."""
        return self.net

    def network_input(self, faces: torch.Tensor) -> torch.Tensor:
        """Every region of every face: (B * R, 3, px, px) `dtype` normalised RGB, channels last."""
        colours = (faces[:, :3].float() / 255 - self.shift) / self.scale
        kept = (faces[:, 3:] > 127) & self.masks  # (B, R, px, px)
        resized = self.input_px not in (None, self.crop.px)
        if self.dtype != torch.float32 and not resized:  # channels last at once
            colours = colours.to(self.dtype).permute(0, 2, 3, 1).contiguous()
            return (colours[:, None] * kept[..., None]).flatten(0, 1).permute(0, 3, 1, 2)
        images = (colours[:, None] * kept[:, :, None]).flatten(0, 1)
        if resized:
            images = F.interpolate(images, (self.input_px,) * 2, mode="bilinear", antialias=True)
        return images.to(self.dtype, memory_format=torch.channels_last)

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        with self.inference(faces.device):
            predictions = self.predict(self.network_input(faces))
        shape = (len(faces), len(self.masks), -1)
        return {name: value.float().view(shape) for name, value in predictions.items()}
