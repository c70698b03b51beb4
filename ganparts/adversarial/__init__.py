"""What assemblies of adversarially trained networks have in common: critics, optimizers, averages, memory."""

from ganparts.adversarial.assembly import Assembly, constrain, losses_of_critics, refuse_shared, train_step
from ganparts.adversarial.averaging import Averages
from ganparts.adversarial.batching import apply_to_each
from ganparts.adversarial.building import UNSET, build_critics, build_part, overridden, pair_of
from ganparts.adversarial.critic import Critic, Judgement
from ganparts.adversarial.critics import Critics, judge_all, sum_of
from ganparts.adversarial.distributed import (
    GradientAverage,
    as_in_first,
    average_scalars,
    copy_from_first,
    share_draws,
    synchronize_batch_norms,
)
from ganparts.adversarial.losses import consistency_loss, discriminator_loss, generator_loss
from ganparts.adversarial.memory import (
    MEMORY_LEVELS,
    MemoryEstimateError,
    MemoryNeed,
    MemoryPlan,
    memory_need,
    plan_memory,
)
from ganparts.adversarial.optimizers import OptimizerBuilder, Optimizers, make_optimizers, trained_parameters
from ganparts.adversarial.presets import TrainingSettings, preset_named
from ganparts.adversarial.schedules import ConstantThenLinear, PiecewiseConstant

__all__ = [
    "MEMORY_LEVELS",
    "UNSET",
    "Assembly",
    "Averages",
    "ConstantThenLinear",
    "Critic",
    "Critics",
    "GradientAverage",
    "Judgement",
    "MemoryEstimateError",
    "MemoryNeed",
    "MemoryPlan",
    "OptimizerBuilder",
    "Optimizers",
    "PiecewiseConstant",
    "TrainingSettings",
    "apply_to_each",
    "as_in_first",
    "average_scalars",
    "build_critics",
    "build_part",
    "consistency_loss",
    "constrain",
    "copy_from_first",
    "discriminator_loss",
    "generator_loss",
    "judge_all",
    "losses_of_critics",
    "make_optimizers",
    "memory_need",
    "overridden",
    "pair_of",
    "plan_memory",
    "preset_named",
    "refuse_shared",
    "share_draws",
    "sum_of",
    "synchronize_batch_norms",
    "train_step",
    "trained_parameters",
]
