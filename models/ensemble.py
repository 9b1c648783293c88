"""Several experts that look at the same faces: building them, and asking them in batches.

All weights are found before the first network is built, so that what is missing is said at once and before any work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from features.regions import Crop
from models import BUNDLED, CLIP_MODEL, EXPERTS, PROFILES, clip_image, expert_class
from models.base import Expert, Output, native_bf16
from models.tensors import MissingWeightsError, sha256_of
from models.weights import WEIGHTS, Weights, folder_for, locate

BATCH_CPU, BATCH_GPU = 8, 64  # images, unless told otherwise
SIZES = (16, 32, 64, 128, 256)  # faces at a time that `largest_batch` tries on a GPU


def find_device(name: str, option: str = "--device") -> torch.device:
    """Raises: ValueError, which begins with `option`, where there is no such device here or it is neither CPU nor CUDA."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{option} {name}: not available here ({str(error).splitlines()[0]}); use cpu"
        ) from error
    return device


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine ran short of memory; not every library says so by the same exception."""
    outputs = str(error).lower()
    words = ("out of memory", "alloc_failed", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in outputs for word in words)
    )


def experts_of(profile: str, experts: Iterable[str] = ()) -> tuple[str, ...]:
    """The experts that `--profile` and `--experts` ask for, in the order of `EXPERTS`: all of the profile where none is named.

    Raises: ValueError for unknown names.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    wanted = set(experts) or set(PROFILES[profile])
    unknown = sorted(wanted - set(EXPERTS))
    if unknown:
        raise ValueError(
            f"unknown expert {', '.join(unknown)}; the experts are {', '.join(EXPERTS)}"
        )
    return tuple(name for name in EXPERTS if name in wanted)


def usual_precision(device: torch.device, names: tuple[str, ...]) -> str:
    """bfloat16 for the published experts on a GPU that computes with it."""
    quick = device.type == "cuda" and native_bf16(device)
    return "bfloat16" if quick and set(names) - set(BUNDLED) else "float32"


def profile_of(profile: str, names: tuple[str, ...]) -> str:
    """What a dump of these experts is called: the profile that holds them all, the given one first, or all their names."""
    fitting = [each for each in (profile, *PROFILES) if set(names) <= set(PROFILES[each])]
    return fitting[0] if fitting else "+".join(names)


def published(name: str, clip_model: str = CLIP_MODEL) -> Weights:
    """Where an expert's weights come from. name: none of `BUNDLED`."""
    return clip_image.published(clip_model) if name == "clip" else WEIGHTS[name]


def find_weights(
    names: Iterable[str], weights_dir: Path | None, clip_model: str
) -> dict[str, Path]:
    """The file of each expert, downloaded where there is no local folder.

    Raises: MissingWeightsError that names all files that are missing; WeightsError for one that is not what it should be.
    """
    files, missing = {}, []
    folder = folder_for(
        weights_dir
    )  # one complaint, where there is no such folder, not one for each expert
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
    """Experts, frozen, on one device.

    names: of `EXPERTS`. bf16: compute in bfloat16, which is faster on recent hardware and differs in the third digit.
    weights_dir: a folder with weight files, which are then never downloaded. clip_model: see `models.clip_image`.

    outputs: `<expert>.<output>` -> what it is. crops: expert -> what it sees. weights: expert -> SHA-256 of its file, which
    tells whether two dumps, or a dump and a detector, fit together. faces_at_once: how many faces are on the device at once,
    and one call of an expert on a GPU; None is all that come. It halves whenever the device runs out of memory.

    Raises: ValueError, FileNotFoundError where an expert is unknown or its weights are missing or wrong.
    """

    def __init__(
        self,
        names: Iterable[str] = PROFILES["lite"],
        device: str | torch.device = "cpu",
        bf16: bool = False,
        weights_dir: Path | None = None,
        clip_model: str = CLIP_MODEL,
    ) -> None:
        self.device, names = torch.device(device), tuple(names)
        if self.device.type == "cuda" and not bf16:
            torch.backends.cudnn.allow_tf32 = (
                False  # on by default, and hardly more precise than bfloat16
            )
        files = find_weights(names, weights_dir, clip_model)
        built = []
        for name, file in files.items():
            more = {"tower": clip_model} if name == "clip" else {}
            built.append(expert_class(name)(file, bf16, **more).frozen(self.device))
        self._take(built)

    @classmethod
    def of(cls, experts: list[Expert], device: str | torch.device = "cpu") -> Ensemble:
        """Experts that are built already."""
        ensemble = cls.__new__(cls)
        ensemble.device = torch.device(device)
        ensemble._take(experts)
        return ensemble

    def _take(self, experts: list[Expert]) -> None:
        self.experts = experts
        self.faces_at_once: int | None = None
        self.crops = {expert.name: expert.crop for expert in experts}
        self.outputs: dict[str, Output] = {
            f"{expert.name}.{name}": output
            for expert in experts
            for name, output in expert.outputs.items()
        }
        self.weights = {expert.name: sha256_of(expert.weights) for expert in experts}

    def __call__(self, views: Mapping[Crop, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the experts say of every region of every face.

        views: crop -> (F, 4, px, px) uint8 RGBA on the CPU, F at least 1, for every crop that an expert sees.
        Returns: `<expert>.<output>` -> (F, R, size) float16 on the CPU: one transfer for the whole batch. An expert whose
        answers about a face are not all finite, and in the range of float16, has none: they are NaN.
        """
        packed = torch.cat([self._infer(part) for part in self._parts(views)]).cpu()
        sizes = [output.size for output in self.outputs.values()]
        outputs = dict(zip(self.outputs, packed.split(sizes, dim=-1), strict=True))
        for expert in self.experts:
            mine = [outputs[f"{expert.name}.{name}"] for name in expert.outputs]
            broken = torch.stack([~value.isfinite().flatten(1).all(1) for value in mine]).any(0)
            for value in mine:
                value[broken] = torch.nan
        return outputs

    def _parts(self, views: Mapping[Crop, torch.Tensor]) -> Iterator[dict[Crop, torch.Tensor]]:
        """The faces, at most `faces_at_once` at a time, which may shrink on the way."""
        faces, start = len(next(iter(views.values()))), 0
        while start < faces:
            size = min(self.faces_at_once or faces, faces - start)
            part = {crop: views[crop][start : start + size] for crop in set(self.crops.values())}
            yield part
            start += size

    def _infer(self, views: Mapping[Crop, torch.Tensor]) -> torch.Tensor:
        """All answers side by side, (F, R, sum of sizes) float16 on the device. Halves the faces where memory is short."""
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
        halves = (
            {crop: view[rows] for crop, view in views.items()}
            for rows in (slice(half), slice(half, None))
        )
        return torch.cat([self._infer(part) for part in halves])

    def _forward(self, views: Mapping[Crop, torch.Tensor]) -> torch.Tensor:
        here = {crop: self._sent(view) for crop, view in views.items()}
        outputs = []
        for expert in self.experts:
            view = here[expert.crop]
            parts = view.split(expert.faces_on_cpu) if self.device.type == "cpu" else [view]
            found = [expert(part) for part in parts]
            outputs += [torch.cat([one[name] for one in found]).half() for name in expert.outputs]
        return torch.cat(outputs, dim=-1)

    def _sent(self, view: torch.Tensor) -> torch.Tensor:
        """On the device. From pinned memory, so that this thread need not wait for the copy."""
        return (
            view.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else view
        )

    def largest_batch(self) -> int:
        """How many faces fit on the device at once with room to spare; on a CPU, where memory does not limit, BATCH_CPU.

        The largest of `SIZES` that does not run out of memory, or half of it where the next one did.
        """
        if self.device.type == "cpu":
            return BATCH_CPU
        fits = 1
        for faces in SIZES:
            blank = {
                crop: torch.zeros(faces, 4, crop.px, crop.px, dtype=torch.uint8)
                for crop in set(self.crops.values())
            }
            try:
                self._forward(blank)
                torch.cuda.synchronize(self.device)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                fits = max(1, fits // 2)
                break
            fits = faces
        torch.cuda.empty_cache()
        return fits
