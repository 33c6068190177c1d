"""Training: a loop whose result depends on its options alone, and checkpoints without pickle.

Names are resolved on first use: options can be read, and shown by the command line, without torch.
"""

from __future__ import annotations

from typing import Any

from kernelprune.lazy import resolve

# Module -> the public names that it defines.
_MODULES = {
    "checkpoint": ("Checkpoint", "latest_checkpoint", "load_checkpoint", "save_checkpoint"),
    "evaluate": ("accuracy", "predict"),
    "loop": ("TrainResult", "Trainer", "fit", "load_model"),
    "options": ("ExportOptions", "PruneOptions", "TrainOptions"),
    "pruning": ("PruneResult", "export_run", "prune_model", "prune_run"),
    "recipe": ("Recipe", "load_recipe", "recipe_run"),
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = resolve(f"{__name__}.{name}", f"{__name__}.{_PUBLIC[name]}", name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
