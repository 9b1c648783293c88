"""Fit the maps that turn CLIP's patches of a head into an embedding of a person.

    python -m training.head_clip --teachers DIR --out outputs/head_clip

DIR is that of training/person_net.py. Of every photograph of a training person that is there, and of its
mirror image through a bad channel, the patches are read (ten minutes on two cores; kept in --out). A map
whitens what differs between photographs of one person (WCCN, Hatch et al., Interspeech 2006) and keeps
the directions in which people differ most. How much of the mean variance is added before whitening is
chosen on the people who are held out. Writes `head_maps.safetensors`.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save
from tqdm import tqdm

from command_line import run
from data.faces import FaceCutter
from data.files import replacing
from data.images import read_image
from features.reference import units
from models.ensemble import find_weights
from models.head_clip import VIEWS, WHOLE, HeadClip, load_maps, random_maps
from training import augment
from training.person_net import folds
from training.region_net import verification

log = logging.getLogger("masc")
RIDGES = (0.3, 1.0, 3.0, 10.0)  # of the mean variance
SIZE = 256
TOGETHER = 8


@dataclass(frozen=True)
class Config:
    teachers: Path
    """Folder of aligned crops and their index.csv, beside its pictures."""
    out: Path = Path("outputs/head_clip")
    """Where patches and maps go."""
    weights_dir: Path | None = None
    """Local weight files (or MASC_WEIGHTS)."""


def photographs(teachers: Path) -> pd.DataFrame:
    """Photographs that are there of people whom the networks learn from, or who are held out."""
    index = pd.read_csv(teachers / "index.csv", keep_default_na=False)
    known = folds(teachers)
    index["fold"] = index["identity"].map(known)
    wanted = (index["image"] != "") & index["fold"].isin(["train", "val", "held out"])
    return index[wanted].reset_index(drop=True)


def read_patches(rows: pd.DataFrame, config: Config) -> dict[str, np.ndarray]:
    """Region -> (2 N, 768): of the photographs, then of their mirror images through a bad channel."""
    weights = find_weights(("head",), config.weights_dir, "")["head"]
    expert = HeadClip(weights, bf16=True, maps=random_maps(config.out / "none.safetensors"))
    expert, cutter = expert.frozen("cpu"), FaceCutter("one", crops=[WHOLE])
    found = {region: np.full((2 * len(rows), 768), np.nan, np.float32) for region in VIEWS}
    for part in tqdm(np.array_split(np.arange(len(rows)), -(-len(rows) // TOGETHER))):
        images = [read_image(config.teachers.parent / path) for path in rows["image"].iloc[part]]
        crops = cutter(images)
        places, views = part[crops.image], crops.views[WHOLE]
        worse = views.clone()
        for row, (face, place) in enumerate(zip(views, places, strict=True)):
            rgb = np.ascontiguousarray(face[:3].permute(1, 2, 0).numpy()[:, ::-1])
            rgb = augment.degrade_crop(rgb, np.random.default_rng((1, place)))
            worse[row, :3] = torch.from_numpy(rgb).permute(2, 0, 1)
            worse[row, 3] = face[3].flip(-1)
        for region in VIEWS:
            for shift, some in ((0, views), (len(rows), worse)):
                with torch.inference_mode():
                    found[region][places + shift] = expert.tokens(some, region).numpy()
    return found


def fit(x: np.ndarray, person: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """(SIZE, D) weight and (SIZE,) bias. x: (N, D) unit vectors; person: (N,) int."""
    mean, people = x.mean(0), np.unique(person, return_inverse=True)[1]
    centred = (x - mean).astype(np.float64)
    count = np.bincount(people)
    middle = np.zeros((len(count), x.shape[1]))
    np.add.at(middle, people, centred)
    middle /= count[:, None]
    rest = centred - middle[people]
    within = rest.T @ rest / len(x)
    within += ridge * np.trace(within) / len(within) * np.eye(len(within))
    variances, vectors = np.linalg.eigh(within)
    whiten = vectors / np.sqrt(variances)
    _, _, directions = np.linalg.svd(middle @ whiten, full_matrices=False)
    weight = (whiten @ directions[:SIZE].T).T
    weight /= np.abs(weight).max() / 16  # of use to float16; lengths do not count
    weight = np.ascontiguousarray(weight, np.float32)  # safetensors writes memory as it lies
    return weight, (-weight @ mean).astype(np.float32)


def main(config: Config) -> Path:
    rows, kept = photographs(config.teachers), config.out / "patches.npz"
    config.out.mkdir(parents=True, exist_ok=True)
    if not kept.is_file():
        found = read_patches(rows, config)
        with replacing(kept) as file:
            np.savez(file, **found)
    with np.load(kept) as file:
        patches = {name: units(file[name]) for name in VIEWS}
    person = pd.factorize(rows["identity"])[0]
    both, trains = np.concatenate([person, person]), (rows["fold"] == "train").to_numpy()
    tensors = {}
    for region, x in patches.items():
        known = np.isfinite(x).all(1)
        train = np.concatenate([trains, trains]) & known
        held = np.flatnonzero(~trains & known[: len(rows)])
        aucs = {}
        for ridge in RIDGES:
            weight, bias = fit(x[train], both[train], ridge)
            aucs[ridge] = verification(units(x[held] @ weight.T + bias), person[held])
        best = max(aucs, key=aucs.get)
        log.info("%s: verification AUC of people held out, by ridge: %s", region, aucs)
        weight, bias = fit(x[train], both[train], best)
        tensors[f"{region}.weight"], tensors[f"{region}.bias"] = weight, bias
    path = config.out / "head_maps.safetensors"
    with replacing(path) as file:
        file.write(save({name: x.astype(np.float16) for name, x in tensors.items()}))
    check(path, patches, person, trains)
    print(f"written: {path}")
    return path


def check(
    path: Path, patches: dict[str, np.ndarray], person: np.ndarray, trains: np.ndarray
) -> None:
    """Says what the file, as it is read again, is worth on the people held out."""
    for region, linear in load_maps(path).items():
        x = patches[region][: len(person)]
        held = np.flatnonzero(~trains & np.isfinite(x).all(1))
        with torch.inference_mode():
            found = units(linear(torch.from_numpy(x[held])).numpy())
        auc = verification(found, person[held])
        log.info("%s: verification AUC of people held out, as written: %.3f", region, auc)


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.head_clip"))
