"""Made by tests/typechecks/keywords.py from the options of the methods; there is no such module."""

from typing import TypedDict

class CompressKeywords(TypedDict, total=False):
    precision: str
    method: str
    group: int | None
    rounding: str
    judge: str
    samples: int
    held_out: float
    steps: int
    close: float
    batch: int
    threads: int
    epochs: float
    learning_rate: float

class ConnectionKeywords(TypedDict, total=False):
    group: int | tuple[int, int]
    seed: int
    samples: int | None
    criterion: str
    scope: str | None

class CriterionKeywords(TypedDict, total=False):
    coupled: bool
    seed: int
    samples: int | None
    criterion: str
    scope: str | None

class DiscriminationKeywords(TypedDict, total=False):
    seed: int
    coupled: bool
    group: int | tuple[int, int]
    samples: int | None
    channels_per_step: float
    losses: int | None
    discrimination: float
    stage_epochs: int | None
    stage_learning_rate: float
    select_epochs: int
    select_learning_rate: float
    momentum: float
    weight_decay: float

class QuantizeKeywords(TypedDict, total=False):
    method: str
    percentile: float
    per_channel: bool
    bias_correction: bool
    rounding: str
    equalize: bool
    samples: int

class ReconstructionKeywords(TypedDict, total=False):
    group: int | tuple[int, int]
    ridge: float
    places: int
    solver_steps: int
    refit_whole: bool
    memory_mb: int
    method: str
    samples: int

class ScoreKeywords(TypedDict, total=False):
    seed: int
    samples: int | None
    criterion: str

class SynapticKeywords(TypedDict, total=False):
    penalty: float | None
    group: int | tuple[int, int]
    scope: str | None
    scale: str
