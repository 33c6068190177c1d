from kernelprune.prune.batches import recalibrate as recalibrate
from kernelprune.prune.counts import Counts as Counts, count as count
from kernelprune.prune.criteria import (
    prune_channels as prune_channels,
    prune_connections as prune_connections,
    scale_penalty as scale_penalty,
)
from kernelprune.prune.criterion_options import (
    ConnectionOptions as ConnectionOptions,
    CriterionOptions as CriterionOptions,
    ScoreOptions as ScoreOptions,
)
from kernelprune.prune.discrimination import DiscriminationAware as DiscriminationAware
from kernelprune.prune.discrimination_options import (
    GRANULARITIES as GRANULARITIES,
    DiscriminationOptions as DiscriminationOptions,
)
from kernelprune.prune.distributed import synchronised_norms as synchronised_norms
from kernelprune.prune.layer_sensitivity import (
    Sensitivity as Sensitivity,
    sensitivity as sensitivity,
)
from kernelprune.prune.masks import (
    apply_masks as apply_masks,
    attach_masks as attach_masks,
    finalize_masks as finalize_masks,
    load_masks as load_masks,
    masks_of as masks_of,
    save_masks as save_masks,
)
from kernelprune.prune.options import SCOPES as SCOPES
from kernelprune.prune.plan import LayerPlan as LayerPlan, Plan as Plan
from kernelprune.prune.reconstruction.options import ReconstructionOptions as ReconstructionOptions
from kernelprune.prune.reconstruction.reconstruct import reconstruct as reconstruct
from kernelprune.prune.schedule import (
    cubic_densities as cubic_densities,
    round_steps as round_steps,
)
from kernelprune.prune.scores import CHANNEL_CRITERIA as CHANNEL_CRITERIA, CRITERIA as CRITERIA
from kernelprune.prune.synaptic import SynapticStrength as SynapticStrength
from kernelprune.prune.synaptic_options import SynapticOptions as SynapticOptions
