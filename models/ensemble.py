"""The expert ensemble: several experts on the same faces, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from features.regions import Crop
from models import BUNDLED, CLIP_MODEL, EXPERTS, PROFILES, clip_image, expert_class
from models.base import Expert, Output, native_bf16
from models.tensors import MissingWeightsError, sha256_of
from models.weights import WEIGHTS, Weights, folder_for, locate

BATCH_CPU, BATCH_GPU = 8, 64  # images, by default
SIZES = (16, 32, 64, 128, 256)  # faces at once that `largest_batch` tries on a GPU


def find_device(name: str, option: str = "--device") -> torch.device:
    """Raises: ValueError, naming `option`: not available, or neither CPU nor CUDA."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{option} {name}: not available here ({reason}); use cpu") from error
    return device


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; libraries raise different exceptions."""
    words = ("out of memory", "alloc_failed", "can't allocate memory")
    told = any(word in str(error).lower() for word in words)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def experts_of(profile: str, experts: Iterable[str] = ()) -> tuple[str, ...]:
    """`experts`, else all of the profile, in the order of `EXPERTS`. Raises: ValueError."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    wanted = set(experts) or set(PROFILES[profile])
    if unknown := sorted(wanted - set(EXPERTS)):
        names = ", ".join(EXPERTS)
        raise ValueError(f"unknown expert {', '.join(unknown)}; the experts are {names}")
    return tuple(name for name in EXPERTS if name in wanted)


def usual_precision(device: torch.device, names: tuple[str, ...]) -> str:
    """bfloat16 for published experts on a GPU that computes in it, else float32."""
    published = set(names) - set(BUNDLED)
    return "bfloat16" if published and device.type == "cuda" and native_bf16(device) else "float32"


def profile_of(profile: str, names: tuple[str, ...]) -> str:
    """`profile` if it holds these experts, else one that does, else their names joined by +."""
    fitting = (each for each in (profile, *PROFILES) if set(names) <= set(PROFILES[each]))
    return next(fitting, "+".join(names))


def published(name: str, clip_model: str = CLIP_MODEL) -> Weights:
    return clip_image.published(clip_model) if name == "clip" else WEIGHTS[name]


def find_weights(
    names: Iterable[str], weights_dir: Path | None, clip_model: str
) -> dict[str, Path]:
    """The file of each expert, downloaded where no folder is named.

    Raises: MissingWeightsError that names all missing files; WeightsError: a file is another one.
    """
    files, missing = {}, []
    folder = folder_for(weights_dir)
    for name in names:
        if name in BUNDLED:
            own = folder / BUNDLED[name].name if folder else BUNDLED[name]
            files[name] = own if own.is_file() else BUNDLED[name]
            continue
        try:
            files[name] = locate(published(name, clip_model), weights_dir)
        except MissingWeightsError as error:
            missing.append(str(error))
    if missing:
        raise MissingWeightsError("\n".join(missing))
    return files


class Ensemble:
    """Frozen experts on one device. All weights are located before the first network is built.

    Args:
        bf16: compute in bfloat16; faster on recent hardware, and different in the third digit.
        weights_dir: a folder with weight files, which are then never downloaded.

    Attributes:
        outputs: `<expert>.<output>` -> its kind and size.
        weights: expert -> SHA-256 of its file; tells which dumps and detectors fit together.
        faces_at_once: faces on the device at once (None: all); halves whenever memory runs out.

    Raises: ValueError, FileNotFoundError: an expert is unknown, or its weights missing or wrong.
    """

    def __init__(
        self,
        names: Iterable[str] = PROFILES["lite"],
        device: str | torch.device = "cpu",
        bf16: bool = False,
        weights_dir: Path | None = None,
        clip_model: str = CLIP_MODEL,
    ) -> None:
        device = torch.device(device)
        if device.type == "cuda" and not bf16:  # on by default, hardly more precise than bfloat16
            torch.backends.cudnn.allow_tf32 = False
        experts = []
        for name, file in find_weights(names, weights_dir, clip_model).items():
            options = {"tower": clip_model} if name == "clip" else {}
            experts.append(expert_class(name)(file, bf16, **options).frozen(device))
        self._set_up(experts, device)

    @classmethod
    def of(cls, experts: list[Expert], device: str | torch.device = "cpu") -> Ensemble:
        ensemble = cls.__new__(cls)
        ensemble._set_up(experts, torch.device(device))
        return ensemble

    def _set_up(self, experts: list[Expert], device: torch.device) -> None:
        self.experts, self.device = experts, device
        self.faces_at_once: int | None = None
        self.crops = {expert.name: expert.crop for expert in experts}
        self.outputs: dict[str, Output] = {
            f"{expert.name}.{name}": x for expert in experts for name, x in expert.outputs.items()
        }
        self.weights = {expert.name: sha256_of(expert.weights) for expert in experts}

    def __call__(self, views: Mapping[Crop, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Raw outputs for every region of every face.

        views: crop -> (F, 4, px, px) uint8 RGBA on the CPU, F >= 1, for the crop of every expert.
        Returns: `<expert>.<output>` -> (F, R, size) float16 on the CPU, NaN for all outputs of an
        expert about a face where one of them is not finite in float16.
        """
        faces, start, parts = len(next(iter(views.values()))), 0, []
        while start < faces:
            size = self.faces_at_once or faces
            part = {crop: views[crop][start : start + size] for crop in set(self.crops.values())}
            parts.append(self._infer(part))
            start += size
        packed = torch.cat(parts).cpu()  # one transfer
        sizes = [output.size for output in self.outputs.values()]
        outputs = dict(zip(self.outputs, packed.split(sizes, dim=-1), strict=True))
        for expert in self.experts:
            own = [outputs[f"{expert.name}.{name}"] for name in expert.outputs]
            broken = ~torch.cat([value.flatten(1) for value in own], dim=1).isfinite().all(1)
            for value in own:
                value[broken] = torch.nan
        return outputs

    def _infer(self, views: Mapping[Crop, torch.Tensor]) -> torch.Tensor:
        """`_forward`, in halves where memory runs out."""
        faces = len(next(iter(views.values())))
        try:
            return self._forward(views)
        except RuntimeError as error:
            if faces == 1 or not out_of_memory(error):
                raise
        # Outside the handler, whose exception keeps the tensors of the failed call alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (faces + 1) // 2
        self.faces_at_once = min(half, self.faces_at_once or half)
        halves = slice(half), slice(half, None)
        parts = [self._infer({crop: view[rows] for crop, view in views.items()}) for rows in halves]
        return torch.cat(parts)

    def _forward(self, views: Mapping[Crop, torch.Tensor]) -> torch.Tensor:
        """All outputs side by side, (F, R, sum of sizes) float16 on the device."""
        on_device = {crop: self._to_device(view) for crop, view in views.items()}
        outputs = []
        for expert in self.experts:
            view = on_device[expert.crop]
            size = expert.faces_on_cpu if self.device.type == "cpu" else len(view)
            found = [expert(part) for part in view.split(size)]
            outputs += [torch.cat([one[name] for one in found]).half() for name in expert.outputs]
        return torch.cat(outputs, dim=-1)

    def _to_device(self, view: torch.Tensor) -> torch.Tensor:
        """From pinned memory, so that this thread does not wait for the copy."""
        if self.device.type == "cpu":
            return view
        return view.pin_memory().to(self.device, non_blocking=True)

    def largest_batch(self) -> int:
        """Faces that fit on the device at once with room to spare; `BATCH_CPU` on a CPU."""
        if self.device.type == "cpu":
            return BATCH_CPU
        fits = 1
        for faces in SIZES:
            shapes = {crop: (faces, 4, crop.px, crop.px) for crop in self.crops.values()}
            try:
                self._forward({c: torch.zeros(x, dtype=torch.uint8) for c, x in shapes.items()})
                torch.cuda.synchronize(self.device)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                fits = max(1, fits // 2)
                break
            fits = faces
        torch.cuda.empty_cache()
        return fits
