"""Generators as ONNX files, which other programs run without PyTorch, and such files as generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.blocks import check_counts, check_images
from ganparts.optional import require

__all__ = ["OnnxGenerator", "load_onnx", "write_onnx"]


class OnnxGenerator(nn.Module):
    """What an ONNX file computes, to be used as a generator: images [B, C, H, W] in [-1, 1] to the same size.

    It has no parameters and gives no gradients.

    Args:
        path: the file.

    Attributes:
        size_multiple: height and width must be multiples of it.
        min_size: they must be at least this.
        in_channels: C must be this.
        tileable: False: a photo goes through it whole.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is not an ONNX file, or none that turns images into images; in ``forward``, a wrong size, or
            onnxruntime fails.
    """

    tileable = False

    def __init__(self, path: Path | str):
        super().__init__()
        self.path = Path(path).resolve()
        self.session = _session(self.path)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
            raise ValueError(
                f"{path} is not a generator: it has {len(inputs)} inputs and {len(outputs)} outputs, where one each is "
                "needed, images [B, C, H, W]"
            )
        if inputs[0].type != "tensor(float)":
            raise ValueError(f"{path} takes {inputs[0].type}, and images are tensor(float), float32: export it so")
        self.name, (self.batch, channels, *self.sides) = inputs[0].name, inputs[0].shape
        if not isinstance(channels, int):
            raise ValueError(f"{path} does not say how many channels its images have: export it with a fixed number")
        known = self.session.get_modelmeta().custom_metadata_map
        try:
            self.size_multiple, self.min_size = (int(known.get(name, 1)) for name in ("size_multiple", "min_size"))
            check_counts(size_multiple=self.size_multiple, min_size=self.min_size)
        except ValueError as error:
            raise ValueError(f"{path} has odd metadata: {error}") from None
        self.in_channels = channels

    def __reduce__(self) -> tuple[type[OnnxGenerator], tuple[Path]]:
        return OnnxGenerator, (self.path,)  # a session cannot be pickled

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        for name, side, wanted in zip(("height", "width"), images.shape[-2:], self.sides, strict=True):
            if isinstance(wanted, int) and side != wanted:
                raise ValueError(
                    f"{self.path} takes images of {name} {wanted} alone, and these have {side}: resize them, or export "
                    "it with a free height and width"
                )
        at_once = self.batch if isinstance(self.batch, int) else max(1, len(images))
        try:
            outputs = [
                self.session.run(None, {self.name: part.float().cpu().numpy()})[0] for part in images.split(at_once)
            ]
        except Exception as error:  # onnxruntime's own, of which there is a dozen
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the ONNX model fails on images of {list(images.shape)}: {reason}") from error
        return torch.cat([torch.from_numpy(output) for output in outputs]).to(images)


def load_onnx(path: Path | str) -> OnnxGenerator:
    """Load an ONNX file, one of ``ganparts export`` or another that turns images into images, as a generator.

    It runs on a GPU if onnxruntime has one, with as many threads as PyTorch.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is not an ONNX file, or none that turns images into images.
    """
    return OnnxGenerator(path)


def write_onnx(program: torch.export.ExportedProgram, path: Path, *, metadata: dict[str, str]) -> None:
    """Write an exported program as ONNX, its axes called batch, height and width.

    Args:
        program: of one input and one output, images.
        path: where to.
        metadata: what the file says of itself.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        RuntimeError: this PyTorch cannot write an operation of the program.
    """
    onnx = require("onnx", "onnx", "onnx", what="writing ONNX")
    require("onnxscript", "onnxscript", "onnx", what="writing ONNX")  # for torch.onnx
    try:
        translated = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # of many kinds, and each of many lines
        reason = str(error.__cause__ or error).strip().splitlines()[0][:300]
        raise RuntimeError(
            f"PyTorch {torch.__version__} cannot write this generator as ONNX ({reason}): a newer PyTorch may, or "
            "export it as .pt2"
        ) from error
    assert translated is not None  # it is only where it writes a file itself
    model: Any = translated.model_proto
    del model.graph.value_info[:]  # shapes in between, which have the axes' former names
    for thing in (*model.graph.node, *model.graph.input, *model.graph.output):
        thing.ClearField("metadata_props")  # lines of source, with the paths of this machine
    for value, name in ((model.graph.input[0], "images"), (model.graph.output[0], "translated")):
        _rename(model.graph, value, name)
        for axis, called in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = called
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def _rename(graph: Any, value: Any, name: str) -> None:
    for node in graph.node:
        node.input[:] = [name if old == value.name else old for old in node.input]
        node.output[:] = [name if old == value.name else old for old in node.output]
    value.name = name


def _session(path: Path) -> Any:
    onnxruntime = require("onnxruntime", "onnxruntime", "onnx", what=f"reading {path}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own, of which there is a dozen
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} is not an ONNX file that can be run: {reason}") from None
