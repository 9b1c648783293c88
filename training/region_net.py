"""Train the region network: predict from one region what teachers predict from the whole face.

The bundled network (about 45 minutes on 2 cores), and one with the experts of a dump as teachers:
    python -m training.region_net --teachers DIR --out outputs/region_net
    python -m training.region_net --dump outputs/features/DATASET/full --data-root DATASET

DIR holds aligned real faces and teacher outputs; docs/region_net.md tells more. Writes
`region_net.safetensors`, `log.csv` (losses, and validation figures of every epoch) and `state.pt`:
the same command resumes a stopped run. `python -m training.region_net_card` then measures it.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
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

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        rows = order[place * self.size : (place + 1) * self.size]
        views, masks = [], []
        for row in rows:
            rng = np.random.default_rng((self.seed, epoch, row))
            face = np.ascontiguousarray(self.faces[row].transpose(1, 2, 0))
            views.append(augment.jitter(face, self.px, rng))
            rgb = np.ascontiguousarray(views[-1][..., :3])
            views[-1][..., :3] = augment.degrade_crop(rgb, rng)
            masks.append(augment.random_region(self.px, rng))
        faces, masks = torch.from_numpy(np.stack(views)), torch.from_numpy(np.stack(masks))
        return faces.permute(0, 3, 1, 2).contiguous(), masks, torch.from_numpy(rows)


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
        mean, kind = np.nanmean(teachers.targets[name][train], axis=0), net.outputs[name].kind
        if kind != "embedding" and len(mean) == head.out_features:
            mean = torch.from_numpy(mean).clamp(1e-4, 1 - 1e-4)
            head.bias.data = mean.logit() if kind == "vector" else mean.log()


class Distillation(nn.Module):
    """The network and its losses. Faces with an unknown target do not count for it.

    Cosine distance for embeddings, cross-entropy for distributions, variance-scaled squared error
    for vectors; for identity also `relations`.
    """

    def __init__(
        self, net: RegionNet, teachers: Teachers, train: np.ndarray, device: torch.device
    ) -> None:
        super().__init__()
        self.net, self.kinds, self.scale = net, teachers.kinds, {}
        self.person = torch.from_numpy(teachers.person).to(device)
        self.targets = {k: torch.from_numpy(v).to(device) for k, v in teachers.targets.items()}
        for name, target in self.targets.items():
            self.scale[name] = 1 / target[train].nan_to_num().var(0).clamp_min(1e-3)
            if self.kinds[name] == "embedding":
                self.targets[name] = F.normalize(target, dim=1)
        self.bank_person = self.person[train]
        if "identity" in self.targets:
            self.bank = self.targets["identity"][train].bfloat16()

    def forward(
        self, faces: Tensor, masks: Tensor, rows: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits, losses = region_logits(self.net, faces, masks), {}
        for name, value in logits.items():
            known = ~self.targets[name][rows].isnan().any(1)
            if known.any():
                losses[name] = self.loss(name, value[known], self.targets[name][rows][known])
        if "identity" in logits:
            losses["relations"] = self.relations(logits["identity"], rows)
        total = sum(WEIGHTS.get(name, OTHERS) * value for name, value in losses.items())
        return total, {name: value.detach() for name, value in losses.items()}

    def loss(self, name: str, value: Tensor, target: Tensor) -> Tensor:
        if self.kinds[name] == "embedding":
            return (1 - F.cosine_similarity(value, target)).mean()
        if self.kinds[name] == "distribution":
            logp = value.log_softmax(-1)
            if name == "age" and target.shape[1] == len(AGE_BINS):
                logp = (logp.exp() @ self.net.age_bins).clamp_min(1e-6).log()
            return -(target * logp).sum(-1).mean()
        value = value.sigmoid() if self.kinds[name] == "vector" else value
        return ((value - target).square() * self.scale[name]).mean()

    def relations(self, identity: Tensor, rows: Tensor) -> Tensor:
        """Relational distillation (Park et al., CVPR 2019; Tejankar et al., ICCV 2021).

        KL divergence between the similarities of student and teacher to the teacher's embeddings of
        all training faces. Pictures of one person count as similar.
        """
        person = self.person[rows][:, None]
        same = (person == self.bank_person) & (person >= 0)
        teacher = (self.targets["identity"][rows].bfloat16() @ self.bank.T).float()
        teacher = torch.where(same, teacher.clamp_min(0.9), teacher) / TEMPERATURE
        student = (F.normalize(identity, dim=1).bfloat16() @ self.bank.T).float() / TEMPERATURE
        return -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()


def region_logits(net: RegionNet, faces: Tensor, masks: Tensor) -> dict[str, Tensor]:
    images = masked_input(faces, masks, net.config["px"])
    bf16 = native_bf16(faces.device)
    with torch.autocast(faces.device.type, torch.bfloat16, enabled=bf16):
        return net.logits(images.contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def predict_all(
    net: RegionNet, faces: np.ndarray, region: str, device: torch.device
) -> dict[str, np.ndarray]:
    """Predictions from one region of faces (N, 4, S, S) uint8 RGBA: name -> (N, size) float32."""
    net.eval()
    mask = torch.from_numpy(region_masks(ALIGNED.at(faces.shape[-1]), (region,))[0]).to(device)
    parts = torch.from_numpy(faces).split(256)
    parts = [net.predictions(region_logits(net, part.to(device), mask)) for part in parts]
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


def verification(embeddings: np.ndarray, person: np.ndarray) -> float:
    """AUC of 'same person?' over all pairs of unit vectors (N, D). person: (N,) int."""
    pairs = np.triu_indices(len(person), 1)
    scores, same = embeddings @ embeddings.T, person[:, None] == person[None]
    return float(roc_auc_score(same[pairs], scores[pairs]))


def validate(net: RegionNet, val: Teachers, device: torch.device) -> dict[str, float]:
    """A few figures, to watch the training."""
    figures, labels = {}, val.labels
    for region in VALIDATED if len(val.faces) else ():
        predictions, known = predict_all(net, val.faces, region, device), val.person >= 0
        person = val.person[known]
        if "identity" in predictions and 1 < len(set(person)) < len(person):
            figures[f"{region} AUC"] = verification(predictions["identity"][known], person)
        if labels and (known := labels["age"] >= 0).any():
            error = np.abs(predictions["age_years"][:, 0] - labels["age"])
            figures[f"{region} age MAE"] = float(error[known].mean())
        if labels and (known := labels["gender"] >= 0).any():
            right = predictions["gender"].argmax(1) == labels["gender"]
            figures[f"{region} gender"] = float(right[known].mean())
    return figures


def train(teachers: Teachers, config: Config) -> Path:
    """Train on the `train` fold, or resume. Returns: the weights. Raises: as `fit`."""
    rows, device = np.flatnonzero(teachers.fold == "train"), torch.device(config.device)
    if len(rows) < config.batch_size:
        raise ValueError(f"{len(rows)} training faces do not fill one batch; lower --batch-size")
    torch.manual_seed(config.seed)
    net = RegionNet(output_table(teachers), px=config.px)
    start_at_means(net, teachers, rows)
    net = net.to(device, memory_format=torch.channels_last)
    val, views = teachers.of("val"), Views(teachers.faces, rows, config)
    weights, steps = config.out / "region_net.safetensors", config.epochs * views.per_epoch
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
    counts = Counter(teachers.fold.tolist())
    log.info("faces: %s", ", ".join(f"{count} {fold}" for fold, count in counts.items()))
    weights = train(teachers, config)
    print(f"weights: {weights}")
    return weights


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.region_net"))
