"""Systems that look at pixels: every face as a crop, cut again from its picture at the landmarks in the dump."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.cutting import cut_again
from data.degrade import Condition
from data.dump import landmarks_of
from data.feature_dataset import FeatureDataset
from data.images import ImageError
from evaluation.metrics import threshold_at_fpr
from evaluation.predictions import FACE, face_keys
from evaluation.systems import Fitted, System
from features.regions import Crop
from models.baselines import Network, crop_for, fit_network
from models.networks import NETWORKS


@dataclass
class Cutter:
    """Cuts faces out of the pictures that their dumps were made of.

    roots: dataset -> folder of its pictures. What was cut once is kept in memory (a face of 112 px is 37 KB).
    """

    roots: Mapping[str, Path]
    threads: int = 2
    kept: dict[tuple, torch.Tensor] = field(default_factory=dict)

    def __call__(self, faces: FeatureDataset, crop: Crop) -> torch.Tensor:
        """faces: N of them; their pictures go through their condition first. Returns: (N, 3, px, px) uint8 RGB, black outside.

        Raises: FileNotFoundError, ImageError where a picture is missing or cannot be read any more.
        """
        found = set(faces.rows["condition"].tolist())
        if len(found) > 1:
            raise ValueError(f"faces in several conditions at once: {', '.join(sorted(found))}")
        condition = "".join(found)
        if condition:
            return self._cut(faces, crop, Condition.of(condition))
        keys = [(crop, *face) for face in face_keys(faces.rows)]
        new = [row for row, key in enumerate(keys) if key not in self.kept]
        self.kept |= zip(
            (keys[row] for row in new),
            self._cut(faces.select(np.array(new, int)), crop, None),
            strict=True,
        )
        return (
            torch.stack([self.kept[key] for key in keys])
            if keys
            else torch.empty(0, 3, crop.px, crop.px, dtype=torch.uint8)
        )

    def _cut(self, faces: FeatureDataset, crop: Crop, condition: Condition | None) -> torch.Tensor:
        for dataset in sorted(set(faces.rows["dataset"].tolist())):
            if not self.roots[dataset].is_dir():
                raise FileNotFoundError(
                    f"{self.roots[dataset]}: the pictures of {dataset} are not there any more, and networks look at pictures"
                )
        out = torch.empty(len(faces), 3, crop.px, crop.px, dtype=torch.uint8)
        paths = [
            self.roots[d] / p
            for d, p in zip(faces.rows["dataset"], faces.rows["path"], strict=True)
        ]
        cut = cut_again(paths, landmarks_of(faces.rows), crop, self.threads, condition)
        for row, face in enumerate(
            tqdm(cut, total=len(paths), desc="crops", unit=" faces", leave=False)
        ):
            if isinstance(face, ImageError):
                raise face
            out[row] = face[:3]
        return out


def names_of(faces: FeatureDataset) -> str:
    """What faces these are, in order, and what their pictures look like."""
    names = zip(*(faces.rows[name].tolist() for name in (*FACE, "label", "phash")), strict=True)
    return hashlib.sha256(repr(list(names)).encode("utf-8", "surrogateescape")).hexdigest()


def network(
    name: str,
    cut: Cutter,
    folder: Path,
    device: str,
    fpr: float,
    seed: int,
    quick: bool,
    weights_dir: Path | None,
) -> System:
    """One of models/networks.py. folder: fitted networks are kept there, and found again by what they were fitted on."""
    settings = NETWORKS[name].quick if quick else NETWORKS[name].usual
    crop = crop_for(name, settings.px)

    def learn(train: FeatureDataset, val: FeatureDataset) -> Fitted:
        what = repr((name, settings, "all epochs", seed, names_of(train), names_of(val)))
        home = folder / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
        if (home / "network.json").is_file():
            fitted = Network.load(home, device)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            crops = cut(train, crop), train.rows["label"], cut(val, crop), val.rows["label"]
            plan = {
                "epochs": settings.epochs,
                "batch_size": settings.batch_size,
                "weights_dir": weights_dir,
            }
            # Of all epochs the best is kept. To stop before the learning rate has come down would leave much to chance.
            plan["patience"] = settings.epochs
            fitted = fit_network(
                name, *crops, seed=seed, device=device, state=home.with_suffix(".state"), **plan
            )
            fitted.save(home)
            home.with_suffix(".state").unlink(missing_ok=True)

        def p_fake(faces: FeatureDataset) -> np.ndarray:
            return fitted.p_fake(cut(faces, crop))

        of_reals = p_fake(val)[val.rows["label"] == 0]
        note = f"{fitted.origin}; {settings.px} px; epoch {fitted.best_epoch} of {fitted.epochs_run} kept"
        return Fitted(p_fake, threshold_at_fpr(of_reals, fpr), [note])

    return System(name, "baseline", learn)
