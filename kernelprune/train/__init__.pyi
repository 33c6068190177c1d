from kernelprune.train.checkpoint import (
    Checkpoint as Checkpoint,
    latest_checkpoint as latest_checkpoint,
    load_checkpoint as load_checkpoint,
    save_checkpoint as save_checkpoint,
)
from kernelprune.train.evaluate import accuracy as accuracy, predict as predict
from kernelprune.train.loop import (
    Trainer as Trainer,
    TrainResult as TrainResult,
    fit as fit,
    load_model as load_model,
)
from kernelprune.train.options import (
    ExportOptions as ExportOptions,
    PruneOptions as PruneOptions,
    TrainOptions as TrainOptions,
)
from kernelprune.train.pruning import (
    PruneResult as PruneResult,
    export_run as export_run,
    prune_model as prune_model,
    prune_run as prune_run,
)
from kernelprune.train.recipe import (
    Recipe as Recipe,
    load_recipe as load_recipe,
    recipe_run as recipe_run,
)
