"""A training run on disk, so that a killed one goes on to the same result. Read without running anything that is in it."""

from __future__ import annotations

from pathlib import Path

import torch

from models.tensors import DAMAGED


def keep(state: Path | None, settings: dict, parts: dict, history: list[dict], best: dict) -> None:
    """Write all that the next epoch depends on, to a temporary name first."""
    if state:
        state = Path(state)
        state.parent.mkdir(parents=True, exist_ok=True)
        partial = state.with_name(f"{state.name}.partial")
        inner = {name: part.state_dict() for name, part in parts.items()}
        torch.save(
            {"settings": settings, "history": history, "best": best, "parts": inner}, partial
        )
        partial.replace(state)


def resume(
    state: Path | None, settings: dict, parts: dict, history: list[dict]
) -> dict[str, torch.Tensor]:
    """Set `parts` and `history` as a killed run of the same settings left them. Returns: its best weights; else nothing.

    Raises: ValueError where the state is another run's, or damaged.
    """
    if not state or not Path(state).is_file():
        return {}
    try:
        saved = torch.load(state, map_location="cpu", weights_only=True)
        found, kept = saved["settings"], saved["parts"]
        history += saved["history"]
        if found == settings:
            for name, values in kept.items():
                parts[name].load_state_dict(values)
            return saved["best"]
    except DAMAGED as error:
        raise ValueError(
            f"{state}: not the state of a run, or damaged; delete it to begin anew"
        ) from error
    differing = ", ".join(
        f"{key} {found.get(key)}, not {value}"
        for key, value in settings.items()
        if found.get(key) != value
    )
    raise ValueError(f"{state}: the state of another run ({differing}); delete it, or name another")
