"""Train the region network: predict from one region what teachers predict from the whole face.

The bundled network (about 45 minutes on 2 cores):
    python -m training.region_net --teachers DIR --out outputs/region_net

Your own, with the experts of a dump as teachers:
    python -m training.region_net --dump outputs/features/DATASET/full --data-root DATASET

DIR holds aligned real faces and teacher outputs (docs/region_net.md). Writes
`region_net.safetensors`, `log.csv` (losses and validation figures of every epoch) and `state.pt`:
the same command resumes a stopped run. `python -m training.region_net_card` then measures the
network on other people.

Losses: cosine distance for embeddings; for identity also relational distillation (Park et al., CVPR
2019; Tejankar et al., ICCV 2021): KL divergence, at a low temperature, between the similarities of
student and teacher to the teacher's embeddings of all training faces, where pictures of one person
count as similar; cross-entropy for distributions; variance-scaled squared error for vectors.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from command_line import run
from features.regions import ALIGNED, region_masks
from models.base import Output, native_bf16
from models.region_net import AGE_BINS, AGE_NAMES, RegionNet, masked_input, save_region_net
from training import augment
from training.loop import Options, Schedule, fit
from training.teachers import Teachers, load_teachers, teachers_from_dump

log = logging.getLogger("masc")
WEIGHTS = {"identity": 2.0, "appearance": 1.0, "relations": 0.25}
OTHERS = 0.5  # weight of all other losses
TEMPERATURE = 0.06  # of the relational loss
VALIDATED = ("full", "upper", "lower")


@dataclass(kw_only=True)
class Config(Options):
    teachers: Path | None = None
    """folder of aligned crops and teacher outputs"""
    dump: Path | None = None
    """a dump whose experts are the teachers, instead of --teachers"""
    data_root: Path | None = None
    """with --dump: where its images are now"""
    out: Path = Path("outputs/region_net")
    """where weights, log and state go"""
    epochs: int = 52
    px: int = 80
    """side of the network's input; 112 px cost twice as much and gained nothing"""
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.05


class Views(torch.utils.data.Dataset):
    """Step -> augmented faces (B, 4, px, px) uint8 RGBA, masks (B, px, px) bool, rows (B,)."""

    def __init__(self, faces: np.ndarray, rows: np.ndarray, config: Config) -> None:
        self.faces, self.rows, self.px = faces, rows, config.px
        self.size, self.seed = config.batch_size, config.seed
        self.per_epoch = len(rows) // self.size

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        rows = order[place * self.size : (place + 1) * self.size]
        views = [self.view(row, np.random.default_rng((self.seed, epoch, row))) for row in rows]
        faces, masks = (torch.from_numpy(np.stack(part)) for part in zip(*views, strict=True))
        return faces.permute(0, 3, 1, 2).contiguous(), masks, torch.from_numpy(rows)

    def view(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A face (px, px, 4) and the mask of its region (px, px)."""
        face = np.ascontiguousarray(self.faces[row].transpose(1, 2, 0))
        face = augment.jitter(face, self.px, rng)
        face[..., :3] = augment.degrade_crop(np.ascontiguousarray(face[..., :3]), rng)
        return face, augment.random_region(self.px, rng)


def output_table(teachers: Teachers) -> dict[str, Output]:
    """The network's outputs: one for each target of the teachers."""
    table = {}
    for name, target in teachers.targets.items():
        if name == "age":
            table["age"] = Output("distribution", len(AGE_BINS), AGE_NAMES)
            table["age_years"] = Output("scalar", 1, ("years",))
        else:
            names = teachers.names.get(name, ())
            table[name] = Output(teachers.kinds[name], target.shape[1], names)
    return table


def start_at_means(net: RegionNet, teachers: Teachers, train: np.ndarray) -> None:
    """Set the heads' biases so that the untrained network predicts the training mean."""
    for name, head in net.heads.items():
        mean = np.nanmean(teachers.targets[name][train], axis=0)
        kind = net.outputs[name].kind
        if kind == "embedding" or len(mean) != head.out_features:
            continue
        mean = torch.from_numpy(mean).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            head.bias.copy_(mean.logit() if kind == "vector" else mean.log())


class Distillation(nn.Module):
    """The network and its losses. Faces with an unknown target do not count for it."""

    def __init__(
        self, net: RegionNet, teachers: Teachers, train: np.ndarray, device: torch.device
    ) -> None:
        super().__init__()
        self.net, self.kinds = net, teachers.kinds
        self.person = torch.from_numpy(teachers.person).to(device)
        self.targets, self.scale = {}, {}
        for name, value in teachers.targets.items():
            target = torch.from_numpy(value).to(device)
            if self.kinds[name] in ("vector", "scalar"):
                self.scale[name] = 1 / target[train].nan_to_num().var(0).clamp_min(1e-3)
            embedding = self.kinds[name] == "embedding"
            self.targets[name] = F.normalize(target, dim=1) if embedding else target
        self.bank_person = self.person[train]
        self.bank = (
            self.targets["identity"][train].bfloat16() if "identity" in self.targets else None
        )

    def forward(
        self, faces: torch.Tensor, masks: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = region_logits(self.net, faces, masks)
        losses = {name: self.loss(name, value, rows) for name, value in logits.items()}
        losses = {name: value for name, value in losses.items() if value is not None}
        if self.bank is not None:
            losses["relations"] = self.relations(logits["identity"], rows)
        total = sum(WEIGHTS.get(name, OTHERS) * value for name, value in losses.items())
        return total, {name: value.detach() for name, value in losses.items()}

    def loss(self, name: str, value: torch.Tensor, rows: torch.Tensor) -> torch.Tensor | None:
        target = self.targets[name][rows]
        known = ~target.isnan().any(1)
        if not known.any():
            return None
        value, target = value[known], target[known]
        if self.kinds[name] == "embedding":
            return (1 - F.cosine_similarity(value, target)).mean()
        if self.kinds[name] == "distribution":
            logp = value.log_softmax(-1)
            if name == "age" and target.shape[1] == len(AGE_BINS):
                logp = (logp.exp() @ self.net.age_bins).clamp_min(1e-6).log()
            return -(target * logp).sum(-1).mean()
        value = value.sigmoid() if self.kinds[name] == "vector" else value
        return ((value - target).square() * self.scale[name]).mean()

    def relations(self, identity: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        person = self.person[rows][:, None]
        same = (person == self.bank_person) & (person >= 0)
        teacher = (self.targets["identity"][rows].bfloat16() @ self.bank.T).float()
        teacher = torch.where(same, teacher.clamp_min(0.9), teacher) / TEMPERATURE
        student = (F.normalize(identity, dim=1).bfloat16() @ self.bank.T).float() / TEMPERATURE
        return -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()


def region_logits(
    net: RegionNet, faces: torch.Tensor, masks: torch.Tensor
) -> dict[str, torch.Tensor]:
    images = masked_input(faces, masks, net.config["px"])
    images = images.contiguous(memory_format=torch.channels_last)
    enabled = native_bf16(faces.device)
    with torch.autocast(faces.device.type, torch.bfloat16, enabled=enabled):
        return net.logits(images)


@torch.inference_mode()
def predict_all(
    net: RegionNet, faces: np.ndarray, region: str, device: torch.device, batch: int = 256
) -> dict[str, np.ndarray]:
    """Predictions from one region of faces (N, 4, S, S) uint8 RGBA: name -> (N, size) float32."""
    net.eval()
    mask = torch.from_numpy(region_masks(ALIGNED.at(faces.shape[-1]), (region,))[0]).to(device)
    parts = []
    for part in torch.from_numpy(faces).split(batch):
        parts.append(net.predictions(region_logits(net, part.to(device), mask)))
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


def verification(embeddings: np.ndarray, person: np.ndarray) -> float:
    """AUC of 'same person?' over all pairs of unit vectors (N, D). person: (N,) int."""
    pairs = np.triu_indices(len(person), 1)
    scores, same = embeddings @ embeddings.T, person[:, None] == person[None]
    return float(roc_auc_score(same[pairs], scores[pairs]))


def validate(net: RegionNet, val: Teachers, device: torch.device) -> dict[str, float]:
    """A few figures, to watch the training."""
    figures = {}
    for region in VALIDATED if len(val.faces) else ():
        predictions, known = predict_all(net, val.faces, region, device), val.person >= 0
        if "identity" in predictions and 1 < len(set(val.person[known])) < known.sum():
            identity = predictions["identity"][known]
            figures[f"{region} AUC"] = verification(identity, val.person[known])
        if val.labels and (known := val.labels["age"] >= 0).any():
            error = np.abs(predictions["age_years"][:, 0] - val.labels["age"])
            figures[f"{region} age MAE"] = float(error[known].mean())
        if val.labels and (known := val.labels["gender"] >= 0).any():
            right = predictions["gender"].argmax(1) == val.labels["gender"]
            figures[f"{region} gender"] = float(right[known].mean())
    return figures


def train(teachers: Teachers, config: Config) -> Path:
    """Train on the `train` fold, or resume. Returns: the weights. Raises: as `fit`."""
    rows, device = np.flatnonzero(teachers.fold == "train"), torch.device(config.device)
    if len(rows) < config.batch_size:
        raise ValueError(
            f"{len(rows)} training faces do not fill one batch of {config.batch_size}; "
            "lower --batch-size"
        )
    torch.manual_seed(config.seed)
    net = RegionNet(output_table(teachers), px=config.px)
    start_at_means(net, teachers, rows)
    net = net.to(device, memory_format=torch.channels_last)
    val = teachers.of("val")
    views, weights = Views(teachers.faces, rows, config), config.out / "region_net.safetensors"
    steps = config.epochs * views.per_epoch
    schedule = Schedule(steps, views.per_epoch, warm_up=steps / 50, clip=5.0)

    def write(average: RegionNet, progress: str) -> dict[str, float]:
        save_region_net(average, weights, {"trained": progress})
        return validate(average, val, device)

    task = Distillation(net, teachers, rows, device)
    fit(task, views, write, config, schedule, len(rows))
    return weights


def main(config: Config) -> Path:
    if (config.teachers is None) == (config.dump is None):
        raise ValueError("give either --teachers or --dump")
    if config.dump:
        teachers = teachers_from_dump(config.dump, config.data_root, config.limit)
    else:
        teachers = load_teachers(config.teachers, config.limit)
    folds = ", ".join(
        f"{(teachers.fold == fold).sum()} {fold}" for fold in ("train", "val", "test")
    )
    log.info("faces: %s", folds)
    weights = train(teachers, config)
    print(f"weights: {weights}")
    return weights


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.region_net"))
