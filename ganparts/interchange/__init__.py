"""Files in and out: pretrained folders, here and on the Hugging Face Hub, published checkpoints, and exports to ONNX
and PyTorch's own format.
"""

from ganparts.interchange.card import ModelCard
from ganparts.interchange.checkpoints import Published, load_junyanz
from ganparts.interchange.export import export_generator
from ganparts.interchange.junyanz import from_junyanz
from ganparts.interchange.onnx import OnnxGenerator, load_onnx
from ganparts.interchange.pretrained import describe_network, from_pretrained, push_to_hub, save_pretrained

__all__ = [
    "ModelCard",
    "OnnxGenerator",
    "Published",
    "describe_network",
    "export_generator",
    "from_junyanz",
    "from_pretrained",
    "load_junyanz",
    "load_onnx",
    "push_to_hub",
    "save_pretrained",
]
