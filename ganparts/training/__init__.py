"""Loop aids that serve any recipe: device, checkpoints, progress and CSV, sample grids, clean stops, a report."""

from ganparts.training.capture import CapturedStep, CaptureError
from ganparts.training.checkpoint import load_checkpoint, save_checkpoint
from ganparts.training.device import DeviceError, available_memory, explain_out_of_memory, pick_device
from ganparts.training.folder import RunFolder
from ganparts.training.monitor import Monitor
from ganparts.training.policy import Policy, PolicyOptions, choose_policy
from ganparts.training.report import write_report
from ganparts.training.samples import evaluating, sample_photos, save_grid
from ganparts.training.stopping import StopSignals

__all__ = [
    "CaptureError",
    "CapturedStep",
    "DeviceError",
    "Monitor",
    "Policy",
    "PolicyOptions",
    "RunFolder",
    "StopSignals",
    "available_memory",
    "choose_policy",
    "evaluating",
    "explain_out_of_memory",
    "load_checkpoint",
    "pick_device",
    "sample_photos",
    "save_checkpoint",
    "save_grid",
    "write_report",
]
