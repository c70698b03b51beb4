"""Loop aids that serve any recipe: device, checkpoints, progress and CSV, sample grids, clean stops."""

from ganparts.training.checkpoint import load_checkpoint, save_checkpoint
from ganparts.training.device import DeviceError, pick_device
from ganparts.training.folder import RunFolder
from ganparts.training.monitor import Monitor
from ganparts.training.samples import evaluating, sample_photos, save_grid
from ganparts.training.stopping import StopSignals

__all__ = [
    "DeviceError",
    "Monitor",
    "RunFolder",
    "StopSignals",
    "evaluating",
    "load_checkpoint",
    "pick_device",
    "sample_photos",
    "save_checkpoint",
    "save_grid",
]
