"""A checkpoint and its experts: images in, verdicts out. In Python:

from predict import Detector

verdict = Detector.load().predict("photo.jpg")      # or uint8 RGB (H, W, 3), or a PIL image
verdict.p_fake, verdict.verdict, [reason.sentence for reason in verdict.reasons]

found = Detector.load().predict("photo.jpg", person=["ann1.jpg", "ann2.jpg"]).reference
found.p_conflict, found.pattern, found.regions, found.sentences
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.faces import FaceCutter
from data.images import ImageError, pixels_of
from data.layouts.tree import everything_below
from data.quality import QUALITIES, in_words
from data.reader import Reader
from data.samples import evenly
from features.disagreement import PARTS, by_family, of_regions, pairs_of, ranks
from features.explain import MEDIAN, reasons
from features.reference import PERSON
from inference.bundled import for_pictures
from inference.person import SOMEBODY, Given, Person
from inference.reference import Comparer
from inference.scorer import Scorer
from inference.verdict import (
    CLEAR,
    FAKE,
    UNSURE,
    FalseAlarmRate,
    Region,
    Verdict,
    decide,
    outside_limits,
)
from models import CLIP_MODEL
from models.checkpoint import PRIOR, Checkpoint
from models.ensemble import Ensemble, find_device
from models.record import Record

MAX_FACES = 100  # of a picture
MAX_FRAMES = 32  # of an animation that are looked at
NO_RECORD = (
    "does not say what it finds and misses (an older version, or made without that measurement): below "
    "its threshold every verdict is `cannot tell`; train it again, with fakes"
)
log = logging.getLogger("masc")
ARRAYS = ("reference", "real_scores", "disagreement")  # of a checkpoint


def listed(photographs: Sequence[Given] | Given) -> list[Given]:
    """Photographs, of which one need not be in a list, with those in folders."""
    single = isinstance(photographs, str | Path | Image.Image) or (
        isinstance(photographs, np.ndarray) and photographs.ndim == 3
    )
    found: list[Given] = []
    for each in [photographs] if single else photographs:
        inside = isinstance(each, str | Path) and Path(each).is_dir()
        found += everything_below(Path(each))[0] if inside else [each]
    return found


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class Explainer(Scorer):
    """Scores raw outputs of the experts, decides and explains."""

    def __init__(self, checkpoint: Path) -> None:
        found = Checkpoint.load(checkpoint)
        super().__init__(found)
        self.features, self.outputs = found.info["features"], found.info["outputs"]
        self.limits, self.record = found.info["limits"], Record.of(found.info)
        self.clear_below = self.record.clear["p_fake"]
        self.prior = None if self.head.kind == "oneclass" else PRIOR
        if "kinds" not in found.info:
            log.warning("%s: %s", checkpoint, NO_RECORD)
        self.percentiles, self.real_scores, self.disagreement = map(found.arrays.get, ARRAYS)

    def decide(
        self, p_fake: float, features: np.ndarray, quality: Mapping[str, float]
    ) -> tuple[str, list[str]]:
        """Verdict and reasons to abstain for one face. Arguments as of `explain`."""
        missing = float(np.isnan(features).mean())
        distance = float(self.head.distance(features[None])[0])
        outside = outside_limits(quality, missing, distance, self.limits)
        return decide(p_fake, self.threshold, self.clear_below, outside)

    def explain(
        self,
        p_fake: float,
        features: np.ndarray,
        quality: Mapping[str, float],
        outputs: Mapping[str, np.ndarray],
    ) -> Verdict:
        """The verdict for one face, and why.

        features: (F,); quality: its `data.quality.QUALITIES`; outputs: "expert.output" -> (R, D).
        """
        if np.isnan(p_fake):
            return Verdict("", error="no expert has an output for this face")
        names, percentiles = self.features, self.percentiles
        verdict, abstain = self.decide(p_fake, features, quality)
        parts, baseline = self.head.contributions(features[None], percentiles[MEDIAN])
        suspect = verdict == UNSURE and p_fake >= min(self.threshold, 0.5)
        embeddings = [name for name, x in self.outputs.items() if x["kind"] == "embedding"]
        identity = next((x[0] for name, x in outputs.items() if name.endswith(".identity")), None)
        words = in_words(quality)
        if silent := {name.partition(".")[0] for name, x in outputs.items() if np.isnan(x).all()}:
            words["overall"] += f", no output of {', '.join(sorted(silent))}"
        return Verdict(
            path="",
            p_fake=p_fake,
            verdict=verdict,
            reasons_to_abstain=abstain,
            quality=words,
            false_alarm_rate=FalseAlarmRate.at(p_fake, self.real_scores),
            reasons=reasons(names, features, parts[0], percentiles, suspect or verdict == FAKE),
            regions=self._regions(features, outputs),
            pairs=[p for name in embeddings for p in pairs_of(name, names, features, percentiles)],
            families=by_family(names, parts[0]),
            baseline_logit=float(baseline[0]),
            threshold=self.threshold,
            clear_below=self.clear_below,
            prior=self.prior,
            fpr=self.checkpoint.info["threshold"]["fpr"],
            meaning=self.record.meaning if verdict == CLEAR else "",
            record=self.record.lines,
            identity=None if identity is None else np.nan_to_num(identity.astype(np.float32)),
        )

    def _regions(self, features: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[Region]:
        parts = of_regions(self.features, features[None], self.percentiles)  # (1, R - 1)
        pairs = np.column_stack([parts[0], ranks(parts, self.disagreement)[0]]).round(4).tolist()
        pairs = [(None, None) if np.isnan(first) else (first, rank) for first, rank in pairs]
        found = [Region("full", None, None, {})]
        found += [Region(name, *pair, {}) for name, pair in zip(PARTS, pairs, strict=True)]
        for name, output in self.outputs.items():
            if output["kind"] in ("embedding", "vector", "person"):
                continue
            for region, row in zip(found, outputs[name].astype(np.float64), strict=True):
                if np.isfinite(row).all():
                    values = [round(float(value), 4) for value in row]
                    named = dict(zip(output["names"], values, strict=False))
                    single = output["kind"] in ("scalar", "forgery_logit")
                    region.predictions[name] = values[0] if single else named
        return found


class Detector(Explainer):
    """An `Explainer` with its experts: predicts from images.

    checkpoint: without one, a bundled one (inference/bundled.py). faces: `one` (the most central large
    face) or `all`. weights_dir: folder of the experts' weight files, instead of a download. comparison: of
    training/reference.py, instead of a bundled one.
    Raises: FileNotFoundError, ValueError: unusable checkpoint or weights.
    """

    def __init__(
        self,
        checkpoint: Path | None = None,
        device: str = "cpu",
        faces: str = "one",
        weights_dir: Path | None = None,
        comparison: Path | None = None,
    ) -> None:
        checkpoint = checkpoint or for_pictures(weights_dir)
        super().__init__(checkpoint)
        info = self.checkpoint.info
        self.ensemble = Ensemble(
            tuple(info["weights"]),
            find_device(device),
            bf16=info.get("precision") == "bfloat16",  # as for the training dumps
            weights_dir=weights_dir,
            clip_model=info.get("clip_model", CLIP_MODEL),
        )
        self.ensemble.tf32 = info.get("precision") == "tf32"
        if info["weights"] != self.ensemble.weights:
            found = self.ensemble.weights
            other = [f"{k} {v[:12]}" for k, v in info["weights"].items() if v != found.get(k)]
            raise ValueError(
                f"{checkpoint}: trained with other weights ({', '.join(other)}); restore them, or "
                "preprocess and train again"
            )
        self.weights_dir, self.comparison = weights_dir, comparison
        self.person: Person | None = None  # whom all faces are compared with
        self.cutter = FaceCutter(
            faces,
            crops=self.ensemble.crops.values(),
            max_faces=MAX_FACES,
            turned=True,
            beside=faces == "all",
        )

    @cached_property
    def comparer(self) -> Comparer:
        return Comparer(self.ensemble.device, self.weights_dir, self.comparison)

    def read_person(
        self, photographs: Sequence[Given], name: str = SOMEBODY, reader: Reader | None = None
    ) -> Person:
        """Genuine photographs of one person, as one. Raises: ImageError: none can be used."""
        return self.comparer.person(photographs, name, reader)

    def compared_with(self, person: Person) -> Detector:
        """Compares every face with this person, too: `Verdict.reference`."""
        other = copy(self)
        other.comparer, other.person, other.cutter = self.comparer, person, copy(self.cutter)
        other.cutter.crops = tuple(dict.fromkeys((*self.cutter.crops, *self.comparer.crops)))
        return other

    @classmethod
    def load(
        cls,
        checkpoint: Path | str | None = None,
        device: str = "cpu",
        weights_dir: Path | None = None,
        comparison: Path | None = None,
    ) -> Detector:
        return cls(checkpoint and Path(checkpoint), device, "one", weights_dir, comparison)

    def for_all_faces(self) -> Detector:
        """For pages and clips: all faces, of turned ones those where none stands upright."""
        other = copy(self)
        other.cutter = copy(self.cutter)
        other.cutter.faces, other.cutter.beside = "all", False
        return other

    def predict(
        self, image: Given, person: Sequence[Given] | Given | Person | None = None
    ) -> Verdict:
        """The verdict for the most central large face of one picture; `error` where there is none.

        image: a file, uint8 RGB (H, W, 3), or a PIL image (turned as its EXIF says); person: genuine
        photographs of the person whom it claims to show, or what `read_person` made of them: then the
        verdict has a `reference`.
        Raises: ImageError: (a ValueError) an unreadable file, or an array of another kind; none of the
        photographs can be used.
        """
        if person is not None:
            known = person if isinstance(person, Person) else self.read_person(listed(person))
            return self.compared_with(known).predict(image)
        if isinstance(image, str | Path):
            reader, path = Reader(), Path(image)
            faces = self.predict_images([reader.image(path)], [str(image)])
            return self.look_again(faces, path, reader)[0]
        name = Path("the picture")
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
            image = Image.fromarray(image) if image.shape[2:] == (3,) else None
        if not isinstance(image, Image.Image):
            raise ImageError(name, "neither a file, a PIL image, nor uint8 RGB of shape (H, W, 3)")
        return self.predict_images([pixels_of(image, name)], [str(name)])[0]

    def look_again(self, faces: list[Verdict], path: Path, reader: Reader) -> list[Verdict]:
        """The verdicts of a picture, or of the first later frame with a face if it is animated.

        faces: of its first frame. Of a long animation `MAX_FRAMES` frames are looked at. A note says
        what else is in the file.
        """
        with suppress(ImageError):  # damage further on
            further = reader.picture_count(path)
            if further > 1 and (not faces[0].error or reader.frame_count(path) == 1):
                note = (
                    f"only the first of {further} pictures (frames or pages) in the file was judged"
                )
                for verdict in faces:
                    verdict.notes.insert(0, note)
        if not faces[0].error:
            return faces
        with suppress(ImageError):  # damage further on; the first frame was sound
            count = reader.frame_count(path)
            for frame in evenly(range(1, count), MAX_FRAMES):
                found = self.predict_images([reader.image(path, frame)], [faces[0].path])
                if not found[0].error:
                    for verdict in found:
                        verdict.frame = frame
                        verdict.notes.insert(0, f"frame {frame + 1} of {count} of an animation")
                    return found
        return faces

    def predict_images(self, images: Sequence[np.ndarray], paths: Sequence[str]) -> list[Verdict]:
        """One verdict per face, or one with an error. images: (H, W, 3) uint8 RGB each."""
        return [verdict for faces in self.predict_batch(images, paths) for verdict in faces]

    def predict_batch(
        self, images: Sequence[np.ndarray], paths: Sequence[str]
    ) -> list[list[Verdict]]:
        """As `predict_images`, a list for each picture."""
        found: list[list[Verdict]] = [[] for _ in images]
        crops = self.cutter(list(images)) if images else ()
        if len(crops):
            outputs = {name: value.numpy() for name, value in self.ensemble(crops.views).items()}
            for name, of_person in (self.person.embedding if self.person else {}).items():
                shape = (len(crops), *of_person.shape)
                outputs[name + PERSON] = np.broadcast_to(of_person, shape)
            references = self.comparer.compare(crops, self.person) if self.person else ()
            lying = {*crops.image} - {*crops.image[crops.turn == 0]}
            for row, (features, p_fake) in enumerate(zip(*self.score(outputs), strict=True)):
                quality = {name: float(getattr(crops, name)[row]) for name in QUALITIES}
                of_face = {name: value[row] for name, value in outputs.items()}
                verdict = self.explain(float(p_fake), features, quality, of_face)
                verdict.path, verdict.face = paths[crops.image[row]], int(crops.face[row])
                verdict.box = tuple(map(float, crops.box[row]))
                verdict.aligned = crops.aligned[row].permute(1, 2, 0).cpu().numpy()
                verdict.turn = int(crops.turn[row])
                verdict.reference = references[row] if references else None
                if turn := verdict.turn:
                    lies = "the picture is not upright: its" if crops.image[row] in lying else "the"
                    verdict.notes.append(f"{lies} face is turned by {turn} degrees")
                if beyond := crops.left_out[row]:
                    verdict.notes.append(f"{beyond} more faces of the picture were not scored")
                found[crops.image[row]].append(verdict)
        errors = [[Verdict(path, error="no face found")] for path in paths]
        return [faces or error for faces, error in zip(found, errors, strict=True)]
