"""Pretrained folders: a network, the options that rebuild it and a model card, on disk, by short names, on the Hub."""

from ganparts.pretrained.card import ModelCard
from ganparts.pretrained.finding import find_pretrained, is_pretrained
from ganparts.pretrained.loading import as_generator, from_pretrained
from ganparts.pretrained.painters import Painter, PainterFile, list_painters
from ganparts.pretrained.saving import PretrainedModule, describe_network, push_to_hub, save_pretrained

__all__ = [
    "ModelCard",
    "Painter",
    "PainterFile",
    "PretrainedModule",
    "as_generator",
    "describe_network",
    "find_pretrained",
    "from_pretrained",
    "is_pretrained",
    "list_painters",
    "push_to_hub",
    "save_pretrained",
]
