"""PatchNCE and network F."""

from __future__ import annotations

import re

import pytest
import torch
from golden_files import about, golden_names, part_of, read, relative_error
from torch import Tensor, nn

from ganparts.losses import PatchProjector, draw_positions, patch_nce, sample_patches


class Golden:
    """One golden file: features, positions and settings."""

    def __init__(self, name: str):
        self.values = read(name)
        self.domains = sorted({key.split(".")[1] for key in self.values if key.startswith("ids.")})
        self.layers = sorted({int(key.split(".")[2]) for key in self.values if key.startswith("ids.")})
        (temperature,) = re.findall(r"T ([\d.]*\d)", about(name)["args"])
        self.temperature = float(temperature)
        self.images = len(self.values[f"q{self.domains[0]}.0"])
        weights = part_of(self.values, "weights.")
        channels = [self.values[f"q{self.domains[0]}.{layer}"].shape[1] for layer in self.layers]
        self.projector = PatchProjector(channels, width=len(weights["mlp_0.2.weight"])).double()
        self.projector.load_state_dict(weights)
        self.plain = PatchProjector(channels, mlp=False)
        self.queries = {d: [q.requires_grad_() for q in self.of(f"q{d}.")] for d in self.domains}

    def of(self, prefix: str) -> list[Tensor]:
        return [self.values[f"{prefix}{layer}"] for layer in self.layers]

    def losses(
        self, domain: str, projector: PatchProjector, *, flipped: bool = False, negatives_from_batch: bool = False
    ) -> list[Tensor]:
        """Of each patch, a tensor a layer."""
        queries = [q.flip(3) if flipped else q for q in self.queries[domain]]
        positions = self.of(f"ids.{domain}.")
        pairs = zip(projector(queries, positions), projector(self.of(f"k{domain}."), positions), strict=True)
        options = {"images": self.images, "temperature": self.temperature, "reduction": "none"}
        return [patch_nce(q, k, negatives_from_batch=negatives_from_batch, **options) for q, k in pairs]

    def assert_sums(self, name: str, gradient: Tensor | None) -> None:
        expected = self.values[name]
        assert gradient is not None
        found = torch.stack([gradient.sum(), gradient.abs().sum()])
        assert (found - expected).abs().max() <= 1e-9 * expected[1] + 1e-12, name


def over_layers(losses: list[Tensor]) -> Tensor:
    return torch.stack([loss.mean() for loss in losses]).mean()


FILES = golden_names("cut_patchnce_*")


@pytest.mark.parametrize("name", FILES)
def test_golden_projections_and_losses(name: str):
    golden = Golden(name)
    for domain in golden.domains:
        positions = golden.of(f"ids.{domain}.")
        for letter in "qk":
            projected = golden.projector(golden.of(f"{letter}{domain}."), positions)
            for found, expected in zip(projected, golden.of(f"F_{letter}.{domain}."), strict=True):
                assert relative_error(found, expected) < 1e-9
        losses = golden.losses(domain, golden.projector)
        assert relative_error(over_layers(losses), golden.values[f"nce.{domain}"]) < 1e-9
        kinds = {
            "loss": losses,
            "loss_flipped": golden.losses(domain, golden.projector, flipped=True),
            "loss_allneg": golden.losses(domain, golden.projector, negatives_from_batch=True),
            "loss_nomlp": golden.losses(domain, golden.plain),
        }
        for kind, found_losses in kinds.items():
            if f"{kind}.{domain}.0" in golden.values:
                for found, expected in zip(found_losses, golden.of(f"{kind}.{domain}."), strict=True):
                    assert relative_error(found, expected) < 1e-9, kind


@pytest.mark.parametrize("name", FILES)
def test_golden_totals_and_gradients(name: str):
    golden = Golden(name)
    first = golden.domains[0]
    cut = torch.stack([over_layers(golden.losses(domain, golden.projector)) for domain in golden.domains]).mean()
    fastcut = 10 * over_layers(golden.losses(first, golden.projector))
    totals = {
        "cut": cut,
        "fastcut": fastcut,
        "fastcut_flipped": 10 * over_layers(golden.losses(first, golden.projector, flipped=True)),
        "allneg": over_layers(golden.losses(first, golden.projector, negatives_from_batch=True)),
        "nomlp": over_layers(golden.losses(first, golden.plain)),
    }
    assert {key.removeprefix("total.") for key in golden.values if key.startswith("total.")} == totals.keys()
    for total, value in totals.items():
        assert relative_error(value, golden.values[f"total.{total}"]) < 1e-9, total
    cut.backward()
    for domain in golden.domains:
        for layer, query in zip(golden.layers, golden.queries[domain], strict=True):
            golden.assert_sums(f"grad.q{domain}.{layer}", query.grad)
    for parameter_name, parameter in golden.projector.named_parameters():
        golden.assert_sums(f"grad.F.{parameter_name}", parameter.grad)
    golden.projector.zero_grad()
    fastcut.backward()
    for parameter_name, parameter in golden.projector.named_parameters():
        golden.assert_sums(f"grad_fastcut.F.{parameter_name}", parameter.grad)


def test_the_projector_of_cut_is_the_published_one():
    projector = PatchProjector([3, 128, 256, 256, 256])
    assert sum(parameter.numel() for parameter in projector.parameters()) == 560_384
    assert [*projector.state_dict()][:5] == [
        *("mlp_0.0.weight", "mlp_0.0.bias", "mlp_0.2.weight", "mlp_0.2.bias", "mlp_1.0.weight")
    ]
    for name, parameter in projector.named_parameters():
        if parameter.ndim == 2:
            expected = 0.02 * (2 / sum(parameter.shape)) ** 0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
        else:
            assert not parameter.any()
    assert not [*PatchProjector([3, 8], mlp=False).parameters()]


def test_positions_are_different_places_drawn_anew_for_each_layer():
    features = [torch.zeros(2, 3, 20, 30), torch.zeros(2, 8, 20, 30), torch.zeros(2, 8, 3, 5)]
    first, second, small = draw_positions(features, patches=256)
    assert first.shape == second.shape == (256,)
    for positions, places in ((first, 600), (second, 600), (small, 15)):
        assert positions.dtype == torch.int64
        assert len(positions.unique()) == len(positions)
        assert positions.min() >= 0
        assert positions.max() < places
    assert sorted(small.tolist()) == [*range(15)]
    assert not torch.equal(first, second)
    hits = torch.zeros(6)
    for _ in range(600):
        hits[draw_positions([torch.zeros(1, 1, 2, 3)], patches=1)[0]] += 1
    assert hits.min() > 60
    assert [p.shape for p in draw_positions([f.to("meta") for f in features], patches=4)] == [(4,), (4,), (4,)]
    with pytest.raises(ValueError, match="patches=0: at least 1"):
        draw_positions(features, patches=0)


def test_patches_are_sampled_image_after_image():
    features = torch.randn(2, 3, 4, 5)
    positions = torch.tensor([7, 0, 19])
    expected = [features[image, :, place // 5, place % 5] for image in (0, 1) for place in (7, 0, 19)]
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(sample_patches(features.contiguous(memory_format=layout), positions), torch.stack(expected))


def test_patch_nce_is_the_cross_entropy_of_similarities():
    query, key = torch.randn(2, 12, 5, dtype=torch.float64)
    query.requires_grad_()
    key.requires_grad_()
    for whole, size in ((False, 4), (True, 12)):
        expected = []
        for start in range(0, 12, size):
            similarity = query[start : start + size] @ key[start : start + size].T / 0.5
            expected.append(-torch.log_softmax(similarity, 1).diagonal())
        options = {"images": 3, "temperature": 0.5, "negatives_from_batch": whole}
        loss = patch_nce(query, key, reduction="none", **options)
        # the filled diagonal is one more negative, of exp(-20)
        torch.testing.assert_close(loss, torch.cat(expected), rtol=0, atol=1e-6)
        assert patch_nce(query, key, **options) == loss.mean()
    patch_nce(query, key, images=3).backward()
    assert query.grad is not None
    assert key.grad is None


def test_vectors_of_zeros_have_finite_gradients():
    """A grey image in front of biases that are zero."""
    features = torch.zeros(1, 3, 4, 4, requires_grad=True)
    for mlp in (True, False):
        projector = PatchProjector([3], width=4, mlp=mlp)
        (query,) = projector([features], [torch.arange(5)])
        (key,) = projector([torch.randn(1, 3, 4, 4)], [torch.arange(5)])
        loss = patch_nce(query, key, images=1)
        loss.backward()
        gradients = [features.grad, *(parameter.grad for parameter in projector.parameters())]
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_half_precision_computes_similarities_in_full():
    query, key = nn.functional.normalize(torch.randn(2, 8, 16), dim=2)
    exact = patch_nce(query, key, images=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce(query, key, images=2), exact)
        (projected,) = PatchProjector([16], width=4)([1e6 * torch.randn(1, 16, 2, 2)], [torch.arange(4)])
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(4), rtol=1e-4, atol=0)
    rounded = patch_nce(query.bfloat16(), key.bfloat16(), images=2)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, patch_nce(query.bfloat16().float(), key.bfloat16().float(), images=2))


def test_the_loss_runs_on_the_meta_device():
    projector = PatchProjector([3, 8], width=4).to("meta")
    features = [torch.zeros(2, 3, 5, 5, device="meta"), torch.zeros(2, 8, 2, 2, device="meta")]
    positions = draw_positions(features, patches=9)
    pairs = zip(projector(features, positions), projector(features, positions), strict=True)
    losses = [patch_nce(query, key, images=2) for query, key in pairs]
    assert [loss.shape for loss in losses] == [(), ()]


def test_the_gradient_through_pytorchs_instance_norm_is_right_for_one_image():
    """It is wrong on the CPU if the gradient that comes back is laid out channels last, so it must not be."""
    features = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    positions = torch.randperm(20)[:7]
    weights = torch.randn(7, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: (sample_patches(nn.InstanceNorm2d(3)(x), positions) * weights).sum(), features
    )


def test_what_does_not_fit_is_refused():
    projector = PatchProjector([3, 8], width=4)
    with pytest.raises(ValueError, match=r"for 2 layers, but was given features of 1 and positions of 2"):
        projector([torch.zeros(1, 3, 2, 2)], [torch.arange(2), torch.arange(2)])
    vectors = torch.zeros(6, 4)
    with pytest.raises(ValueError, match=r"\[6, 4\] and \[5, 4\]"):
        patch_nce(vectors, vectors[:5], images=1)
    with pytest.raises(ValueError, match="6 patches are not of images=4: pass the batch size"):
        patch_nce(vectors, vectors, images=4)
    with pytest.raises(ValueError, match="reduction='sum' is not known: use one of 'mean', 'none'"):
        patch_nce(vectors, vectors, images=2, reduction="sum")  # pyright: ignore[reportArgumentType]
