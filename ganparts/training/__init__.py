"""Loop aids that serve any recipe: device, checkpoints, progress and CSV, sample grids, clean stops, a report."""

from ganparts.training.capture import CapturedStep, CaptureError
from ganparts.training.checkpoint import load_checkpoint, newest_checkpoint, previous_checkpoint, save_checkpoint
from ganparts.training.device import (
    DeviceError,
    available_memory,
    explain_out_of_memory,
    make_deterministic,
    pick_device,
    versions,
)
from ganparts.training.folder import NotFiniteError, RunFolder
from ganparts.training.monitor import Monitor
from ganparts.training.options import RunOptions, resumed
from ganparts.training.policy import CompileError, Policy, PolicyOptions, choose_policy
from ganparts.training.report import write_report
from ganparts.training.samples import fetch_later, paint_grid, sample_photos, save_grid
from ganparts.training.stopping import StopSignals
from ganparts.training.watch import Finding, Watch, gradient_norms, picture_statistics

__all__ = [
    "CaptureError",
    "CapturedStep",
    "CompileError",
    "DeviceError",
    "Finding",
    "Monitor",
    "NotFiniteError",
    "Policy",
    "PolicyOptions",
    "RunFolder",
    "RunOptions",
    "StopSignals",
    "Watch",
    "available_memory",
    "choose_policy",
    "explain_out_of_memory",
    "fetch_later",
    "gradient_norms",
    "load_checkpoint",
    "make_deterministic",
    "newest_checkpoint",
    "paint_grid",
    "pick_device",
    "picture_statistics",
    "previous_checkpoint",
    "resumed",
    "sample_photos",
    "save_checkpoint",
    "save_grid",
    "versions",
    "write_report",
]
