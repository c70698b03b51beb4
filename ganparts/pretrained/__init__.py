"""Pretrained folders: a network, the options that rebuild it and a model card, on disk and on the Hugging Face Hub."""

from ganparts.pretrained.card import ModelCard
from ganparts.pretrained.finding import find_pretrained, is_pretrained
from ganparts.pretrained.folder import (
    PretrainedModule,
    describe_network,
    from_pretrained,
    push_to_hub,
    save_pretrained,
)

__all__ = [
    "ModelCard",
    "PretrainedModule",
    "describe_network",
    "find_pretrained",
    "from_pretrained",
    "is_pretrained",
    "push_to_hub",
    "save_pretrained",
]
