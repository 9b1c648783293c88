"""Train the region network: from one region, say what the teachers say of the whole face.

The bundled network (about 45 minutes on 2 cores; resumes where it was stopped):
    python -m scripts.train_region_net --teachers DIR --out outputs/region_net

Your own, from a dump of large experts (its real faces; the experts' answers for the whole face are the targets):
    python -m scripts.train_region_net --dump outputs/features/DATASET/full --data-root DATASET --out outputs/my_net

DIR holds aligned real faces and teacher outputs (docs/region_net.md describes the files). Writes `region_net.safetensors`,
`log.csv` (losses and validation figures per epoch) and `state.pt` (to resume from). scripts/region_net_card.py then measures
it on people it has never seen.

Losses: cosine distance to the teacher's embeddings; relational distillation of identity (the student's similarities to
every training face's teacher embedding against the teacher's own, by KL at a low temperature, after Park et al., CVPR 2019,
and Tejankar et al., ICCV 2021), where pictures labelled as one person count as alike; cross-entropy for distributions;
variance-scaled squared error for vectors.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from tqdm import tqdm

from data.distill import Augmented, Teachers, load_teachers, teachers_from_dump
from features.regions import ALIGNED, REGIONS, region_masks
from models.base import Output
from models.region_net import AGE_BINS, AGE_NAMES, RegionNet, masked_input, save_region_net

LOSS_WEIGHTS = {
    "identity": 2.0,
    "appearance": 1.0,
    "age": 0.5,
    "gender": 0.5,
    "race": 0.5,
    "expression": 0.5,
    "vector": 0.5,
}
TEMPERATURE = 0.06  # of the relational loss


@dataclass
class Config:
    """What a run depends on; a stopped run resumes only under the same values."""

    epochs: int = 52
    px: int = 80  # side of what the network sees; 112 px cost twice as much and gained nothing
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.998
    seed: int = 0
    limit: int = 0  # train on this many faces only (0: all)


def output_table(teachers: Teachers) -> dict[str, Output]:
    """The heads that these teachers call for."""
    table = {}
    for name, target in teachers.targets.items():
        if name == "age":
            table["age"] = Output("distribution", len(AGE_BINS), AGE_NAMES)
            table["age_years"] = Output("scalar", 1, ("years",))
        else:
            table[name] = Output(
                teachers.kinds[name], target.shape[1], teachers.names.get(name, ())
            )
    return table


def start_at_means(net: RegionNet, teachers: Teachers, train: np.ndarray) -> None:
    """Set the heads' biases so that the untrained network answers with the training mean."""
    for name, head in net.heads.items():
        mean = np.nanmean(teachers.targets[name][train], axis=0)
        if net.outputs[name].kind == "embedding" or len(mean) != head.out_features:
            continue
        mean = torch.from_numpy(mean).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            head.bias.copy_(mean.logit() if net.outputs[name].kind == "vector" else mean.log())


class Losses:
    """All losses of a batch against the targets of the whole faces. Rows with unknown targets do not count."""

    def __init__(
        self, teachers: Teachers, train: np.ndarray, net: RegionNet, device: torch.device
    ) -> None:
        self.targets = {
            name: torch.from_numpy(value).to(device) for name, value in teachers.targets.items()
        }
        self.kinds, self.age_bins = teachers.kinds, net.age_bins
        self.scale = {
            k: 1 / v[train].nan_to_num().var(0).clamp_min(1e-3)
            for k, v in self.targets.items()
            if self.kinds[k] in ("vector", "scalar")
        }
        for name, kind in self.kinds.items():
            if kind == "embedding":
                self.targets[name] = F.normalize(self.targets[name], dim=1)
        self.bank = (
            self.targets["identity"][train].bfloat16() if "identity" in self.targets else None
        )
        self.person = torch.from_numpy(teachers.person).to(device)
        self.bank_person = self.person[train]

    def __call__(
        self, logits: dict[str, torch.Tensor], rows: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        losses = {}
        for name, value in logits.items():
            target = self.targets[name][rows]
            known = ~target.isnan().any(1)
            if not known.any():
                continue
            value, target = value[known], target[known]
            if self.kinds[name] == "embedding":
                losses[name] = (1 - F.cosine_similarity(value, target)).mean()
            elif self.kinds[name] == "distribution":
                logp = value.log_softmax(-1)
                if name == "age" and target.shape[1] == len(AGE_BINS):
                    logp = (logp.exp() @ self.age_bins).clamp_min(1e-6).log()
                losses[name] = -(target * logp).sum(-1).mean()
            else:
                given = value.sigmoid() if self.kinds[name] == "vector" else value
                losses[name] = ((given - target).square() * self.scale[name]).mean()
        if self.bank is not None:
            losses["relations"] = self.relations(logits["identity"], rows)
        return losses

    def relations(self, identity: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        teacher = self.targets["identity"][rows].bfloat16() @ self.bank.T
        same = (self.person[rows][:, None] == self.bank_person[None]) & (
            self.person[rows][:, None] >= 0
        )
        wanted = torch.where(same, teacher.float().clamp_min(0.9), teacher.float()) / TEMPERATURE
        given = F.normalize(identity, dim=1).bfloat16() @ self.bank.T
        return -(wanted.softmax(1) * (given.float() / TEMPERATURE).log_softmax(1)).sum(1).mean()

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        weight = {"relations": 0.25, **LOSS_WEIGHTS}
        return sum(weight.get(name, LOSS_WEIGHTS["vector"]) * loss for name, loss in losses.items())


@torch.inference_mode()
def predict_all(
    net: RegionNet, faces: np.ndarray, region: str, device: torch.device, batch: int = 256
) -> dict[str, np.ndarray]:
    """What the network says of each face from one region. faces: (N, 4, S, S) uint8. Returns: name -> (N, size)."""
    net.eval()
    mask = torch.from_numpy(region_masks(ALIGNED.at(faces.shape[-1]), (region,))[0]).to(device)
    parts = []
    for start in range(0, len(faces), batch):
        images = masked_input(
            torch.from_numpy(faces[start : start + batch]).to(device), mask, net.config["px"]
        )
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(
                {
                    k: v.float().cpu().numpy()
                    for k, v in net(images.contiguous(memory_format=torch.channels_last)).items()
                }
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def verification(embeddings: np.ndarray, person: np.ndarray) -> tuple[float, float]:
    """AUC and TPR at 1% FPR of 'same person?' by cosine over all pairs. embeddings: (N, D) unit; person: (N,) int."""
    scores, same = embeddings @ embeddings.T, person[:, None] == person[None]
    pairs = np.triu_indices(len(person), 1)
    scores, same = scores[pairs], same[pairs]
    threshold = np.quantile(scores[~same], 0.99)
    return float(roc_auc_score(same, scores)), float((scores[same] > threshold).mean())


def validate(net: RegionNet, teachers: Teachers, device: torch.device) -> dict[str, float]:
    """A few figures on the `val` fold: how the training goes, never a basis for the card."""
    val = teachers.fold == "val"
    if not val.any():
        return {}
    known = teachers.person[val] >= 0
    figures = {}
    for region in ("full", "upper", "lower"):
        said = predict_all(net, teachers.faces[val], region, device)
        if "identity" in said and known.sum() > 1:
            figures[f"{region} AUC"] = verification(
                said["identity"][known], teachers.person[val][known]
            )[0]
        aged = teachers.labels.get("age", np.full(len(val), -1))[val]
        if (aged >= 0).any():
            figures[f"{region} age MAE"] = float(
                np.abs(said["age_years"][:, 0] - aged)[aged >= 0].mean()
            )
            sex = teachers.labels["gender"][val]
            figures[f"{region} gender"] = float((said["gender"].argmax(1) == sex)[sex >= 0].mean())
    return figures


def train(teachers: Teachers, config: Config, out: Path, device: torch.device) -> Path:
    """Train from `teachers`' train fold, or go on where a stopped run of the same config left off.

    Returns: the path of the weights. Raises: ValueError where `out` holds a run of another config.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    rows = np.flatnonzero(teachers.fold == "train")
    if len(rows) < config.batch_size:
        raise ValueError(
            f"{len(rows)} training faces do not fill one batch; lower --batch-size ({config.batch_size})"
        )
    net = RegionNet(output_table(teachers), px=config.px)
    start_at_means(net, teachers, rows)
    net = net.to(device, memory_format=torch.channels_last)
    average = RegionNet(net.outputs, px=config.px).to(device, memory_format=torch.channels_last)
    average.load_state_dict(net.state_dict())
    losses = Losses(teachers, rows, net, device)
    decay = [p for p in net.parameters() if p.ndim > 1]
    groups = [
        {"params": decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    steps, start = len(rows) // config.batch_size, 0
    state_path, weights_path = out / "state.pt", out / "region_net.safetensors"
    if state_path.is_file():
        state = torch.load(state_path, map_location=device, weights_only=True)
        if state["config"] != vars(config):
            raise ValueError(
                f"{out} holds a run with {state['config']}; choose another --out for {vars(config)}"
            )
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]
        print(f"resuming after epoch {start} of {config.epochs}")
    for epoch in range(start, config.epochs):
        seed = (
            config.seed * 100_003 + epoch
        )  # an epoch is the same whether or not the run was broken before it
        torch.manual_seed(seed)
        views = Augmented(teachers.faces, rows, config.px, seed)
        order = torch.Generator().manual_seed(seed)
        loader = torch.utils.data.DataLoader(
            views, config.batch_size, shuffle=True, drop_last=True, num_workers=2, generator=order
        )
        net.train()
        sums: dict[str, float] = {}
        started = time.perf_counter()
        for step, (faces, masks, batch_rows) in enumerate(
            tqdm(loader, desc=f"epoch {epoch + 1}/{config.epochs}", leave=False, disable=None)
        ):
            done = (epoch * steps + step) / (config.epochs * steps)
            rate = config.lr * min(1.0, done * 50) * (0.5 + 0.5 * math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = max(rate, config.lr * 1e-3)
            batch_rows = batch_rows.to(device)
            images = masked_input(faces.to(device), masks.to(device), config.px)
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                logits = net.logits(images)
            parts = losses(logits, batch_rows)
            optimizer.zero_grad(set_to_none=True)
            losses.total(parts).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            with torch.no_grad():
                weight = min(config.ema, (1 + epoch * steps + step) / (10 + epoch * steps + step))
                for mean, value in zip(
                    average.state_dict().values(), net.state_dict().values(), strict=True
                ):
                    mean.lerp_(value, 1 - weight) if mean.is_floating_point() else mean.copy_(value)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        log = {"epoch": epoch + 1, "seconds": round(time.perf_counter() - started, 1)}
        log |= {name: round(value / steps, 4) for name, value in sums.items()}
        if (epoch + 1) % 5 == 0 or epoch + 1 == config.epochs:
            log |= {
                name: round(value, 4) for name, value in validate(average, teachers, device).items()
            }
            save_region_net(
                average, weights_path, {"trained_epochs": f"{epoch + 1} of {config.epochs}"}
            )
        print(log, flush=True)
        append_row(out / "log.csv", log)
        state = {
            "config": vars(config),
            "epoch": epoch + 1,
            "net": net.state_dict(),
            "average": average.state_dict(),
        }
        torch.save(
            {**state, "optimizer": optimizer.state_dict()}, state_path.with_suffix(".partial")
        )
        state_path.with_suffix(".partial").replace(state_path)
    return weights_path


def append_row(path: Path, row: dict) -> None:
    """One line of name=value pairs: epochs with and without validation have different columns."""
    with path.open("a", newline="") as file:
        csv.writer(file).writerow([f"{name}={value}" for name, value in row.items()])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--teachers", type=Path, help="folder of aligned crops and teacher outputs")
    source.add_argument("--dump", type=Path, help="a dump whose experts are the teachers")
    parser.add_argument("--data-root", type=Path, help="with --dump: where its images are now")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/region_net"),
        help="where weights, log and state go",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, default in vars(Config()).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"default {default}",
        )
    args = parser.parse_args()
    config = Config(**{name: getattr(args, name) for name in vars(Config())})
    if args.dump:
        teachers = teachers_from_dump(args.dump, args.data_root, config.limit or None)
    else:
        teachers = load_teachers(args.teachers, config.limit or None)
    print(
        {fold: int((teachers.fold == fold).sum()) for fold in ("train", "val", "test")},
        "faces;",
        len(REGIONS),
        "regions",
    )
    print("weights:", train(teachers, config, args.out, torch.device(args.device)))


if __name__ == "__main__":
    main()
