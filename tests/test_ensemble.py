"""The expert ensemble: batches, memory that runs out, and which weights it needs."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from features.regions import ALIGNED, REGIONS, Crop
from models import ensemble as ensembles
from models.base import Expert, Output, native_bf16
from models.ensemble import (
    BATCH_CPU,
    Ensemble,
    arithmetic,
    experts_of,
    find_device,
    out_of_memory,
    usual_batch,
    usual_precision,
)

WIDE = Crop.around(0.5, 0.5, 1.5, 1.5, 32)


class Toy(Expert):
    """Outputs how bright each face is, for every region; runs out of memory beyond `room` faces."""

    outputs = {"light": Output("scalar", 1), "twice": Output("vector", 2, ("a", "b"))}

    def __init__(self, name, crop, weights, room=10**9, faces_on_cpu=10**9) -> None:
        super().__init__(nn.Identity(), weights)
        self.name, self.crop, self.room, self.faces_on_cpu = name, crop, room, faces_on_cpu
        self.calls: list[int] = []

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls.append(len(faces))
        if len(faces) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        light = faces[:, :3].float().mean((1, 2, 3))[:, None, None].expand(-1, len(REGIONS), 1)
        return {"light": light, "twice": light.repeat(1, 1, 2)}


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "w").write_bytes(b"weights")
    return tmp_path / "w"


def views(faces: int) -> dict[Crop, torch.Tensor]:
    levels = torch.arange(faces, dtype=torch.uint8)[:, None, None, None]
    return {crop: levels.expand(-1, 4, crop.px, crop.px) for crop in (ALIGNED, WIDE)}


def test_every_expert_sees_its_own_crop_and_all_faces_come_back_in_order(weights):
    ensemble = Ensemble.of([Toy("a", ALIGNED, weights), Toy("b", WIDE, weights)])
    found = ensemble(views(5))
    assert list(found) == list(ensemble.outputs) == ["a.light", "a.twice", "b.light", "b.twice"]
    for name, value in found.items():
        assert value.dtype == torch.float16 and value.shape == (
            5,
            len(REGIONS),
            ensemble.outputs[name].size,
        )
        assert value[:, 3, 0].tolist() == [0, 1, 2, 3, 4]
    assert [expert.calls for expert in ensemble.experts] == [
        [5],
        [5],
    ]  # one call for every region of every face
    assert len(set(ensemble.weights.values())) == 1 and ensemble.crops == {"a": ALIGNED, "b": WIDE}


def test_a_cpu_gets_the_batch_size_of_the_expert(weights):
    ensemble = Ensemble.of([Toy("a", ALIGNED, weights, faces_on_cpu=2)])
    assert ensemble(views(5))["a.light"][:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert ensemble.experts[0].calls == [2, 2, 1]


def test_running_out_of_memory_halves_the_batch_and_goes_on(weights):
    easy, greedy = Toy("easy", WIDE, weights), Toy("greedy", ALIGNED, weights, room=3)
    ensemble = Ensemble.of([easy, greedy])
    assert ensemble(views(11))["greedy.light"][:, 0, 0].tolist() == list(range(11))
    assert ensemble.faces_at_once == 3
    greedy.calls.clear()
    assert ensemble(views(11))["easy.light"][:, 0, 0].tolist() == list(range(11))
    assert greedy.calls == [3, 3, 3, 2]  # remembered: nothing is tried in vain again


def test_batches_for_a_gpu_have_few_sizes(weights, monkeypatch):
    monkeypatch.setattr(Ensemble, "pads", True)
    expert = Toy("a", ALIGNED, weights)
    ensemble = Ensemble.of([expert])

    def seen(faces: int) -> list[int]:
        expert.calls.clear()
        assert ensemble(views(faces))["a.light"][:, 0, 0].tolist() == list(range(faces))
        return expert.calls

    assert [seen(faces)[:] for faces in (1, 3, 64, 61, 65)] == [[1], [4], [64], [64], [128]]
    ensemble.faces_at_once = 12
    assert [seen(faces)[:] for faces in (1, 12, 30)] == [[12], [12], [12, 12, 12]]
    expert.room = 5
    assert seen(8) == [12, 6, 3, 3, 3] and seen(1) == [3]


def test_one_face_that_does_not_fit_raises(weights):
    with pytest.raises(torch.OutOfMemoryError):
        Ensemble.of([Toy("a", ALIGNED, weights, room=0)])(views(4))


def test_the_batch_that_is_fastest(weights, monkeypatch):
    expert = Toy("a", ALIGNED, weights)
    ensemble = Ensemble.of([expert])
    assert ensemble.best_batch() == BATCH_CPU
    monkeypatch.setattr(ensemble, "device", torch.device("cuda"))
    monkeypatch.setattr(ensemble, "_to_device", lambda view: view)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    now, freed = 0.0, []
    rates = {16: 300, 32: 528, 64: 696, 128: 719, 256: 724}  # faces/s; `full` on an H200
    forward = ensemble._forward

    def timed(given):
        nonlocal now
        faces, first = len(given[ALIGNED]), expert.calls.count(len(given[ALIGNED])) == 0
        found = forward(given)
        now += faces / rates.get(faces, 1) + 9 * first  # the first one plans
        return found

    monkeypatch.setattr(ensemble, "_forward", timed)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    monkeypatch.setattr(ensembles.time, "perf_counter", lambda: now)

    def best(room: int = 10**9) -> tuple[int, list[int]]:
        expert.room = room
        expert.calls.clear()
        freed.clear()
        size = ensemble.best_batch()
        assert len(freed) == len({*expert.calls})
        return size, expert.calls

    assert best() == (64, 4 * [16] + 4 * [32] + 4 * [64] + 4 * [128])
    assert best(room=100)[0] == 64 and best(room=63)[0] == 32
    assert best(room=5) == (4, [16, 8] + 4 * [4]) and best(room=1)[0] == best(room=0)[0] == 1
    rates |= {16: 900, 32: 1941, 64: 5784, 128: 7739, 256: 8392}  # `lite`
    assert best()[0] == 256


def test_batches_by_default():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert usual_batch(cpu, ["clip"]) == usual_batch(cpu, ["lite"]) == BATCH_CPU
    assert usual_batch(gpu, ["lite", "traces"]) == 256 and usual_batch(gpu, ["lite", "clip"]) == 64


def test_outputs_can_be_asked_for_later(weights):
    ensemble = Ensemble.of([Toy("a", ALIGNED, weights), Toy("b", WIDE, weights)])
    first, second = ensemble.start(views(3)), ensemble.start(views(5))
    for pending, faces in ((second, 5), (first, 3)):
        found, expected = pending.result(), ensemble(views(faces))
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("tf32", [False, True])
def test_settings_of_a_gpu_hold_for_the_forward_only(monkeypatch, tf32):
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul

    def settings() -> tuple[bool, ...]:
        return cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark

    before = settings()
    with pytest.raises(KeyError), arithmetic(torch.device("cuda"), tf32, benchmark=True):
        assert settings() == (tf32, tf32, True)
        raise KeyError
    assert settings() == before
    with arithmetic(torch.device("cpu"), tf32, benchmark=True):
        assert settings() == before


def test_nothing_is_built_before_all_weights_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(ensembles, "expert_class", lambda name: pytest.fail(f"{name} was built"))
    with pytest.raises(FileNotFoundError) as caught:
        Ensemble(experts_of("full"), weights_dir=tmp_path)
    for entry in (
        "arcface_r50.safetensors",
        "face_multitask_v28.safetensors",
        "vggface2.pt",
        "clip_224.openai",
    ):
        assert entry in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no such folder") as caught:
        Ensemble(experts_of("full"), weights_dir=tmp_path / "nowhere")
    assert len(str(caught.value).splitlines()) == 1


def test_devices():
    assert find_device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus", "meta"):
        with pytest.raises(ValueError, match=f"--detect-on {name}: not available here"):
            find_device(name, "--detect-on")


def test_out_of_memory_is_recognised_by_message():
    for message in (
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "can't allocate memory: you tried",
    ):
        assert out_of_memory(RuntimeError(message))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and out_of_memory(
        MemoryError()
    )
    assert not out_of_memory(RuntimeError("shapes do not fit"))


def test_an_output_that_is_not_finite_is_missing_for_that_expert_only(weights):
    class Overflowing(Toy):
        def forward(self, faces):
            outputs = super().forward(faces)
            return {**outputs, "light": torch.where(outputs["light"] == 2, 1e6, outputs["light"])}

    found = Ensemble.of([Overflowing("a", ALIGNED, weights), Toy("b", ALIGNED, weights)])(views(4))
    assert [found[name][:, 0, 0].isnan().tolist() for name in found] == 2 * [
        [False, False, True, False]
    ] + 2 * [[False] * 4]


def test_unknown_profiles_and_experts():
    with pytest.raises(ValueError, match="unknown profile 'huge'; the profiles are lite, full"):
        experts_of("huge")
    with pytest.raises(ValueError, match="unknown expert nose; the experts are lite, fairface"):
        experts_of("full", ["nose", "clip"])
    assert experts_of("full", ["clip", "fairface"]) == ("fairface", "clip")  # always in one order


def test_usual_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    gpu = torch.device("cuda")
    found = [
        usual_precision(gpu, names)
        for names in (("lite",), ("traces",), ("lite", "traces"), ("traces", "clip"))
    ]
    assert found == ["tf32", "tf32", "tf32", "bfloat16"]
    assert usual_precision(torch.device("cpu"), ("clip",)) == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert usual_precision(gpu, ("lite", "clip")) == "float32"


@pytest.mark.parametrize(
    ("able", "native"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)],
)
def test_a_cpu_that_emulates_bfloat16_is_recognised(able, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert native_bf16(torch.device("cpu")) is native
