"""Files in and out: the weights of published checkpoints, and pretrained folders."""

from ganparts.interchange.junyanz import from_junyanz
from ganparts.interchange.pretrained import describe_network, from_pretrained, save_pretrained

__all__ = ["describe_network", "from_junyanz", "from_pretrained", "save_pretrained"]
