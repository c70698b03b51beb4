"""The training loop and what it uses: options, device policy, checkpoints, progress, samples, warnings, a report."""

from ganparts.training.app import explain_error, import_parts, run_recipe
from ganparts.training.budget import TimeBudget
from ganparts.training.capture import CapturedStep, CaptureError
from ganparts.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    previous_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from ganparts.training.device import (
    DeviceError,
    available_memory,
    explain_out_of_memory,
    make_deterministic,
    pick_device,
    versions,
)
from ganparts.training.folder import NotFiniteError, RunFolder
from ganparts.training.loop import Ended, Loop
from ganparts.training.monitor import Monitor
from ganparts.training.options import EvaluationOptions, RunOptions, parse_options, setting
from ganparts.training.policy import CompileError, Policy, PolicyOptions, choose_policy
from ganparts.training.randomness import seed_everything
from ganparts.training.report import write_report
from ganparts.training.samples import fetch_later, paint_grid, sample_photos, save_grid
from ganparts.training.stopping import StopSignals
from ganparts.training.watch import Finding, Watch, picture_statistics

__all__ = [
    "CaptureError",
    "CapturedStep",
    "Checkpoint",
    "CompileError",
    "DeviceError",
    "Ended",
    "EvaluationOptions",
    "Finding",
    "Loop",
    "Monitor",
    "NotFiniteError",
    "Policy",
    "PolicyOptions",
    "RunFolder",
    "RunOptions",
    "StopSignals",
    "TimeBudget",
    "Watch",
    "available_memory",
    "choose_policy",
    "explain_error",
    "explain_out_of_memory",
    "fetch_later",
    "import_parts",
    "load_checkpoint",
    "make_deterministic",
    "newest_checkpoint",
    "paint_grid",
    "parse_options",
    "pick_device",
    "picture_statistics",
    "previous_checkpoint",
    "read_checkpoint",
    "run_recipe",
    "sample_photos",
    "save_checkpoint",
    "save_grid",
    "seed_everything",
    "setting",
    "versions",
    "write_report",
]
