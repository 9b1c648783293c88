"""What a deepfake detector must be shown beside: networks that learn to judge a face by its pixels, on the same splits.

Every network sees the same part of a face, its box 1.3 times as large, as FaceForensics++ cut it (Roessler et al., ICCV
2019). It is fitted on training faces; validation faces say when to stop, which epoch is kept, and how logits become
probabilities (Platt 1999). models/networks.py says which networks there are, and of which a run from scratch is no fair picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm import tqdm

from evaluation.metrics import auc
from features.regions import Crop
from models.base import native_bf16
from models.fitted_network import Network, at_side, placed, side_of
from models.heads import MIN_HELD_OUT, calibrate
from models.networks import NETWORKS, SCRATCH, Recipe, as_seen, recipe_of, start
from models.run_state import keep, resume

FORMAT = 1  # of a state
WEIGHT_DECAY = 0.05
WARM_UP = 0.1  # of all steps
LONGEST = 5.0  # gradients are shortened to this norm
ALIKE = 8  # faces that are disturbed alike; one by one takes twice as long


def crop_for(name: str, px: int) -> Crop:
    """What of a face the network `name` sees, at `px`: the same for all. Raises: ValueError for an unknown name or side."""
    recipe_of(name, px)
    return Crop.of_box(1.3, px)


def fit_network(
    name: str,
    crops: torch.Tensor,
    labels: Sequence[int],
    crops_val: torch.Tensor,
    labels_val: Sequence[int],
    *,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int = 5,
    px: int | None = None,
    device: str | torch.device = "cpu",
    pretrained: str = "auto",
    weights_dir: Path | None = None,
    state: Path | None = None,
    progress: bool = True,
) -> Network:
    """Fit a network of `NETWORKS` on labelled faces. On a CPU the same seed and threads give the same weights.

    crops, crops_val: (N, 3, S, S) uint8 RGB of `crop_for`. labels, labels_val: N of 0 real, 1 fake; classes weigh the same
    however many faces they have. epochs, batch_size: None: as `NETWORKS` says, `usual` on a GPU, otherwise `quick`.
    patience: epochs without a lower validation loss before it stops. px: side of what the network sees; None: the crops'.
    pretrained, weights_dir: see models.networks.start. state: a file written after every epoch; where a killed run has left
    it, the same call goes on there to the same result, and of a finished run it keeps what was found.

    Raises: ValueError for crops, labels or settings that do not do, a state of other settings or faces, and a loss that is
    not finite; otherwise as models.networks.start.
    """
    device = torch.device(device)
    px = side_of(crops) if px is None else px
    recipe = recipe_of(name, px)
    defaults = recipe.usual if device.type == "cuda" else recipe.quick
    epochs = defaults.epochs if epochs is None else epochs
    batch_size = defaults.batch_size if batch_size is None else batch_size
    if epochs < 1 or patience < 1 or batch_size < 2:
        raise ValueError(
            f"epochs {epochs}, patience {patience}, batch size {batch_size}: at least 1, 1 and 2"
        )
    faces, truth = _faces("training", crops, labels, px, 1)
    faces_val, truth_val = _faces("validation", crops_val, labels_val, px, MIN_HELD_OUT)
    batch_size = min(batch_size, len(faces))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        net, origin = start(name, px, pretrained, weights_dir)
        network = Network(name, origin, px, _bf16(recipe, device), placed(net, device), device)
        settings = {
            "name": name,
            "origin": origin,
            "px": px,
            "bf16": network.bf16,
            "seed": seed,
            "epochs": epochs,
        }
        settings |= {"batch_size": batch_size, "patience": patience, "format": FORMAT}
        settings["faces"] = _digest(faces, truth, faces_val, truth_val)
        optimizer = _optimizer(
            net, recipe.lr if origin.startswith(SCRATCH) else recipe.lr_pretrained
        )
        steps = epochs * (len(faces) // batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
        parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
        best = resume(state, settings, parts, network.history)
        done = steps // epochs * network.epochs_run
        with tqdm(total=steps, initial=done, desc=name, disable=None if progress else True) as bar:
            for epoch in range(network.epochs_run, epochs):
                if epoch and epoch - network.best_epoch >= patience:
                    break
                # So an epoch is the same wherever the run was broken before it.
                torch.manual_seed(seed * 100_003 + epoch + 1)
                loss = _train(network, faces, truth, batch_size, optimizer, schedule, bar)
                network.history.append({"loss": loss, **_validate(network, faces_val, truth_val)})
                if network.best_epoch == epoch + 1:
                    best = {key: value.cpu().clone() for key, value in net.state_dict().items()}
                bar.set_postfix(epoch=epoch + 1, val_loss=f"{network.history[-1]['val_loss']:.4f}")
                over = epoch + 1 == epochs or epoch + 1 - network.best_epoch >= patience
                keep(state, settings, {} if over else parts, network.history, best)
        net.load_state_dict(best)
        network.a, network.b = calibrate(network.score(faces_val), truth_val.numpy())
    return network


def _train(
    network: Network,
    faces: torch.Tensor,
    truth: torch.Tensor,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    bar: tqdm,
) -> float:
    """One epoch. Returns: the mean loss. Raises: ValueError where it is not finite."""
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomResizedCrop(network.px, scale=(0.8, 1.0), ratio=(0.9, 1.1), antialias=True),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
        ]
    )
    share = truth.mean()
    total, steps = 0.0, len(faces) // batch_size
    network.net.train()
    for rows in torch.randperm(len(faces))[: steps * batch_size].split(batch_size):
        batch = _augmented(faces[rows], augment)
        wanted = truth[rows]
        weight = (0.5 / torch.where(wanted == 1, share, 1 - share)).to(network.device)
        with torch.autocast(network.device.type, torch.bfloat16, enabled=network.bf16):
            logits = network.net(as_seen(batch, NETWORKS[network.name], network.device))
        loss = F.binary_cross_entropy_with_logits(
            logits[:, 0].float(), wanted.to(network.device), weight
        )
        if not torch.isfinite(loss):
            raise ValueError(
                f"{network.name}: the loss is {loss.item()} in epoch {network.epochs_run + 1}; check the crops"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.net.parameters(), LONGEST)
        optimizer.step()
        schedule.step()
        bar.update()
        total += loss.item()
    return total / steps


def _augmented(faces: torch.Tensor, augment: v2.Transform) -> torch.Tensor:
    """On one thread: several would, where other processes are busy too, wait for each other far longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.cat([augment(few) for few in faces.split(ALIKE)])
    finally:
        torch.set_num_threads(threads)


def _validate(network: Network, faces: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Raises: ValueError where the loss is not finite."""
    score, y = network.score(faces), truth.numpy()
    losses = np.logaddexp(0, score) - y * score
    loss = float((losses[y == 0].mean() + losses[y == 1].mean()) / 2)
    if not np.isfinite(loss):
        raise ValueError(
            f"{network.name}: the validation loss is {loss} after epoch {network.epochs_run + 1}"
        )
    return {"val_loss": loss, "val_auc": auc(y, score)}


def _optimizer(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW. What is one number a channel has no reason to be small, and does not decay."""
    small = [weights for weights in net.parameters() if weights.ndim <= 1]
    large = [weights for weights in net.parameters() if weights.ndim > 1]
    return torch.optim.AdamW(
        [{"params": large}, {"params": small, "weight_decay": 0.0}], lr, weight_decay=WEIGHT_DECAY
    )


def _rate(done: float) -> float:
    """Share of the highest learning rate when a share `done` of the steps is done: straight up, then down along a cosine."""
    return min(1.0, (done + 1e-3) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))


def _bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether bfloat16 is faster there."""
    return native_bf16(device) and (recipe.bf16_on_cpu or device.type == "cuda")


def _faces(
    which: str, crops: torch.Tensor, labels: Sequence[int], px: int, least: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops at `px` and labels as (N,) float32. least: faces of each class. Raises: ValueError for what does not do."""
    crops, truth = at_side(crops, px), torch.as_tensor(labels)
    if truth.shape != crops.shape[:1]:
        raise ValueError(
            f"{len(crops)} {which} faces, but labels of shape {tuple(truth.shape)}; give one each"
        )
    if not ((truth == 0) | (truth == 1)).all():
        raise ValueError(f"{which} labels other than 0 (real) and 1 (fake)")
    for label, word in enumerate(("real", "fake")):
        found = int((truth == label).sum())
        if found < least:
            raise ValueError(f"{found} {word} {which} faces; at least {least} are needed")
    return crops, truth.float()


def _digest(*tensors: torch.Tensor) -> str:
    """First digits of the SHA-256 of what they hold."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]
