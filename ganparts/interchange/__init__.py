"""Files in and out: pretrained folders (:mod:`ganparts.pretrained`), published checkpoints, and exports to ONNX and
PyTorch's own format.
"""

from ganparts.interchange.checkpoints import Published, load_published
from ganparts.interchange.export import export_generator
from ganparts.interchange.junyanz import from_junyanz
from ganparts.interchange.onnx import OnnxGenerator, load_onnx
from ganparts.interchange.published import from_published
from ganparts.interchange.quantize import Quantized, quantize_generator
from ganparts.interchange.web import export_web
from ganparts.pretrained import ModelCard, describe_network, from_pretrained, push_to_hub, save_pretrained

__all__ = [
    "ModelCard",
    "OnnxGenerator",
    "Published",
    "Quantized",
    "describe_network",
    "export_generator",
    "export_web",
    "from_junyanz",
    "from_pretrained",
    "from_published",
    "load_onnx",
    "load_published",
    "push_to_hub",
    "quantize_generator",
    "save_pretrained",
]
