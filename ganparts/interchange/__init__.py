"""Files in and out: the weights of published checkpoints, and pretrained folders."""

from ganparts.interchange.junyanz import from_junyanz
from ganparts.interchange.pretrained import from_pretrained, save_pretrained

__all__ = ["from_junyanz", "from_pretrained", "save_pretrained"]
