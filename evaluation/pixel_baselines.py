"""Pixel baselines: networks that classify the face crop itself, on the same splits as MASC.

All see the face's box enlarged 1.3 times, as in FaceForensics++ (Roessler et al., ICCV 2019).
Without ImageNet weights, or with the few epochs of `quick`, they are weaker than published results;
the notes of a fitted system say what it started from.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR
from torchvision.transforms import v2
from tqdm import tqdm

from data.cutting import cut_again
from data.degrade import Condition
from data.dump import landmarks_of
from data.feature_dataset import FeatureDataset
from data.files import replacing
from data.images import ImageError
from evaluation.mesonet import MesoInception4
from evaluation.metrics import auc, threshold_at_fpr
from evaluation.predictions import FACE
from evaluation.systems import BASELINE, Fitted, System
from features.regions import Crop
from models.base import native_bf16
from models.heads import calibrate
from models.lite0 import LITE0, PACKAGE, lite0_weights
from models.tensors import DAMAGED, MissingWeightsError, load_strictly, read_tensors, sha256_of
from models.weights import Weights, huggingface, locate

WEIGHT_DECAY = 0.05
WARM_UP = 0.1  # of all steps
MAX_GRADIENT = 5.0  # L2 norm
LEAST_VAL = 25  # validation faces of each class

log = logging.getLogger("masc")


@dataclass(frozen=True)
class Budget:
    """px: side of the crop. batch: faces per step."""

    px: int
    epochs: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """How a network is built and trained.

    Attributes:
        timm: name of the architecture and its weights in timm; empty for MesoInception-4.
        lr, lr_pretrained: highest learning rate from scratch, and from ImageNet weights.
        quick, full: training on a CPU, and on a GPU.
        bf16_on_cpu: whether bfloat16 is faster than float32, on CPUs that have it.
    """

    timm: str
    lr: float
    lr_pretrained: float
    quick: Budget
    full: Budget
    bf16_on_cpu: bool = True


B4, XCEPTION = "efficientnet_b4.ra2_in1k", "legacy_xception.tf_in1k"
VIT = "vit_base_patch16_224.augreg_in21k_ft_in1k"
# `quick` takes about 6 minutes for 5,600 faces on 2 cores with AVX512-BF16 (Lite0 17 without).
NETWORKS: dict[str, Recipe] = {
    "mesoinception4": Recipe("", 2e-3, 2e-3, Budget(112, 20, 32), Budget(256, 40, 64)),
    # Tan & Le, ICML 2019: the version for phones, and B4 with the weights of Wightman et al., 2021
    "efficientnet_lite0": Recipe(
        LITE0, 1e-3, 3e-4, Budget(112, 8, 32), Budget(224, 20, 32), bf16_on_cpu=False
    ),
    "efficientnet_b4": Recipe(
        B4, 1e-3, 3e-4, Budget(64, 4, 32), Budget(256, 20, 32), bf16_on_cpu=False
    ),
    # Chollet, CVPR 2017, as in FaceForensics++
    "xception": Recipe(XCEPTION, 1e-3, 3e-4, Budget(96, 4, 32), Budget(299, 20, 32)),
    # Dosovitskiy et al., ICLR 2021; weights of Steiner et al., TMLR 2022. px: multiples of 16
    "vit_b16": Recipe(VIT, 3e-4, 5e-5, Budget(64, 2, 32), Budget(224, 20, 64)),
}


class PixelCutter:
    """Cuts faces out of the pictures in `roots` (dataset -> folder) and keeps them in memory."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self.roots, self.kept = roots, {}

    def __call__(self, faces: FeatureDataset, px: int) -> torch.Tensor:
        """(N, 3, px, px) uint8 RGB, black outside the picture, degraded as the dump's `condition`."""
        found = set(faces.rows["condition"].tolist())
        if len(found) > 1:
            raise ValueError(f"faces in several conditions: {', '.join(sorted(found))}")
        if condition := "".join(found):
            return self._cut(faces, px, Condition.of(condition))
        columns = [faces.rows[name].tolist() for name in FACE]
        keys = [(px, *key) for key in zip(*columns, strict=True)]
        new = [row for row, key in enumerate(keys) if key not in self.kept]
        crops = self._cut(faces.select(np.array(new, int)), px, None)
        self.kept |= zip((keys[row] for row in new), crops, strict=True)
        return torch.stack([self.kept[key] for key in keys]) if keys else crops

    def _cut(self, faces: FeatureDataset, px: int, condition: Condition | None) -> torch.Tensor:
        paths = []
        for dataset, path in zip(faces.rows["dataset"], faces.rows["path"], strict=True):
            paths.append(self.roots[dataset] / path)
        for dataset in set(faces.rows["dataset"].tolist()):
            if not self.roots[dataset].is_dir():
                raise FileNotFoundError(
                    f"{self.roots[dataset]}: the pictures of {dataset} are not there any more; name their folder "
                    "with --data-root"
                )
        crop, out = Crop.of_box(1.3, px), torch.empty(len(faces), 3, px, px, dtype=torch.uint8)
        cut = cut_again(paths, landmarks_of(faces.rows), crop, condition=condition)
        progress = tqdm(cut, total=len(paths), desc="crops", unit=" faces", leave=False)
        for row, face in enumerate(progress):
            if isinstance(face, ImageError):
                raise face
            out[row] = face[:3]
        return out


def published(tag: str) -> Weights:
    """ImageNet weights of timm."""
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(tag)
    repo, url = known.hf_hub_id, known.url
    file = f"{tag}.safetensors" if repo else url.rpartition("/")[2]
    url = huggingface(repo, "model.safetensors") if repo else url
    terms = (known.license, "ImageNet's pictures are for research", "ImageNet")
    return Weights(tag, file, url, f"https://huggingface.co/{repo or 'timm'}", *terms)


def start(recipe: Recipe, px: int, weights_dir: Path | None) -> tuple[nn.Module, str, float]:
    """The network before training, what it starts from, and its highest learning rate."""
    if not recipe.timm:
        return MesoInception4(px), "from scratch", recipe.lr
    from timm import create_model

    net, lr = create_model(recipe.timm, pretrained=False), recipe.lr_pretrained
    if recipe.timm == LITE0:
        net.load_state_dict(lite0_weights())
        origin = f"ImageNet weights of the package {PACKAGE} {version(PACKAGE)}"
    else:
        try:
            path = locate(published(recipe.timm), weights_dir)
            tensors = read_tensors(path)
            # Files from before torch 0.4.1 have no num_batches_tracked, and it decides nothing.
            load_strictly(net, tensors, path, lambda key: "num_batches_tracked" in key)
            origin = f"ImageNet weights {path.name} {sha256_of(path)[:12]}"
        except MissingWeightsError:
            origin, lr = "from scratch, no published weights found", recipe.lr
    net.reset_classifier(1)
    # timm initialises a single EfficientNet output from [-1, 1]: logits of tens in the first epoch.
    nn.init.normal_(net.get_classifier().weight, std=0.01)
    nn.init.zeros_(net.get_classifier().bias)
    if hasattr(net, "set_input_size"):  # a transformer's position embedding is resampled
        net.set_input_size(img_size=(px, px))
    return net, origin, lr


class Classifier:
    """A network with its preprocessing, on a device."""

    def __init__(self, net: nn.Module, device: torch.device, bf16_on_cpu: bool = True) -> None:
        self.net = net.to(device, memory_format=torch.channels_last)  # faster, on CPUs too
        self.device = device
        self.bf16 = native_bf16(device) and (bf16_on_cpu or device.type == "cuda")
        mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, True), v2.Normalize(mean, std)])

    def logits(self, crops: torch.Tensor) -> torch.Tensor:
        """(N, 3, px, px) uint8 RGB -> (N,) float32."""
        images = self.normalise(crops.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.net(images.contiguous(memory_format=torch.channels_last))
        return out[:, 0].float()

    @torch.inference_mode()
    def score(self, crops: torch.Tensor) -> np.ndarray:
        """(N, 3, px, px) uint8 RGB -> logits before calibration, (N,) float64."""
        self.net.eval()
        batches = crops.split(64) if len(crops) else ()
        return np.concatenate([np.empty(0), *(self.logits(each).cpu().numpy() for each in batches)])


Crops = tuple[torch.Tensor, torch.Tensor]  # crops (N, 3, px, px) uint8, labels (N,) float32


def train(
    model: Classifier, faces: Crops, val: Crops, budget: Budget, lr: float, seed: int, path: Path
) -> dict:
    """Train for all epochs and choose the one of the highest validation AUC, of equals the last.

    Returns:
        history: per epoch `loss` and `val_auc`. best: weights. epoch: of these, from 1. a, b: the
        calibration (Platt 1999), logit = a x score + b. `path` holds the same, and while the
        training runs all that the next epoch depends on: a killed run continues to the same result.
    """
    from timm.optim import create_optimizer_v2

    run = load_run(path) or {"history": [], "parts": {}}
    steps = budget.epochs * max(1, len(faces[0]) // budget.batch)
    optimizer = create_optimizer_v2(model.net, "adamw", lr, WEIGHT_DECAY)
    warm_up = LinearLR(optimizer, 0.01, total_iters=max(1, round(WARM_UP * steps)))
    schedule = ChainedScheduler([warm_up, CosineAnnealingLR(optimizer, steps)])
    parts = {"net": model.net, "optimizer": optimizer, "schedule": schedule}
    for name, saved in run["parts"].items():
        parts[name].load_state_dict(saved)
    history, labels_val = run["history"], val[1].numpy()
    for epoch in range(len(history) + 1, budget.epochs + 1):
        torch.manual_seed(seed * 100_003 + epoch)  # the same epoch wherever a run was interrupted
        model.net.train()
        losses = []
        for batch, *wanted in _batches(*faces, budget):
            labels, weights = (values.to(model.device) for values in wanted)
            loss = F.binary_cross_entropy_with_logits(model.logits(batch), labels, weights)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.net.parameters(), MAX_GRADIENT)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        loss, score = float(np.mean(losses)), model.score(val[0])
        if not np.isfinite([loss, *score]).all():
            raise ValueError(f"the training diverged in epoch {epoch}: the loss is {loss}")
        history.append({"loss": loss, "val_auc": auc(labels_val, score)})
        log.info("epoch %d: loss %.4f, validation AUC %.4f", epoch, *history[-1].values())
        if history[-1]["val_auc"] == max(row["val_auc"] for row in history):
            best = {key: value.cpu().clone() for key, value in model.net.state_dict().items()}
            a, b = calibrate(score, labels_val)
            run |= {"best": best, "epoch": epoch, "a": a, "b": b}
        going_on = parts if epoch < budget.epochs else {}
        run["parts"] = {name: part.state_dict() for name, part in going_on.items()}
        with replacing(path) as file:
            torch.save(run, file)
    return run


def _batches(
    crops: torch.Tensor, labels: torch.Tensor, budget: Budget
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """One epoch: augmented crops, labels, and weights that make both classes count the same."""
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomResizedCrop(budget.px, scale=(0.8, 1.0), ratio=(0.9, 1.1), antialias=True),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
        ]
    )
    weights = 0.5 / torch.where(labels == 1, labels.mean(), 1 - labels.mean())
    whole = max(1, len(crops) // budget.batch)
    for rows in torch.randperm(len(crops)).split(budget.batch)[:whole]:
        # Eight faces share one random change: one by one takes twice as long.
        batch = torch.cat([augment(few) for few in crops[rows].split(8)])
        yield batch, labels[rows], weights[rows]


def load_run(path: Path) -> dict:
    """What `train` wrote, without running code in it; empty where there is no file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {}
    except DAMAGED as error:
        raise ValueError(f"{path}: damaged; delete it to train this network again") from error


def network_system(
    name: str,
    cutter: PixelCutter,
    folder: Path,
    device: str,
    fpr: float,
    seed: int,
    quick: bool,
    weights_dir: Path | None,
) -> System:
    """A network of `NETWORKS`. folder: keeps fitted ones by a digest of their settings and faces."""
    recipe = NETWORKS[name]
    budget = recipe.quick if quick else recipe.full

    def labelled(faces: FeatureDataset) -> Crops:
        return cutter(faces, budget.px), torch.from_numpy(faces.rows["label"]).float()

    def fit(faces: FeatureDataset, val: FeatureDataset) -> Fitted:
        for which, split, least in (("training", faces, 1), ("validation", val, LEAST_VAL)):
            if min(split.counts()["real"], split.counts()["fake"]) < least:
                raise ValueError(f"{name}: {which} needs {least} faces of each class")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net, origin, lr = start(recipe, budget.px, weights_dir)
            model = Classifier(net, torch.device(device), recipe.bf16_on_cpu)
            names = (*FACE, "label", "phash", "pictures")
            seen = [[part.rows[column].tolist() for column in names] for part in (faces, val)]
            what = repr((name, budget, origin, lr, seed, model.bf16, seen))
            digest = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()
            path = folder / f"{name}-{digest[:16]}.pt"
            run = load_run(path)
            if len(run.get("history", ())) < budget.epochs:
                folder.mkdir(parents=True, exist_ok=True)
                run = train(model, labelled(faces), labelled(val), budget, lr, seed, path)
            model.net.load_state_dict(run["best"])

        def p_fake(faces: FeatureDataset) -> np.ndarray:
            return expit(run["a"] * model.score(cutter(faces, budget.px)) + run["b"])

        of_reals = p_fake(val)[val.rows["label"] == 0]
        note = f"{origin}; {budget.px} px; epoch {run['epoch']} of {len(run['history'])} chosen"
        return Fitted(p_fake, threshold_at_fpr(of_reals, fpr), [note])

    return System(name, BASELINE, fit)
