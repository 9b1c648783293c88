"""Adding experts to a finished dump: only their answers are computed, from crops cut at the landmarks that the dump holds.

The dump stays whole and readable meanwhile: shards gather in `extending/`, and meta.json, which says what there is, changes
last. A picture that has changed since, or cannot be read any more, costs its faces the answers of the new experts, with the
reason in missing.csv; where many have, nothing is added.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

from data.cutting import samples_of
from data.datasets import Sample
from data.dump import COLUMNS, MISSING_COLUMNS, Dump, Row, read_dump, read_settings
from data.files import write_csv, write_json
from data.store import EXTENDING, NOT_FINITE, ShardWriter

SPOILED = 0.05  # of the faces without an answer because of their pictures: this cannot be the right dataset


def check_extendable(dump: Dump, settings: Mapping, samples: Sequence[Sample]) -> None:
    """Whether answers computed with these settings, of these pictures, fit those in `dump`. Raises: ValueError."""
    there = {key: dump.meta["config"].get(key) for key in settings}
    differing = [
        f"\n  {key}: {there[key]!r} there, {now!r} now"
        for key, now in settings.items()
        if there[key] != now
    ]
    if differing:
        raise ValueError(
            f"{dump.path}: cannot be extended, it has other settings:{''.join(differing)}"
        )
    lost = set(dump.rows["path"].tolist()) - {sample.path for sample in samples}
    if lost:
        raise ValueError(
            f"{dump.path}: cannot be extended, {len(lost)} of its pictures are not in this dataset, such as {min(lost)}"
        )


class Extension(ShardWriter):
    """Writes the answers of new experts shard by shard, and goes on where an earlier run stopped.

    dump: the finished one. outputs: `<expert>.<output>` -> {"kind", "size", "names"} of the new experts. settings: what
    their answers depend on. `samples` are the pictures with a face, in the dump's order; `rows` maps each to its rows.

    Raises: ValueError where other experts are being added, or another process is at it.
    """

    def __init__(
        self, dump: Dump, outputs: Mapping[str, Mapping], settings: dict, shard_size: int = 256
    ) -> None:
        self.dump, self.outputs = dump, dict(outputs)
        self.rows: dict[str, list[Row]] = {}
        for values in zip(*(dump.rows[name].tolist() for name in COLUMNS), strict=True):
            self.rows.setdefault(values[0], []).append(Row(*values))
        super().__init__(dump.path, EXTENDING, samples_of(dump), shard_size)
        index = hashlib.sha256((dump.path / "index.csv").read_bytes()).hexdigest()
        self.config = {**settings, "index": index}
        self._lock = self.lock(self.unfinished)
        if json.loads((dump.path / "meta.json").read_text(encoding="utf-8")) != dump.meta:
            raise ValueError(
                f"{dump.path}: was changed meanwhile by another process; run the same command again"
            )
        begun = read_settings(self.unfinished / "config.json")
        if begun is not None and set(begun["config"].get("weights", ())) <= set(
            dump.meta["weights"]
        ):
            begun = None  # a run that died while it tidied up
        if begun is not None and begun["config"] != self.config:
            differing = sorted(
                key for key in begun["config"] if begun["config"][key] != self.config.get(key)
            )
            raise ValueError(
                f"{dump.path}: is being extended with other settings ({', '.join(differing)}); finish that with the same "
                f"command as before, or delete {self.unfinished}"
            )
        if begun is None:
            self.begin()
        else:
            self.shard_size = begun["shard_size"]

    def write_shard(
        self,
        number: int,
        rows: list[Row],
        arrays: dict[str, np.ndarray],
        failures: list[tuple[str, str]],
    ) -> None:
        """Put one shard on disk. rows: those that the answers are of. failures: (path, reason) of the pictures of the others.

        Raises: ValueError where rows are not the dump's, or are unaccounted for.
        """
        keys = [
            (row.path, row.face)
            for sample in self.samples_of(number)
            for row in self.rows[sample.path]
        ]
        place = {key: index for index, key in enumerate(keys)}
        given = [(row.path, row.face) for row in rows]
        reasons = dict(failures)
        if {*given} | {key for key in keys if key[0] in reasons} != {*keys} or len({*given}) != len(
            given
        ):
            raise ValueError(f"shard {number}: the faces are not those of {self.dump.path}")
        regions = len(self.dump.meta["regions"])
        whole = {}
        for name, output in self.outputs.items():
            whole[name] = np.full((len(keys), regions, output["size"]), np.nan, "<f2")
            if given:
                with np.errstate(over="ignore"):
                    whole[name][[place[key] for key in given]] = arrays[name]
        experts = sorted({name.partition(".")[0] for name in self.outputs})
        missing = [
            (*key, expert, reasons[key[0]])
            for key in keys
            if key not in {*given}
            for expert in experts
        ]
        self.put(number, keys, whole, missing=missing)

    def finish(self, meta: dict) -> Dump:
        """Put the new arrays beside the others. meta: what changes in meta.json; `outputs` and `weights` of all experts.

        Raises: ValueError where shards are missing, or more than SPOILED of the faces have pictures that cannot be used.
        """
        if self.pending():
            raise ValueError(f"{self.out}: {len(self.pending())} shards are missing")
        spoiled = {
            (path, face): reason
            for path, face, _, reason in self.notes("missing")
            if reason != NOT_FINITE
        }
        if len(spoiled) > SPOILED * len(self.dump):
            (path, _), reason = next(iter(spoiled.items()))
            raise ValueError(
                f"{self.out}: not extended, {len(spoiled)} of {len(self.dump)} faces have no usable picture any more ({path}: "
                f"{reason}); the dump was made from {self.dump.meta['data_root']}. Delete {self.unfinished} and try again"
            )
        self.merge(
            len(self.dump),
            len(self.dump.meta["regions"]),
            {k: o["size"] for k, o in self.outputs.items()},
        )
        new = {name.partition(".")[0] for name in self.outputs}
        before = [entry for entry in self.dump.missing if entry[2] not in new]
        write_csv(self.out / "missing.csv", MISSING_COLUMNS, [*before, *self.notes("missing")])
        config = self.dump.meta["config"]
        config = {**config, **{key: meta[key] for key in meta.keys() & {*config, "clip_model"}}}
        write_json(self.out / "meta.json", {**self.dump.meta, **meta, "config": config})
        self.close()
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.complete = True
        return read_dump(self.out)
