"""Train the head on CLIP's blocks: on pseudo-fakes, redrawn and restored faces, and labelled dumps.

    python preprocessing_pipeline.py --data-root DATA/dfdc --index DATA/index.csv
    python -m training.block_head --features outputs/features/*/lite --lots 150

Uses the landmarks of the dumps, and their pictures where the dump found them or --data-root says: the
train split alone. CLIP is frozen and slow, so what it says of each lot of 100 faces is kept in
--out/lots (5.5 MB; half a minute of a core, in 16 bits where the CPU has them), and the head is trained on that
afterwards, in minutes: stop it at any time, the same command goes on. --without leaves a dataset or
a method out of training, for figures on it; --left-out does so for each dataset in turn, and
preprocessing_pipeline.py --left-out-heads keeps what these heads say in dumps.
Writes `block_head.safetensors`, `log.csv` and `state.pt`.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from command_line import run
from data.dump import read_dump
from data.files import replacing, write_json
from evaluation.metrics import auc
from models import CLIP_MODELS
from models.base import native_bf16
from models.block_head import BlockHead, load_block_head
from models.clip_image import ClipImage
from models.ensemble import find_weights
from models.tensors import write_half
from training.aligned_crops import real_faces, roots_of
from training.loop import Options, Schedule, fit
from training.pseudo_fakes import KINDS, PseudoFakes
from training.reconstruction import with_reconstructions
from training.restoration import network
from training.views import PAIRS, PLAIN, REDRAWN, RESTORED, Labelled, Views

log = logging.getLogger("masc")
TOGETHER = 8  # faces that CLIP sees at once
SMOOTHED = 0.05  # of the labels
# Of a step; the rest are pseudo-fakes.
SHARES = {"redrawn": 0.09, "restored": 0.22, "plain": 0.05, "labelled": 0.32}
FEATURES, LEFT_OUT, HEAD = "lots", "left_out", "block_head.safetensors"


@dataclass(kw_only=True)
class Config(Options):
    features: tuple[Path, ...]
    """dumps: real faces of all, fakes of those that have both"""
    data_root: tuple[str, ...] = ()
    """DATASET=DIR for pictures that have moved"""
    out: Path = Path("outputs/block_head")
    start: str = ""
    """a head to train further"""
    left_out: bool = False
    """train it again without each dataset, too, for figures on what it has not seen"""
    without: tuple[str, ...] = ()
    """datasets (real faces, too), methods or kinds of fakes that do not train; the lots stay the same"""
    lots: int = 150
    """of 100 faces"""
    faces: int = 700
    """real faces of each dump that pseudo-fakes are made of, at most"""
    steps: int = 250
    pairs: int = 110
    """in one step"""
    lr: float = 5e-4
    weight_decay: float = 0.05
    autoencoder_steps: int = 220
    interval: int = 50
    """steps between rows of the log"""
    ema: float = 0.99
    """decay of the moving average of the weights"""

    def __post_init__(self) -> None:
        if self.left_out and self.seconds:
            raise ValueError(
                "--left-out trains several heads to their end: give it without --seconds"
            )


@cache
def clip() -> ClipImage:
    """Of each process its own. Raises: MissingWeightsError."""
    torch.set_num_threads(1)
    tower = CLIP_MODELS["standard"]
    file = find_weights(["clip"], None, tower)["clip"]
    return ClipImage(file, native_bf16(torch.device("cpu")), tower).frozen("cpu")


def seen(faces: np.ndarray) -> np.ndarray:
    """What the head reads of whole faces (N, px, px, 4) uint8: (N, 36, 768) float16."""
    expert, found = clip(), []
    for part in torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous().split(TOGETHER):
        with expert.inference(part.device):
            blocks = expert.blocks(part)[1]
        found.append(expert.statistics(part, blocks)[:, 0].half())
    return torch.cat(found).numpy()


class Lots(Dataset):
    """Number -> the file with what the head reads of a lot; made unless it is there."""

    name = "statistics"  # of the array that is kept

    @staticmethod
    def kept(faces: np.ndarray) -> np.ndarray:
        return seen(faces)

    def __init__(self, views: Views, folder: Path, settings: dict) -> None:
        """settings: what the lots follow from. Raises: ValueError: the folder has others."""
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / "settings.json"
        if note.is_file() and json.loads(note.read_text()) != settings:
            raise ValueError(f"{folder}: lots of other faces or settings; choose another --out")
        write_json(note, settings)
        self.views, self.folder = views, folder

    def __getitem__(self, number: int) -> Path:
        file = self.folder / f"{number:05d}.npz"
        if not file.is_file():
            faces, kinds, sources = self.views.lot(number)
            about = {"kinds": np.array(kinds), "sources": np.array(sources)}
            with replacing(file) as out:
                np.savez(out, **{self.name: self.kept(faces)}, **about)
        return file


def joined(files: Sequence[Path], name: str) -> np.ndarray:
    """An array of all lots, one after the other; a large one is never twice in memory."""
    with np.load(files[0]) as first:
        shape, kind = first[name].shape, first[name].dtype
    if kind.kind == "U":  # texts are as wide as their longest
        return np.concatenate([_of(file, name) for file in files])
    found = np.empty((len(files), *shape), kind)
    for lot, file in zip(found, files, strict=True):
        lot[:] = _of(file, name)
    return found.reshape(-1, *shape[1:])


def _of(file: Path, name: str) -> np.ndarray:
    with np.load(file) as lot:
        return lot[name]


class Pairs(Dataset):
    """Step -> what was kept of faces, as (2P, 36, 768) float16, real and fake in turn.

    Of each source its share; of those with labels each dataset by the root of its number of fakes,
    so that a few of them are not learned by heart.

    fakes: of each dataset.
    """

    on_device = True  # made in this process: the lots are in its memory

    def __init__(
        self, files: list[Path], config: Config, fakes: Mapping[str, int], name: str = Lots.name
    ) -> None:
        kinds, sources = (joined(files, part) for part in ("kinds", "sources"))
        self.kinds = np.where(np.isin(sources, config.without), "", kinds)
        self.kept = joined(files, name)
        self.pairs, self.seed = config.pairs, config.seed
        self.pools = {kind: self._rows([kind]) for kind in (REDRAWN, RESTORED)}
        self.pools |= {"plain": [], "labelled": []}
        self.weights = {source: [1.0] * len(pools) for source, pools in self.pools.items()}
        for dataset, kinds in self._kept(config.without).items():
            source = "plain" if dataset.startswith(PLAIN) else "labelled"
            self.pools[source] += self._rows(kinds)
            self.weights[source].append(fakes[dataset.removeprefix(PLAIN)] ** 0.5)
        self.made = np.flatnonzero(np.isin(self.kinds, [*KINDS]))
        if not len(self.made):
            raise ValueError(
                "--without leaves no pseudo-fakes: give a dump of another dataset, too"
            )
        log.info("pairs: %d of pseudo-fakes, %d in all", len(self.made), len(self.kinds))

    def _rows(self, kinds: list[str]) -> list[np.ndarray]:
        """The pairs of these kinds as one pool; no pool where there are none."""
        rows = np.flatnonzero(np.isin(self.kinds, kinds))
        return [rows] if len(rows) else []

    def _kept(self, without: tuple[str, ...]) -> dict[str, list[str]]:
        """Dataset, after PLAIN where it is, -> kinds of labelled pairs that are not left out."""
        kept = {}
        for name in sorted({*self.kinds.tolist()} - {*KINDS, REDRAWN, RESTORED, ""}):
            dataset, _, method = name.partition(": ")
            parts = method.partition(": ")  # the kind before it, where the index has one
            about = {dataset.removeprefix(PLAIN), method, parts[0], parts[2]} - {""}
            if not about & {*without}:
                kept.setdefault(dataset, []).append(name)
        return kept

    def __getitem__(self, step: int) -> tuple[Tensor]:
        rng = np.random.default_rng((self.seed, step))
        rows, end = rng.choice(self.made, self.pairs), 0
        for source, pools in self.pools.items():
            count = round(self.pairs * SHARES[source]) if pools else 0
            share = np.array(self.weights[source]) / max(sum(self.weights[source]), 1e-9)
            chosen = rng.choice(len(pools), count, p=share) if count else ()
            rows[end : end + count] = [rng.choice(pools[pool]) for pool in chosen]
            end += count
        both = np.stack([2 * rows, 2 * rows + 1], 1).ravel()
        return (torch.from_numpy(self.kept[both]),)


def loss_of(logits: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Cross-entropy of softened labels, and figures to log. logits: real and fake in turn."""
    label = (torch.arange(len(logits), device=logits.device) % 2).float()
    loss = F.binary_cross_entropy_with_logits(logits, label * (1 - 2 * SMOOTHED) + SMOOTHED)
    found = auc(label.cpu().numpy(), logits.detach().cpu().numpy())
    return loss, {"loss": loss.detach(), "AUC in training": found}


class Binary(nn.Module):
    """The head and its loss."""

    def __init__(self, net: BlockHead) -> None:
        super().__init__()
        self.net = net

    def forward(self, statistics: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        return loss_of(self.net(statistics))


def train(files: list[Path], fakes: Mapping[str, int], faces: int, config: Config) -> Path:
    """Train, or resume. fakes: of each dataset. Returns: the weights. Raises: as `fit`."""
    torch.manual_seed(config.seed)
    net = load_block_head(Path(config.start)) if config.start else BlockHead()
    if net.norms:
        raise ValueError(
            f"{config.start}: has normalisations of its own; python -m training.block_norms trains it"
        )
    schedule = Schedule(config.steps, config.interval, warm_up=50, clip=1.0)
    return fitted(Binary(net), Pairs(files, config, fakes), faces, config, schedule)


def fitted(task: nn.Module, pairs: Pairs, faces: int, config: Config, schedule: Schedule) -> Path:
    """Returns: where the weights of `task.net` are. Raises: as `fit`."""
    weights = config.out / HEAD

    def write(average: BlockHead, progress: str) -> None:
        write_half(average, weights, {"trained": progress})

    fit(task.to(config.device), pairs, write, config, schedule, faces)
    return weights


def left_out_names(datasets: Sequence[Labelled]) -> list[str]:
    """The datasets, each of which is left out once, where there are several."""
    names = sorted({dataset.name for dataset in datasets})
    return names if len(names) > 1 else []


def made_lots(
    config: Config, make: type[Lots] = Lots
) -> tuple[list[Path], dict[str, int], int, list[str]]:
    """The files of the lots, made where they are not there; fakes of each dataset; the number of
    real faces; and the datasets that are left out in turn.
    """
    files = [config.out / FEATURES / f"{number:05d}.npz" for number in range(config.lots)]
    clip()  # report missing weights before anything takes long
    if not all(file.is_file() for file in files):
        network()
    dumps = [read_dump(path) for path in config.features]
    roots = roots_of(dumps, config.data_root)
    crops = real_faces(dumps, roots, config.faces, max(1, config.workers))
    datasets = [Labelled.of(dump, root) for dump, root in zip(dumps, roots, strict=True)]
    steps = config.autoencoder_steps
    crops = with_reconstructions(crops, steps, config.seed, torch.device(config.device))
    views = Views(PseudoFakes(crops), datasets, clip().crop, config.seed)
    settings = {name: getattr(config, name) for name in ("faces", "seed", "autoencoder_steps")}
    settings |= {"pairs": PAIRS, "dumps": [dump.digest for dump in dumps]}
    lots = make(views, config.out / FEATURES, settings)
    loader = DataLoader(
        lots, batch_size=None, sampler=range(config.lots), num_workers=config.workers
    )
    bar = tqdm(loader, total=config.lots, desc="lots", disable=None)
    files, fakes = [*bar], Counter()
    for dataset in datasets:
        fakes[dataset.name] += sum(map(len, dataset.fakes.values()))
    return files, fakes, len(crops), left_out_names(datasets) if config.left_out else []


def left_out(config: Config, names: Sequence[str], train: Callable[[str, Config], Path]) -> None:
    """`train` once more without each dataset; the weights lie together in --out/left_out."""
    for name in names:
        without = (*config.without, name)
        part = replace(config, start="", without=without, out=config.out / LEFT_OUT / name)
        found = train(name, part)
        shutil.copy(found, config.out / LEFT_OUT / f"{name}{found.suffix}")


def main(config: Config) -> Path:
    files, fakes, faces, names = made_lots(config)
    weights = train(files, fakes, faces, config)
    left_out(config, names, lambda name, part: train(files, fakes, faces, part))
    print(f"weights: {weights}")
    return weights


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.block_head"))
