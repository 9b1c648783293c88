"""The expert ensemble: several experts on the same faces, in batches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from features.regions import Crop
from models import BUNDLED, CLIP_MODEL, EXPERTS, PROFILES, clip_image, expert_class
from models.base import Expert, Output, native_bf16, out_of_memory
from models.tensors import MissingWeightsError, sha256_of
from models.weights import WEIGHTS, Weights, folder_for, locate

BATCH_CPU = 8  # images, by default
SIZES = (16, 32, 64, 128, 256)  # faces at once that `best_batch` times on a GPU
GAIN = 1.05  # by which a size must be faster than the one before


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
    """On a recent GPU bfloat16 for published experts and tf32 for bundled ones, else float32."""
    if device.type != "cuda" or not native_bf16(device):
        return "float32"
    return "bfloat16" if set(names) - set(BUNDLED) else "tf32"


def usual_batch(device: torch.device, names: Iterable[str]) -> int:
    """Images; on a GPU 64 are nearly as fast as any where a published expert takes part (measured
    on an H200: 95% of the best), and 256 for bundled ones alone (94%).
    """
    if device.type != "cuda":
        return BATCH_CPU
    return 64 if set(names) - set(BUNDLED) else 256


def profile_of(profile: str, names: tuple[str, ...]) -> str:
    """`profile` if it holds these experts, else one that does, else their names joined by +."""
    fitting = (each for each in (profile, *PROFILES) if set(names) <= set(PROFILES[each]))
    return next(fitting, "+".join(names))


def published(name: str, clip_model: str = CLIP_MODEL) -> Weights:
    if name == "head":  # the tower that it was fitted with
        return WEIGHTS[clip_image.ROWS["ViT-B/16"]]
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


@contextmanager
def arithmetic(device: torch.device, tf32: bool, benchmark: bool) -> Iterator[None]:
    """On a GPU: float32 products in TF32 or not, cuDNN's algorithms measured or guessed. Everybody
    else's settings are back afterwards. It tells what is launched, not what runs meanwhile.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = tf32, tf32, benchmark
    try:
        with torch.cuda.device(device):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


class Pending:
    """Outputs that the device may still be computing.

    packed: (F, R, sum of sizes) on the device, sizes: of each output.
    """

    def __init__(self, packed: torch.Tensor, sizes: dict[str, int]) -> None:
        self._packed, self._sizes, self._copied = packed, sizes, None
        if packed.is_cuda:
            self._packed = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            self._packed.copy_(packed, non_blocking=True)  # one transfer
            self._copied = torch.cuda.Event(blocking=True)  # waiting takes no core
            self._copied.record(torch.cuda.current_stream(packed.device))

    def result(self) -> dict[str, torch.Tensor]:
        """What `Ensemble.__call__` returns; waits for the device."""
        if self._copied:
            self._copied.synchronize()
        parts = self._packed.split([*self._sizes.values()], dim=-1)
        return dict(zip(self._sizes, parts, strict=True))


class Ensemble:
    """Frozen experts on one device. All weights are located before the first network is built.

    Args:
        bf16: compute in bfloat16; faster on recent hardware, and different in the third digit.
        weights_dir: a folder with weight files, which are then never downloaded.
        clip_heads: as of `ClipImage`.

    A GPU plans every convolution anew for every size of a batch, which takes seconds. Batches are
    therefore padded: to `faces_at_once`, where that is set, else to the next power of two.

    Attributes:
        outputs: `<expert>.<output>` -> its kind and size.
        weights: expert -> SHA-256 of its file; tells which dumps and detectors fit together.
        faces_at_once: faces on the device at once (None: all), to be set to the size of the batches
            of a long run; halves whenever memory runs out.
        tf32: on a GPU, let float32 convolutions and products round their inputs to 10 bits.
        benchmark: on a GPU, let cuDNN measure its algorithms for every new shape. Then two runs
            need not choose the same, and their outputs may differ by rounding.

    Raises: ValueError, FileNotFoundError: an expert is unknown, or its weights missing or wrong.
    """

    tf32 = benchmark = False

    def __init__(
        self,
        names: Iterable[str] = PROFILES["lite"],
        device: str | torch.device = "cpu",
        bf16: bool = False,
        weights_dir: Path | None = None,
        clip_model: str = CLIP_MODEL,
        clip_heads: Path | None = None,
    ) -> None:
        device = torch.device(device)
        experts = []
        for name, file in find_weights(names, weights_dir, clip_model).items():
            options = {"tower": clip_model, "heads": clip_heads} if name == "clip" else {}
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
        self.weights = {
            expert.name: sha256_of(expert.weights, *expert.beside) for expert in experts
        }

    def __call__(self, views: Mapping[Crop, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Raw outputs for every region of every face.

        views: crop -> (F, 4, px, px) uint8 RGBA on the CPU or the device, F >= 1, for the crop of
        every expert.
        Returns: `<expert>.<output>` -> (F, R, size) float16 on the CPU, NaN for all outputs of an
        expert about a face where one of them is not finite in float16.
        """
        return self.start(views).result()

    def start(self, views: Mapping[Crop, torch.Tensor]) -> Pending:
        """As `__call__`, but a GPU is not waited for: prepare the next views, then ask for the
        `result`. Memory that runs out does so here.
        """
        faces, start, parts = len(next(iter(views.values()))), 0, []
        with arithmetic(self.device, self.tf32, self.benchmark):
            while start < faces:
                rows = slice(start, start + (self.faces_at_once or faces))
                part = {crop: views[crop][rows] for crop in set(self.crops.values())}
                found = self._infer(part)
                if found is not None:
                    parts.append(found)
                    start = rows.stop
            sizes = {name: output.size for name, output in self.outputs.items()}
            return Pending(torch.cat(parts), sizes)

    @property
    def pads(self) -> bool:
        """Whether a new size of a batch is dear."""
        return self.device.type == "cuda"

    def _padded_size(self, faces: int) -> int:
        if not self.pads:
            return faces
        return self.faces_at_once or 1 << (faces - 1).bit_length()

    def _infer(self, views: Mapping[Crop, torch.Tensor]) -> torch.Tensor | None:
        """`_forward`. None where memory ran out: `faces_at_once` is half of what was tried now."""
        faces = len(next(iter(views.values())))
        tried = self._padded_size(faces)
        try:
            return self._forward({c: padded(view, tried) for c, view in views.items()})[:faces]
        except RuntimeError as error:
            if tried == 1 or not out_of_memory(error):
                raise
        # Outside the handler, whose exception keeps the tensors of the failed call alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.faces_at_once = (tried + 1) // 2
        return None

    def _forward(self, views: Mapping[Crop, torch.Tensor]) -> torch.Tensor:
        """All outputs side by side, (F, R, sum of sizes) float16 on the device."""
        on_device = {crop: self._to_device(view) for crop, view in views.items()}
        outputs = []
        for expert in self.experts:
            view = on_device[expert.crop]
            size = expert.faces_on_cpu if self.device.type == "cpu" else len(view)
            found = [expert(part) for part in view.split(size)]
            values = [torch.cat([one[name] for one in found]).half() for name in expert.outputs]
            own = torch.cat(values, dim=-1)
            broken = ~own.isfinite().flatten(1).all(1)
            outputs.append(own.masked_fill(broken[:, None, None], torch.nan))
        return torch.cat(outputs, dim=-1)

    def _to_device(self, view: torch.Tensor) -> torch.Tensor:
        """From pinned memory, so that this thread does not wait for the copy."""
        if self.device.type == "cuda" and view.device.type == "cpu":
            view = view if view.is_pinned() else view.pin_memory()
        return view.to(self.device, non_blocking=True)

    def best_batch(self) -> int:
        """Faces at once with which the device is fastest, and of two sizes that are about as fast
        the smaller; `BATCH_CPU` on a CPU. Takes seconds.
        """
        if self.device.type == "cpu":
            return BATCH_CPU
        best, least = 0, math.inf
        for faces in SIZES:
            taken = self._seconds_a_face(faces)
            if not taken * GAIN < least:
                break
            best, least = faces, taken
        smaller = (SIZES[0] >> n for n in range(1, SIZES[0].bit_length() - 1))
        return best or next((n for n in smaller if self._seconds_a_face(n) < math.inf), 1)

    def _seconds_a_face(self, faces: int) -> float:
        """So many at once, in the median of three rounds after one in which the device plans;
        infinite where memory runs out. Leaves no memory reserved.
        """
        taken, random = [], torch.Generator().manual_seed(0)
        try:
            with arithmetic(self.device, self.tf32, self.benchmark):
                views = {}
                for crop in set(self.crops.values()):
                    shape = (1, 4, crop.px, crop.px)
                    noise = torch.randint(256, shape, dtype=torch.uint8, generator=random)
                    views[crop] = self._to_device(noise.repeat(faces, 1, 1, 1))
                for _ in range(4):
                    torch.cuda.synchronize(self.device)
                    start = time.perf_counter()
                    self._forward(views)
                    torch.cuda.synchronize(self.device)
                    taken.append(time.perf_counter() - start)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            taken = [math.inf] * 4
        views = None  # and those of the failed call went with its exception
        torch.cuda.empty_cache()
        return median(taken[1:]) / faces


def padded(view: torch.Tensor, faces: int) -> torch.Tensor:
    """So many faces; those that are added have no pixels."""
    lacking = faces - len(view)
    return torch.cat([view, view.new_zeros(lacking, *view.shape[1:])]) if lacking > 0 else view
