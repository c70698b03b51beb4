"""Files in and out: published checkpoints, pretrained folders."""
from ganparts.interchange.junyanz import from_junyanz
__all__=["from_junyanz"]
