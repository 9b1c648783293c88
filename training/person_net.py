"""Train the network that compares a face with photographs of a person, region by region.

    python -m training.person_net --teachers DIR --out outputs/person_net

DIR is that of training/region_net.py, beside the pictures that its `image` column names
(docs/reference.md). Writes `person_net.safetensors`, `log.csv` and `state.pt`: the same command
resumes a stopped run. A quarter of the training people are held out of training: on them the
comparison is calibrated (training/reference.py).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from command_line import run
from data.faces import FaceCutter
from data.files import replacing
from data.images import read_image
from features.regions import REGIONS
from models import BUNDLED
from models.base import native_bf16
from models.person_net import HEAD, MIDDLE, PX, region_input
from models.region_net import RegionNet, load_region_net, save_region_net
from training import augment
from training.loop import Options, Schedule, fit
from training.region_net import TEMPERATURE, verification
from training.teachers import Teachers, load_teachers

log = logging.getLogger("masc")
HELD_OUT = 0.17  # of the training people, beside those whom the region network was validated on
# Shares of a region among the steps. `inner` is what a swap replaces, `outer` what it keeps.
SHARES = {"full": 0.1, "inner": 0.22, "outer": 0.3}  # the others share the rest
WEIGHTS = {"identity": 2.0, "relations": 0.25, "pairs": 0.5}
MARGIN, SHARPNESS = 0.1, 0.07  # of the loss on pairs of photographs, in cosines
TOGETHER = 3  # so many times more people are drawn than a batch holds; neighbours in tone stay
ALIKE = 0.8  # correlation of a picture that was cut anew with the crop that is known
VALIDATED = ("full", "inner", "outer")


@dataclass(kw_only=True)
class Config(Options):
    teachers: Path
    """folder of aligned crops and teacher outputs, beside its pictures"""
    out: Path = Path("outputs/person_net")
    begin: Path = BUNDLED["lite"]
    """the region network that it goes on from"""
    epochs: int = 30
    batch_size: int = 256
    """faces; half of them are two photographs each of one person"""
    lr: float = 1e-3
    weight_decay: float = 0.05


def wide_faces(teachers: Teachers, folder: Path) -> np.ndarray:
    """(N, 4, 128, 128) uint8 RGBA of `HEAD`. Of faces whose picture is not there, or shows the face in
    another place, the surroundings are missing: alpha 0.
    """
    index = pd.read_csv(folder / "index.csv", keep_default_na=False)
    wide = np.zeros((len(index), 4, HEAD.px, HEAD.px), np.uint8)
    for face, known in zip(wide, teachers.faces, strict=True):
        small = cv2.resize(known.transpose(1, 2, 0), (PX, PX), interpolation=cv2.INTER_AREA)
        small[..., 3] = np.where(small[..., 3] > 127, 255, 0)
        face[:, MIDDLE, MIDDLE] = small.transpose(2, 0, 1)
    rows = np.flatnonzero(index["image"] != "")
    cutter, found = FaceCutter("one", crops=[HEAD]), 0
    for part in np.array_split(rows, max(1, len(rows) // 16)):
        images = [read_image(folder.parent / name) for name in index["image"].iloc[part]]
        crops = cutter(images)
        for face, row in zip(crops.views[HEAD].numpy(), part[crops.image], strict=True):
            both = [x[:3, MIDDLE, MIDDLE].ravel() for x in (face, wide[row])]
            if np.corrcoef(*both)[0, 1] > ALIKE:
                wide[row], found = face, found + 1
    log.info("surroundings of %d of %d faces", found, len(wide))
    return wide


def skin_tone(faces: np.ndarray) -> np.ndarray:
    """(N,) float32, lightness of the cheeks. faces: (N, 4, 128, 128)."""
    return faces[:, :3, 60:84, 44:84].mean((1, 2, 3))


def hold_out(teachers: Teachers, share: float = HELD_OUT) -> None:
    """The people of `val`, and a share of the training people, who become the fold `held out`."""
    people = np.random.default_rng(2).random(teachers.person.max() + 1) < share
    chosen = np.append(people, False)[teachers.person] & (teachers.fold == "train")
    teachers.fold = np.where(chosen, "held out", teachers.fold)


def folds(folder: Path) -> dict[str, str]:
    """The fold of every person with a name: `train`, `val` and `held out`, or `test`."""
    teachers = load_teachers(folder)
    hold_out(teachers)
    names = pd.read_csv(folder / "index.csv", keep_default_na=False)["identity"]
    return {name: fold for name, fold in zip(names, teachers.fold, strict=True) if name}


class Views(torch.utils.data.Dataset):
    """Step -> faces (B, 4, 80, 80) float16, see `region_input`, and their rows (B,).

    Half of them are pairs: the same region of two photographs of a person, whose skin is similar to
    that of the others. (One region for all would spoil the batch normalisation.) Which people and rows
    follows from (seed, step).
    """

    def __init__(self, faces: np.ndarray, teachers: Teachers, config: Config) -> None:
        self.faces, self.size, self.seed = faces, config.batch_size, config.seed
        self.rows = np.flatnonzero(teachers.fold == "train")
        self.per_epoch = len(self.rows) // self.size
        tone, person = skin_tone(faces), teachers.person
        people = [self.rows[person[self.rows] == each] for each in np.unique(person[self.rows])]
        people = [rows for rows in people if len(rows) > 1 and person[rows[0]] >= 0]
        self.people = sorted(people, key=lambda rows: tone[rows].mean())

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step))
        rows = np.fromiter(self._rows(rng), int)
        pairs = min(self.size // 4, len(self.people))
        rest = (1 - sum(SHARES.values())) / (len(REGIONS) - len(SHARES))
        chances = [SHARES.get(name, rest) for name in REGIONS]
        regions = rng.choice(REGIONS, len(rows) - pairs, p=chances)
        regions = np.concatenate([regions[:pairs].repeat(2), regions[pairs:]])
        views = torch.from_numpy(np.stack([self._view(self.faces[row], rng) for row in rows]))
        images = torch.empty(len(rows), 4, PX, PX, dtype=torch.float16)
        for region in np.unique(regions):
            chosen = torch.from_numpy(regions == region)
            images[chosen] = region_input(views[chosen], region).half()
        return images, torch.from_numpy(rows)

    def _rows(self, rng: np.random.Generator) -> Iterator[int]:
        pairs = min(self.size // 4, len(self.people))
        near = min(TOGETHER * pairs, len(self.people))
        first = rng.integers(len(self.people) - near + 1)
        for place in rng.permutation(near)[:pairs]:
            yield from rng.choice(self.people[first + place], 2, replace=False)
        yield from rng.choice(self.rows, self.size - 2 * pairs)

    @staticmethod
    def _view(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        view = augment.jitter(np.ascontiguousarray(face.transpose(1, 2, 0)), HEAD.px, rng)
        rgb = np.ascontiguousarray(view[..., :3])
        view[..., :3] = augment.degrade_crop(rgb, rng)
        if rng.random() < 0.2:  # something in front of the face
            x, y = rng.integers(24, 104, 2)
            width, height = rng.integers(8, 40, 2)
            view[
                max(0, y - height // 2) : y + height // 2, max(0, x - width // 2) : x + width // 2
            ] = 0
        return np.ascontiguousarray(view.transpose(2, 0, 1))


class Comparison(nn.Module):
    """The network and its losses.

    Cosine distance to the teacher's embedding of the whole face; relations to the teacher's embeddings of
    all training faces, as of the region network; and two photographs of one person against the others
    of the batch by the same region (InfoNCE, van den Oord et al. 2018, with the margin of Wang et al.,
    CosFace, CVPR 2018).
    """

    def __init__(self, net: RegionNet, teachers: Teachers, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.person = torch.from_numpy(teachers.person).to(device)
        target = torch.from_numpy(teachers.targets["identity"]).to(device)
        self.target = F.normalize(target, dim=1)
        train = torch.from_numpy(np.flatnonzero(teachers.fold == "train")).to(device)
        self.bank, self.bank_person = self.target[train].bfloat16(), self.person[train]

    def forward(self, images: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found, target = embeddings(self.net, images), self.target[rows]
        person = self.person[rows]
        losses = {"identity": (1 - (found * target).sum(1)).mean()}
        same = (person[:, None] == self.bank_person) & (person[:, None] >= 0)
        teacher = (target.bfloat16() @ self.bank.T).float()
        teacher = torch.where(same, teacher.clamp_min(0.9), teacher) / TEMPERATURE
        student = (found.bfloat16() @ self.bank.T).float() / TEMPERATURE
        losses["relations"] = -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()
        losses["pairs"] = self.pairs(found, person)
        total = sum(WEIGHTS[name] * value for name, value in losses.items())
        return total, {name: value.detach() for name, value in losses.items()}

    def pairs(self, found: Tensor, person: Tensor) -> Tensor:
        same = (person[:, None] == person) & (person[:, None] >= 0)
        own = torch.eye(len(found), dtype=torch.bool, device=found.device)
        known = (same & ~own).any(1)
        logits = found @ found.T
        logits = torch.where(same, logits - MARGIN, logits) / SHARPNESS
        logits = logits.masked_fill(own, -1e4)
        share = logits.log_softmax(1).masked_fill(~(same & ~own), 0)
        return -(share.sum(1) / (same & ~own).sum(1).clamp_min(1))[known].mean()


def embeddings(net: RegionNet, images: Tensor) -> Tensor:
    """Unit vectors (N, 512) float32."""
    bf16 = native_bf16(images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = net.logits(images.float().contiguous(memory_format=torch.channels_last))
    return F.normalize(logits["identity"], dim=1)


@torch.inference_mode()
def embed_all(net: RegionNet, faces: np.ndarray, region: str, device: torch.device) -> np.ndarray:
    """(N, 512) float32 of faces (N, 4, 128, 128)."""
    net.eval()
    parts = [region_input(part.to(device), region) for part in torch.from_numpy(faces).split(256)]
    return torch.cat([embeddings(net, part) for part in parts]).cpu().numpy()


def begin_from(region_net: RegionNet) -> RegionNet:
    """The region network without its outputs but `identity`."""
    net = RegionNet({"identity": region_net.outputs["identity"]}, **region_net.config)
    state = {k: v for k, v in region_net.state_dict().items() if k in net.state_dict()}
    net.load_state_dict(state)
    return net


def train(teachers: Teachers, faces: np.ndarray, config: Config) -> Path:
    """Train on the `train` fold, or resume. Returns: the weights. Raises: as `fit`."""
    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    net = begin_from(load_region_net(config.begin))
    net = net.to(device, memory_format=torch.channels_last)
    views, weights = Views(faces, teachers, config), config.out / "person_net.safetensors"
    if not views.people or not views.per_epoch:
        raise ValueError("no two training photographs of one person, or too few for a batch")
    held = (
        np.isin(teachers.fold, ("val", "held out"))
        & (teachers.person >= 0)
        & (faces[:, 3, 4, 64] > 0)
    )  # with surroundings
    steps = config.epochs * views.per_epoch
    schedule = Schedule(steps, views.per_epoch, warm_up=steps / 50, clip=5.0)

    def write(average: nn.Module, progress: str) -> dict[str, float]:
        save_region_net(average, weights, {"trained": progress})
        found = {name: embed_all(average, faces[held], name, device) for name in VALIDATED}
        person = teachers.person[held]
        return {f"{name} AUC": verification(x, person) for name, x in found.items()}

    fit(Comparison(net, teachers, device), views, write, config, schedule, len(views.rows))
    return weights


def main(config: Config) -> Path:
    teachers = load_teachers(config.teachers)
    hold_out(teachers)
    kept = config.out / "faces.npy"
    if kept.is_file():
        faces = np.load(kept, mmap_mode="r")
    else:
        config.out.mkdir(parents=True, exist_ok=True)
        faces = wide_faces(teachers, config.teachers)
        with replacing(kept) as file:
            np.save(file, faces)
    weights = train(teachers, faces, config)
    print(f"weights: {weights}")
    return weights


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.person_net"))
