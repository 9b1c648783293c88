"""A checkpoint and its experts, ready to judge pictures. In Python:

from predict import Detector

verdict = Detector.load().predict("photo.jpg")      # or uint8 RGB (H, W, 3), or a PIL image
verdict.p_fake, verdict.verdict, [reason.sentence for reason in verdict.reasons]
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.faces import FaceCrops, FaceCutter
from data.images import SUFFIXES, ImageError, pixels_of, read_image
from data.layouts.tree import files_below
from data.quality import QUALITIES, in_words
from data.samples import FRAMES, is_video
from data.video import VIDEO_SUFFIXES
from features.disagreement import PARTS, by_family, of_regions, pairs_of, ranks
from features.explain import MEDIAN, reasons
from features.regions import REGIONS
from inference.clips import predict_clip
from inference.scorer import Scorer
from inference.verdict import FAKE, UNSURE, Region, Verdict, beyond, decide, rarity
from models import CLIP_MODEL
from models.checkpoint import Checkpoint
from models.ensemble import Ensemble, find_device

BUNDLED = Path(__file__).parent.parent / "checkpoints" / "default"
NEEDED = (
    "weights",
    "outputs",
    "features",
    "head",
    "calibration",
    "threshold",
    "limits",
)  # of a checkpoint
ARRAYS = ("reference", "real_scores", "disagreement")


class Explainer(Scorer):
    """A checkpoint, ready to score raw outputs and to say why.

    checkpoint: a folder that train.py wrote.
    Raises: FileNotFoundError, ValueError where it cannot be used.
    """

    def __init__(self, checkpoint: Path = BUNDLED) -> None:
        found = Checkpoint.load(checkpoint)
        missing = [name for name in NEEDED if name not in found.info]
        missing += [name for name in ARRAYS if name not in found.arrays]
        if missing:
            raise ValueError(
                f"{checkpoint}: not a whole detector (lacks {', '.join(missing)}); train again"
            )
        super().__init__(found)

    def decide_verdict(
        self, p_fake: float, values: np.ndarray, quality: dict[str, float]
    ) -> tuple[str, list[str]]:
        """The verdict about one face, and what speaks against giving one. values: (F,). quality: `QUALITIES` of the face."""
        doubts = beyond(
            quality, float(self.head.distance(values[None])[0]), self.checkpoint.info["limits"]
        )
        return decide(p_fake, self.threshold, doubts, self.head.kind != "oneclass")

    def explain(self, verdict: Verdict, values: np.ndarray, quality: dict[str, float]) -> Verdict:
        """Fill in what `verdict.p_fake` means. values: (F,) of the face. quality: `QUALITIES` of it."""
        info, arrays = self.checkpoint.info, self.checkpoint.arrays
        names, reference = info["features"], arrays["reference"]
        pushes, usual = (
            part[0] for part in self.head.contributions(values[None], reference[MEDIAN])
        )
        verdict.threshold = self.threshold
        verdict.verdict, verdict.doubts = self.decide_verdict(verdict.p_fake, values, quality)
        verdict.quality, verdict.rarity = (
            in_words(quality),
            rarity(verdict.p_fake, arrays["real_scores"]),
        )
        leans = verdict.verdict == FAKE or (
            verdict.verdict == UNSURE and verdict.p_fake >= min(self.threshold, 0.5)
        )
        verdict.reasons = reasons(names, values, pushes, reference, leans)
        verdict.families, verdict.usual = by_family(names, pushes), float(usual)
        embeddings = [
            name for name, output in info["outputs"].items() if output["kind"] == "embedding"
        ]
        verdict.pairs = [
            pair for name in embeddings for pair in pairs_of(name, names, values, reference)
        ]
        return verdict

    def regions(self, values: np.ndarray, predictions: dict[str, np.ndarray]) -> list[Region]:
        """What each region says and how much it disagrees. values: (F,). answers: "expert.output" -> (R, D)."""
        info, said = self.checkpoint.info, [{} for _ in REGIONS]
        for name, output in info["outputs"].items():
            for place, prediction in enumerate(predictions[name].astype(np.float64)):
                if not np.isfinite(prediction).all() or output["kind"] in ("embedding", "vector"):
                    continue
                one = output["kind"] in ("scalar", "forgery_logit")
                numbers = [round(float(value), 4) for value in prediction]
                said[place][name] = (
                    numbers[0] if one else dict(zip(output["names"], numbers, strict=True))
                )
        reference = self.checkpoint.arrays
        apart = of_regions(info["features"], values[None], reference["reference"])
        rank = ranks(apart, reference["disagreement"])[0]
        decide_verdict = {
            part: (round(float(a), 4), round(float(r), 4))
            for part, a, r in zip(PARTS, apart[0], rank, strict=True)
        }
        decide_verdict = {
            part: pair for part, pair in decide_verdict.items() if not np.isnan(pair[0])
        }
        return [
            Region(name, *decide_verdict.get(name, (None, None)), prediction)
            for name, prediction in zip(REGIONS, said, strict=True)
        ]


class Detector(Explainer):
    """A checkpoint and its experts, ready to judge pictures.

    faces: `one` (the most central large face) or `all`. weights_dir: a folder with the experts' weight files, which are
    then not downloaded.
    Raises: FileNotFoundError, ValueError where the checkpoint cannot be used with the weights at hand.
    """

    def __init__(
        self,
        checkpoint: Path = BUNDLED,
        device: str = "cpu",
        faces: str = "one",
        weights_dir: Path | None = None,
    ) -> None:
        super().__init__(checkpoint)
        info = self.checkpoint.info
        self.ensemble = Ensemble(
            tuple(info["weights"]),
            find_device(device),
            bf16=info.get("precision") == "bfloat16",  # as the answers that it was trained on
            weights_dir=weights_dir,
            clip_model=info.get("clip_model", CLIP_MODEL),
        )
        here = self.ensemble.weights
        if info["weights"] != here:
            raise ValueError(
                f"{checkpoint}: trained on answers of {_short(info['weights'])}, but the experts here are {_short(here)}; "
                "preprocess and train again, or restore those weights"
            )
        self.cutter = FaceCutter(faces, crops=self.ensemble.crops.values())

    @classmethod
    def load(
        cls, checkpoint: Path | str = BUNDLED, device: str = "cpu", weights_dir: Path | None = None
    ) -> Detector:
        """The bundled detector, or the one in a folder that train.py wrote. Raises: as the class."""
        return cls(Path(checkpoint), device, "one", weights_dir)

    def predict(self, image: Path | str | np.ndarray | Image.Image) -> Verdict:
        """What is said of the most central large face of one picture.

        image: a file, uint8 RGB (H, W, 3), or a PIL image (turned as its EXIF says). Returns: a verdict, whose `error` says
        why where there is none (no face was found, say). Raises: ImageError (a ValueError) for a file that cannot be read or
        an array of another kind.
        """
        if isinstance(image, str | Path):
            return self.predict_images([read_image(Path(image))], [str(image)])[0]
        name = Path("the picture")
        if (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and image.size
        ):
            image = Image.fromarray(image)
        if not isinstance(image, Image.Image):
            raise ImageError(name, "neither a file, a PIL image, nor uint8 RGB of shape (H, W, 3)")
        return self.predict_images([pixels_of(image, name)], [str(name)])[0]

    def of_all_faces(self) -> Detector:
        """The same detector, looking at every face."""
        other = copy(self)
        other.cutter = FaceCutter("all", crops=self.ensemble.crops.values())
        return other

    def predict_images(self, images: list[np.ndarray], paths: list[str]) -> list[Verdict]:
        """One verdict per face, in the order of the pictures; a picture without a face gets one with an error.

        images: uint8 RGB (H, W, 3) each.
        """
        if not images:
            return []
        crops = self.cutter(images)
        faceless = set(range(len(images))) - set(crops.image.tolist())
        found = {index: [Verdict(paths[index], error="no face found")] for index in faceless}
        for verdict, index in zip(self.predict_crops(crops), crops.image.tolist(), strict=True):
            verdict.path = paths[index]
            found.setdefault(index, []).append(verdict)
        return [verdict for index in range(len(images)) for verdict in found[index]]

    def predict_crops(self, crops: FaceCrops) -> list[Verdict]:
        """One verdict per face that was cut out, without a path."""
        if not len(crops.image):
            return []
        arrays = {name: value.numpy() for name, value in self.ensemble(crops.views).items()}
        values, p_fakes = self.score(arrays)
        return [
            self._verdict(
                crops,
                row,
                float(p_fake),
                values[row],
                {name: each[row] for name, each in arrays.items()},
            )
            for row, p_fake in enumerate(p_fakes)
        ]

    def _verdict(
        self,
        crops: FaceCrops,
        row: int,
        p_fake: float,
        values: np.ndarray,
        predictions: dict[str, np.ndarray],
    ) -> Verdict:
        verdict = Verdict(
            "", face=int(crops.face[row]), box=tuple(float(x) for x in crops.box[row])
        )
        if np.isnan(p_fake):
            verdict.error = "no expert has an answer about this face"
            return verdict
        verdict.p_fake, verdict.aligned = p_fake, crops.aligned[row].permute(1, 2, 0).cpu().numpy()
        self.explain(
            verdict, values, {name: float(getattr(crops, name)[row]) for name in QUALITIES}
        )
        verdict.regions = self.regions(values, predictions)
        predict_images = next((name for name in predictions if name.endswith(".identity")), None)
        if predict_images:
            verdict.identity = np.nan_to_num(
                predictions[predict_images][REGIONS.index("full")].astype(np.float32)
            )
        silent = [
            e.name
            for e in self.ensemble.experts
            if np.isnan(predictions[f"{e.name}.{[*e.outputs][0]}"]).all()
        ]
        if silent:
            verdict.quality["overall"] += f", no answer of {', '.join(silent)}"
        return verdict


def _short(weights: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:12]}" for name, digest in weights.items())


def predict_files(
    detector: Detector, inputs: list[Path], batch_size: int, max_pixels: int, frames: int = FRAMES
) -> Iterator[Verdict]:
    """Verdicts for pictures, videos and folders of them, as they come; what cannot be read costs only itself.

    frames: of every video.
    """
    paths: list[Path] = []
    for given in inputs:
        inside = files_below(given, SUFFIXES | VIDEO_SUFFIXES) if given.is_dir() else [given]
        if not inside:
            yield Verdict(str(given), error="a folder without pictures or videos")
        paths += inside
    paths = list(dict.fromkeys(paths))  # a picture, and the folder that it lies in: judged once
    bar = tqdm(total=len(paths), unit="image", disable=None if len(paths) > 1 else True)
    for start in range(0, len(paths), batch_size):
        batch, images, failed = paths[start : start + batch_size], [], {}
        for path in batch:
            if is_video(path):
                continue
            try:
                images.append(read_image(path, max_pixels))
            except ImageError as error:
                failed[path] = Verdict(str(path), error=error.reason)
        judged = detector.predict_images(
            images, [str(path) for path in batch if path not in failed and not is_video(path)]
        )
        for path in batch:
            if is_video(path):
                yield from predict_clip(detector.of_all_faces(), path, frames, max_pixels)
                continue
            yield from (
                [failed[path]] if path in failed else [v for v in judged if v.path == str(path)]
            )
        bar.update(len(batch))
    bar.close()
