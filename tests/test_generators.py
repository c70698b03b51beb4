"""What single generators and their options promise, and the numbers of their sources; see golden/README.md."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganparts import GENERATORS
from ganparts.blocks import recompute_blocks, residual_output
from ganparts.interchange import export_generator, load_onnx
from ganparts.translate import translate_tiled
from ganparts.translate.tiles import fit

RESIDUAL = [name for name in GENERATORS if "residual" in GENERATORS.options(name)]


def build(name: str, **options: object) -> nn.Module:
    network = GENERATORS.create(name, width=2, **options)
    assert isinstance(network, nn.Module)
    return network


def smallest(network: nn.Module, least: int = 16) -> int:
    multiple = network.size_multiple
    assert isinstance(multiple, int)
    return -(-max(least, getattr(network, "min_size", 1)) // multiple) * multiple


def descend(values: Tensor, direction: Tensor) -> Tensor:
    """The gradient of the clamped sum at ``values`` when the loss's gradient is ``direction``."""
    values = values.clone().requires_grad_()
    residual_output(torch.zeros_like(values), values).backward(direction)
    assert values.grad is not None
    return values.grad


def test_a_residual_outputs_gradient_passes_inside_and_where_it_leads_back_in():
    values = torch.tensor([-3.0, -3.0, -1.0, -1.0, 0.5, 0.5, 1.0, 1.0, 3.0, 3.0])
    direction = torch.tensor([2.0, -2.0] * 5)  # a step of descent goes the other way
    assert descend(values, direction).tolist() == [0, -2, 2, -2, 2, -2, 2, -2, 2, 0]
    with torch.no_grad():
        clamped = residual_output(torch.full((2,), 0.75), torch.tensor([-0.5, 0.5]))
    assert clamped.tolist() == [0.25, 1]


def test_a_residual_output_does_not_run_away_and_comes_back_at_once():
    change = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([change], lr=0.1)

    def step(target: float) -> float:
        optimizer.zero_grad()
        ((residual_output(torch.full((1,), 0.9), change) - target) ** 2).sum().backward()
        optimizer.step()
        return 0.9 + change.item()

    reached = [step(2.0) for _ in range(100)]
    assert 1 < max(reached) < 1.3  # straight-through it would be at 21
    assert step(0.0) < reached[-1]
    assert min(step(0.0) for _ in range(20)) < 0.1


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_generator_starts_as_the_identity_and_learns(name: str):
    network = build(name, residual=True)
    images = torch.rand(2, 3, *[smallest(network, 32)] * 2) * 2 - 1
    images[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    painted = network(images)
    assert torch.equal(painted, images)
    assert torch.equal(network.eval()(images), images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(images), images)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (network.train()(images) - 0.9).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    starved = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert starved == []
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight)
        painted = network(images)
    assert painted.abs().max() <= 1
    assert (painted.abs() == 1).any()


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_generator_gives_as_many_channels_as_it_takes(name: str):
    with pytest.raises(ValueError, match=r"in_channels=1 and out_channels=3 differ: make them equal, or use residual="):
        build(name, residual=True, in_channels=1)
    with torch.device("meta"):
        assert build(name, residual=True, in_channels=1, out_channels=1)
    keys = [build(name, residual=residual).state_dict().keys() for residual in (True, False)]
    assert keys[0] == keys[1]


def awake(name: str, **options: object) -> nn.Module:
    """A residual generator that changes its input, as a trained one does."""
    network = build(name, residual=True, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


@pytest.mark.filterwarnings("ignore")  # the exporters deprecate their own functions
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize("name", ["painter", "keras_unet256"])
def test_a_residual_generator_is_exported(tmp_path, name: str, kind: str):
    network = awake(name)
    assert export_generator(network, tmp_path / f"x.{kind}") <= 1e-4
    images = torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        painted = network.eval()(images)
    assert (painted - images).abs().max() > 0.01
    if kind == "onnx":
        torch.testing.assert_close(load_onnx(tmp_path / "x.onnx")(images), painted, rtol=0, atol=1e-4)
    else:  # as somebody exports it without no_grad
        program = torch.export.export(network, (images,), strict=False)
        torch.testing.assert_close(program.module()(images), painted, rtol=0, atol=1e-5)
        assert not any("autograd" in str(node.target).lower() for node in program.graph.nodes)


@pytest.mark.parametrize("name", ["painter", "unet128", "keras_unet256"])
def test_a_residual_generator_runs_in_tiles(name: str):
    network = awake(name).eval()
    image = torch.rand(3, 150, 131) * 2 - 1
    with torch.inference_mode():
        whole = network(fit(network, image[None]))[0, :, :150, :131]
    assert (translate_tiled(network, image, tile=40) - whole).abs().max() < 2e-5
    assert (whole - image).abs().max() > 0.01


def test_the_painter_paints_over_the_photo_unless_told_otherwise():
    assert build("painter").residual is True
    assert build("painter", residual=False).residual is False
    network = build("painter", in_channels=1, out_channels=3)
    assert network.residual is False
    assert network(torch.rand(1, 1, 16, 16)).shape == (1, 3, 16, 16)
    assert any(isinstance(layer, nn.Tanh) for layer in network.modules())


@pytest.mark.parametrize(("name", "blocks"), [("painter", 4), ("resnet6", 6)])
def test_blocks_are_computed_again_on_demand(name: str, blocks: int):
    network = awake(name).double()
    images = torch.rand(1, 3, *[smallest(network, 32)] * 2, dtype=torch.float64) * 2 - 1
    grads = []
    for recompute in (False, True):
        assert recompute_blocks(network, recompute) == blocks
        network.zero_grad()
        network(images).square().mean().backward()
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for kept, again in zip(*grads, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-12, atol=0)
