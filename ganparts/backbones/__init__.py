"""Frozen feature networks and their weights: shared, never trained, and left out of checkpoints."""

from ganparts.backbones.backbone import Backbone, create_backbone
from ganparts.backbones.networks import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, timm_model
from ganparts.backbones.trunks import alexnet, vgg16
from ganparts.optional import UnavailableError

__all__ = [
    "Backbone",
    "UnavailableError",
    "alexnet",
    "create_backbone",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "timm_model",
    "vgg16",
]
