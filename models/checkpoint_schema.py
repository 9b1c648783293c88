"""What a checkpoint must hold: types, ranges and names of checkpoint.json, shapes of its arrays."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from features.regions import REGIONS
from models.classifiers import MODELS

Rule = Callable[[object, str], None]  # raises a ValueError that names the field
FLOATS = (np.float16, np.float32, np.float64)
LARGEST = sys.float_info.max
SURE = 1 + sys.float_info.epsilon  # a threshold that no probability reaches
LIMITS = ("face_px", "sharpness", "score", "yaw", "missing", "distance")
COUNTS = ("real", "fake", "groups")


def refuse(value: object, field: str, wanted: str) -> None:
    found = json.dumps(value, ensure_ascii=True)
    found = found if len(found) < 60 else f"{found[:50]}..."
    raise ValueError(f"{field}: expected {wanted}, found {found}")


def number(low: float = -LARGEST, high: float = LARGEST) -> Rule:
    def rule(value: object, field: str) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            refuse(value, field, f"a number from {low:.5g} to {high:.5g}")

    return rule


def whole(low: int = 0, high: int = 2**53) -> Rule:
    def rule(value: object, field: str) -> None:
        if type(value) is not int or not low <= value <= high:
            refuse(value, field, f"a whole number from {low} to {high}")

    return rule


def text(pattern: str = "(?s).+") -> Rule:
    def rule(value: object, field: str) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            refuse(value, field, "text" if pattern == "(?s).+" else f"text like {pattern}")

    return rule


def one_of(*values: object) -> Rule:
    def rule(value: object, field: str) -> None:
        if not any(type(value) is type(each) and value == each for each in values):
            refuse(value, field, " or ".join(map(str, values)))

    return rule


def list_of(each: Rule, least: int = 0) -> Rule:
    """Of different values."""

    def rule(value: object, field: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            refuse(value, field, f"a list of {least} or more")
        for place, entry in enumerate(value):
            each(entry, f"{field}[{place}]")
        if len({json.dumps(entry) for entry in value}) < len(value):
            refuse(value, field, "no entry twice")

    return rule


def table_of(each: Rule, key: Rule | None = None, least: int = 0) -> Rule:
    def rule(value: object, field: str) -> None:
        if not isinstance(value, dict) or len(value) < least:
            refuse(value, field, f"an object of {least} or more entries")
        for name, entry in value.items():
            (key or text())(name, f"a name in {field}")
            each(entry, f"{field}.{name}")

    return rule


def record(optional: Mapping[str, Rule] | None = None, **rules: Rule) -> Rule:
    optional = optional or {}

    def rule(value: object, field: str) -> None:
        if not isinstance(value, dict):
            refuse(value, field or "its content", "an object")
        prefix = f"{field}." if field else ""
        for name in rules:
            if name not in value:
                raise ValueError(f"lacks {prefix}{name}")
        for name, entry in value.items():
            if name not in rules and name not in optional:
                raise ValueError(f"{prefix}{name}: no such field is known")
            (rules | optional)[name](entry, prefix + name)

    return rule


def nothing_or(rule: Rule) -> Rule:
    def optional(value: object, field: str) -> None:
        if value is not None:
            rule(value, field)

    return optional


SHA256 = text("[0-9a-f]{64}")
COUNTED = record(**dict.fromkeys(COUNTS, whole()))
OUTPUT = record(kind=text(), size=whole(1, 100_000), names=list_of(text()))
KIND = record(
    kind=text(),
    left_out=one_of("method", "dataset", ""),
    **dict.fromkeys(("fakes", "reals", "found", "nothing_found"), whole()),
    auc=record(**dict.fromkeys(("value", "low", "high"), nothing_or(number(0, 1)))),
    false_alarms=nothing_or(whole()),
)
INFO = record(
    outputs=table_of(OUTPUT, text(r"[\w-]+\.[\w-]+"), 1),
    features=list_of(text(r"[^/]+/[^/]+/[^/]+"), 1),
    head=one_of(*MODELS),
    forgery_weight=number(0),
    calibration=record({"prior": number(0, 1)}, a=number(0), b=number(), how=text(), on=text()),
    threshold=record(p_fake=number(0, SURE), fpr=number(0, 1)),
    reference=record(percentiles=list_of(number(0, 100), 1), faces=whole(1)),
    limits=table_of(number(), one_of(*LIMITS)),
    profile=text(),
    regions=one_of(list(REGIONS)),
    weights=table_of(SHA256, least=1),
    precision=one_of("float32", "tf32", "bfloat16"),
    groups_dropped=list_of(text()),
    groups_only=list_of(text()),
    trained_on=list_of(
        record(dataset=text("(?s).*"), counts=record(train=COUNTED, val=COUNTED)), 1
    ),
    seed=whole(),
    identity_disjoint=one_of(True, False),
    versions=table_of(text()),
    optional={
        "appearance_weight": number(0),
        "clip_model": text(),
        "photographs": one_of(True),
        "kinds": list_of(KIND),
        "nothing_found": record(
            p_fake=number(0, SURE), **dict.fromkeys(("level", "fakes", "reals"), number(0, 1))
        ),
        "dumps": list_of(
            record(
                dataset=text("(?s).*"),
                profile=text(),
                condition=text("(?s).*"),
                digest=text("[0-9a-f]*"),
            )
        ),
    },
)

# The size of each axis: a number, or a letter or word that means the same number everywhere.
ARRAYS: dict[str, Sequence] = {
    "reference": "PF",
    "real_scores": "N",
    "disagreement": "PR",
    **{f"head.{name}": "F" for name in ("median", "mean", "scale", "forgery_weight")},
}
ASCENDING = ("reference", "real_scores", "disagreement")  # along the first axis
EXPECTATION = re.compile(r"expectations\.(centres|maps|means|bases|whiten)(?:/([^/]+))?(?:/(.+))?")


def check(info: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises: ValueError that names the field or the array, and what is wrong with it."""
    INFO(info, "")
    outputs = info["outputs"]
    for name, output in outputs.items():
        if len(output["names"]) not in (0, output["size"]):
            refuse(output["names"], f"outputs.{name}.names", f"none or {output['size']}")
    for place, name in enumerate(info["features"]):
        if name.partition("/")[0] not in outputs:
            refuse(name, f"features[{place}]", "a column of one of the outputs")
    percentiles = info["reference"]["percentiles"]
    if percentiles != sorted(percentiles):
        refuse(percentiles, "reference.percentiles", "ascending numbers")
    if ("kinds" in info) != ("nothing_found" in info):
        raise ValueError("kinds and nothing_found: expected both or neither")
    for place, row in enumerate(info.get("kinds", ())):
        of_reals = (row["false_alarms"] or 0, row["reals"])
        for count, of in ((row["found"] + row["nothing_found"], row["fakes"]), of_reals):
            if count > of or (row["false_alarms"] is not None and not row["reals"]):
                refuse(row, f"kinds[{place}]", "counts of its fakes and real faces")
    model = {f"head.model.{name}": size for name, size in MODELS[info["head"]].shapes.items()}
    if missing := [name for name in ARRAYS | model if name not in arrays]:
        raise ValueError(f"lacks the array {missing[0]}")
    known = {"F": len(info["features"]), "P": len(percentiles), "R": len(REGIONS) - 1}
    for name, array in arrays.items():
        sizes = (ARRAYS | model).get(name)
        _check_shape(name, array, _expectation(name, outputs) if sizes is None else sizes, known)
        _check_numbers(name, array)
    components = sum(count for name, count in known.items() if name.startswith("components of "))
    if components != known.get("components", 0):
        raise ValueError("expectations.centres: not as many components as expectations.bases")


def _check_shape(name: str, array: np.ndarray, sizes: Sequence, known: dict[str, int]) -> None:
    if len(sizes) == array.ndim:
        pairs = zip(sizes, array.shape, strict=True)
        sizes = [known.setdefault(x, n) if isinstance(x, str) else x for x, n in pairs]
    if list(array.shape) != list(sizes):
        raise ValueError(
            f"{name}: of shape {array.shape}; features, outputs, head and reference need {tuple(sizes)}"
        )


def _check_numbers(name: str, array: np.ndarray) -> None:
    if name == "head.model.booster":
        if array.dtype != np.uint8:
            raise ValueError(f"{name}: of type {array.dtype}, expected uint8")
        return
    if array.dtype not in FLOATS:
        raise ValueError(f"{name}: of type {array.dtype}, expected float16, float32 or float64")
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: empty, or a number in it is not finite")
    if name in ASCENDING and (np.diff(array, axis=0) < 0).any():
        raise ValueError(f"{name}: not in ascending order")
    if name == "head.scale" and (array <= 0).any():
        raise ValueError(f"{name}: a number in it is not positive")
    if name == "real_scores" and (array[0] < 0 or array[-1] > 1):
        raise ValueError(f"{name}: not between 0 and 1")


def _expectation(name: str, outputs: Mapping) -> tuple:
    """Sizes of an array of features.expectations.Expectations."""
    found = EXPECTATION.fullmatch(name)
    table, key, rest = found.groups() if found else ("", "", "")
    if table == "centres":
        return len(REGIONS), "components"
    if table == "maps":
        return "components", "components"
    output = rest if table == "whiten" else key
    if output not in outputs:
        raise ValueError(f"{name}: no array of this name is known")
    size, components = outputs[output]["size"], f"components of {output}"
    return {
        "means": (size,),
        "bases": (size, components),
        "whiten": (components, components),
    }[table]
