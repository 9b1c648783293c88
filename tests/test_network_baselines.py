"""The pixel baselines on tiny made-up faces: what they learn, how they resume, and what they refuse."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from evaluation.metrics import auc
from features.regions import Crop
from models import baselines, networks
from models.baselines import NETWORKS, Network, crop_for, fit_network
from models.mesonet import MesoInception4

pytestmark = pytest.mark.usefixtures("one_thread")
PX = 32


def pictures(n: int, seed: int, contrast: float = 60.0) -> tuple[torch.Tensor, np.ndarray]:
    """Noise; in the fakes, half of the n, with a checkerboard of 4 px over it. Returns: crops and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(n) % 2
    noise = torch.randint(0, 196, (n, 3, PX, PX), generator=generator)
    cell = torch.arange(PX) // 4 % 2
    board = (cell[:, None] ^ cell) * contrast * torch.from_numpy(labels)[:, None, None, None]
    return (noise + board).to(torch.uint8), labels


CROPS, LABELS = pictures(128, 0)
CROPS_VAL, LABELS_VAL = pictures(64, 1)
CROPS_NEW, LABELS_NEW = pictures(100, 2)


def fit(name: str = "mesoinception4", **changed) -> Network:
    given = {"crops": CROPS, "labels": LABELS, "crops_val": CROPS_VAL, "labels_val": LABELS_VAL}
    settings = {"epochs": 3, "batch_size": 16, "progress": False, "pretrained": "no"}
    return fit_network(name, **{**given, **settings, **changed})


def weights(network: Network) -> dict[str, torch.Tensor]:
    return network.net.state_dict()


def same(one: Network, other: Network) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    equal = all(torch.equal(*pair) for pair in pairs)
    return equal and one.history == other.history and (one.a, one.b) == (other.a, other.b)


@pytest.fixture(scope="module")
def fitted() -> Network:
    return fit(epochs=12)


def test_every_network_sees_the_same_crop() -> None:
    assert {crop_for(name, 112) for name in NETWORKS} == {Crop.of_box(1.3, 112)}


def balanced_log_loss(score: np.ndarray, labels: np.ndarray) -> float:
    return float(
        np.mean(
            [np.logaddexp(0, score * (1 - 2 * label))[labels == label].mean() for label in (0, 1)]
        )
    )


def lowest_loss(network: Network) -> float:
    """Of the epoch that was kept, which must be the best."""
    losses = [row["val_loss"] for row in network.history]
    assert network.best_epoch == 1 + losses.index(min(losses))
    return min(losses)


def test_it_learns_what_can_be_learned(fitted) -> None:
    p = fitted.p_fake(CROPS_NEW)
    assert p.shape == (100,) and p.dtype == np.float64 and ((p > 0) & (p < 1)).all()
    assert auc(LABELS_NEW, p) > 0.9
    assert p[LABELS_NEW == 1].mean() > 0.5 > p[LABELS_NEW == 0].mean()
    assert fitted.origin == "from scratch"


def test_it_learns_nothing_from_labels_at_random() -> None:
    crops, labels = pictures(200, 3)
    shuffled = np.random.default_rng(0)
    network = fit(
        labels=shuffled.permutation(LABELS),
        crops_val=crops,
        labels_val=shuffled.permutation(labels),
    )
    assert auc(shuffled.permutation(labels), network.p_fake(crops)) == pytest.approx(0.5, abs=0.15)


def test_probabilities_are_calibrated_on_the_validation_faces(fitted) -> None:
    assert fitted.p_fake(CROPS_VAL).mean() == pytest.approx(LABELS_VAL.mean(), abs=0.02)
    logit = fitted.a * fitted.score(CROPS_VAL) + fitted.b
    assert balanced_log_loss(logit, LABELS_VAL) < lowest_loss(fitted) + 0.01
    moved = Network(**{**vars(fitted), "a": 0.0, "b": math.log(3)})
    assert moved.p_fake(CROPS_NEW) == pytest.approx(0.75)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(fitted) -> None:
    assert fitted.epochs_run == 12
    assert balanced_log_loss(fitted.score(CROPS_VAL), LABELS_VAL) == pytest.approx(
        lowest_loss(fitted)
    )
    assert fitted.history[fitted.best_epoch - 1]["val_auc"] == auc(
        LABELS_VAL, fitted.score(CROPS_VAL)
    )


def test_classes_weigh_the_same_however_many_faces_they_have() -> None:
    few = np.concatenate([np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)[:8]])
    blank = torch.full_like(CROPS[few], 128)
    network = fit(
        crops=blank, labels=LABELS[few], crops_val=CROPS_VAL[:] * 0 + 128, epochs=20, patience=20
    )
    assert network.history[-1]["val_loss"] == pytest.approx(math.log(2), abs=0.02)


def test_the_same_seed_gives_the_same_network_and_leaves_the_callers_dice_alone() -> None:
    torch.manual_seed(5)
    one = fit(epochs=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert same(fit(epochs=1), one)
    assert torch.get_num_threads() == 1  # as before
    assert not same(fit(epochs=1, seed=1), one)


def test_a_seed_decides_the_weights_it_begins_with(monkeypatch) -> None:
    begun = []
    monkeypatch.setattr(
        baselines,
        "_train",
        lambda network, *given: begun.append(float(network.score(CROPS_NEW)[0])) or 0.0,
    )
    for seed in (0, 0, 1):
        fit(epochs=1, seed=seed)
    assert begun[0] == begun[1] != begun[2]


class KilledError(Exception):
    pass


def killed_after(finished: int, monkeypatch: pytest.MonkeyPatch, **settings) -> None:
    """A run that ends in the middle of the epoch after these."""
    train, done = baselines._train, []

    def train_or_die(*given):
        if len(done) == finished:
            raise KilledError
        done.append(None)
        return train(*given)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(baselines, "_train", train_or_die)
        fit(**settings)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, monkeypatch) -> None:
    whole = fit(epochs=4)
    state = tmp_path / "deep" / "run.state"
    killed_after(2, monkeypatch, state=state, epochs=4)
    killed_after(1, monkeypatch, state=state, epochs=4)
    assert same(fit(state=state, epochs=4), whole)
    assert [path.name for path in state.parent.iterdir()] == ["run.state"]
    monkeypatch.setattr(baselines, "_train", None)  # finished: nothing is trained again
    assert same(fit(state=state, epochs=4), whole)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"epochs": 4},
        {"batch_size": 8},
        {"px": 48},
        {"patience": 2},
        {"labels": 1 - LABELS},
    ],
)
def test_a_state_of_another_run_is_refused(changed, tmp_path, monkeypatch) -> None:
    state = tmp_path / "run.state"
    killed_after(1, monkeypatch, state=state)
    with pytest.raises(ValueError, match="another run .*delete it, or name another"):
        fit(state=state, **changed)


def test_a_damaged_state_is_refused(tmp_path) -> None:
    state = tmp_path / "run.state"
    for content in (b"", b"PK\x03\x04 half a file", b"not a state"):
        state.write_bytes(content)
        with pytest.raises(
            ValueError, match="run.state: not the state of a run, or damaged; delete it"
        ):
            fit(state=state)
    torch.save(CROPS, state)
    with pytest.raises(ValueError, match="delete it"):
        fit(state=state)


def test_it_stops_when_the_validation_loss_no_longer_falls() -> None:
    wrong = 1 - LABELS_VAL
    network = fit(labels_val=wrong, epochs=30, patience=2)
    assert network.epochs_run == network.best_epoch + 2 < 30
    assert balanced_log_loss(network.score(CROPS_VAL), wrong) == pytest.approx(lowest_loss(network))


def test_a_stored_network_answers_the_same(fitted, tmp_path) -> None:
    assert fitted.save(tmp_path / "net") == tmp_path / "net"
    again = Network.load(tmp_path / "net")
    assert same(again, fitted) and np.array_equal(again.p_fake(CROPS_NEW), fitted.p_fake(CROPS_NEW))
    assert again.origin == fitted.origin
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [
        "network.json",
        "network.safetensors",
    ]


def test_what_is_no_stored_network_is_refused(fitted, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="network.json: no fitted network there"):
        Network.load(tmp_path)
    path, info = (
        tmp_path / "network.json",
        json.loads((fitted.save(tmp_path) / "network.json").read_text()),
    )
    for changed in (
        {"sha256": "0"},
        {"format": 0},
        {"name": "resnet"},
        {"px": 256},
        {"sort": 1},
        {"b": None, "a": None},
    ):
        path.write_text(
            json.dumps(
                {key: value for key, value in {**info, **changed}.items() if value is not None}
            )
        )
        if "b" in changed:
            path.write_text("{")
        with pytest.raises(ValueError, match=str(tmp_path)):
            Network.load(tmp_path)


def test_crops_of_another_side_are_resized(fitted) -> None:
    large = CROPS_NEW.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert auc(LABELS_NEW, fitted.p_fake(large)) > 0.9
    assert len(fitted.p_fake(CROPS[:0])) == 0
    assert fit(epochs=1, px=48).px == 48


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "resnet"}, "unknown network 'resnet'; the networks are mesoinception4"),
        ({"crops": CROPS.float()}, "uint8 RGB tensor"),
        ({"crops": CROPS.numpy()}, "crops are ndarray"),
        ({"crops": CROPS[:, :2]}, "of shape"),
        ({"crops": CROPS[:, :, :16]}, "32x16 px; they must be square"),
        ({"px": 16}, "at least 32"),
        ({"name": "vit_b16", "px": 40}, "multiple of 16"),
        ({"labels": LABELS[:-1]}, "128 training faces, but labels of shape"),
        ({"labels": LABELS + 1}, "training labels other than 0"),
        ({"labels": LABELS * 0}, "0 fake training faces"),
        ({"labels_val": LABELS_VAL * 0}, "0 fake validation faces; at least 25"),
        (
            {"crops_val": CROPS_VAL[:40], "labels_val": LABELS_VAL[:40]},
            "20 real validation faces; at least 25",
        ),
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": 1}, "batch size 1"),
        ({"pretrained": "maybe"}, "give auto, yes, no"),
        ({"pretrained": "yes"}, "mesoinception4: it has no ImageNet weights"),
    ],
)
def test_what_does_not_do_is_said(changed, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit(**changed)


def test_a_loss_that_is_not_finite_is_said(monkeypatch) -> None:
    def broken(px: int) -> MesoInception4:
        net = MesoInception4(px)
        torch.nn.init.constant_(net.judge[-1].bias, math.inf)
        return net

    recipe = NETWORKS["mesoinception4"]
    monkeypatch.setitem(
        NETWORKS, "mesoinception4", networks.Recipe(**{**vars(recipe), "build": broken})
    )
    with pytest.raises(ValueError, match="the loss is (inf|nan) in epoch 1"):
        fit()


def test_what_it_began_with_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MASC_WEIGHTS", str(tmp_path))
    few = {"crops": CROPS[:32], "labels": LABELS[:32], "epochs": 1}
    assert (
        fit("xception", pretrained="auto", **few).origin
        == "from scratch, no published weights found"
    )


def test_pretrained_networks_learn_at_their_own_rate(monkeypatch) -> None:
    rates = []

    def noted(net: torch.nn.Module, lr: float) -> None:
        rates.append(lr)
        raise KilledError

    monkeypatch.setattr(baselines, "_optimizer", noted)
    for origin in (
        "from scratch, no published weights found",
        "ImageNet weights xception.pth 0123456789ab",
    ):
        monkeypatch.setattr(
            baselines, "start", lambda *given, origin=origin: (MesoInception4(PX), origin)
        )
        with pytest.raises(KilledError):
            fit("xception")
    assert rates == [NETWORKS["xception"].lr, NETWORKS["xception"].lr_pretrained]
