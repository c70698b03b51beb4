"""What parts cost, counted without running them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganparts import DISCRIMINATORS, GENERATORS, PRESETS
from ganparts.interchange.costs import NETWORKS, TABLES, measure, paper_of, part_rows

PAPERS = {
    "resnet9": "1703.10593",
    "resnet9_antialias": "2007.15651",
    "attention_unet256": "1804.03999",
    "ganilla": "2002.05638",
    "unet_vit": "2303.16280",
    "patchgan": "1611.07004",
    "patchgan_antialias": "2007.15651",
    "multiscale_patchgan": "1711.11585",
    "munit": "1804.04732",
    "stylegan2": "1912.04958",
    "projected": "2111.01007",
    "ugatit_local": "1907.10830",
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_parts_paper_is_the_one_that_its_module_names(name: str):
    table = GENERATORS if name in GENERATORS else DISCRIMINATORS
    assert paper_of(table[name]) == PAPERS[name]


class Chain(nn.Module):
    """Of 3 channels,
    multiples of 8 from 264 on.

    It keeps two maps of 4 channels for the tanh and the product.
    """

    size_multiple, min_size = 8, 264
    tileable = False

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.back = nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.back(torch.tanh(self.conv(images)))


def test_operations_and_what_is_kept_are_counted_at_a_size_that_the_network_takes():
    GENERATORS.register("chain")(Chain)
    try:
        costs = measure(GENERATORS, "chain")
        rows = part_rows("chain")
    finally:
        GENERATORS.remove("chain")
    assert costs is not None
    pixels = 264 * 264
    assert (costs.side, costs.sizes) == (264, "multiples of 8 from 264 on")
    assert costs.parameters == 4 * 3 + 4 + 4 * 3 + 3
    assert costs.tflop == pytest.approx(2 * pixels * (3 * 4 + 4 * 3) / 1e12)
    assert costs.kept == 4 * pixels * (3 + 4)  # the images, and the tanh's result once for two layers
    assert (costs.tileable, costs.exportable) == (False, True)
    assert [layer.output for layer in costs.layers] == ["4x264x264", "3x264x264"]
    assert [row[:3] for row in rows] == [("chain", "generator", "Of 3 channels, multiples of 8 from 264 on.")]


@pytest.mark.parametrize("name", ["painter", "resnet9", "unet128"])
def test_all_weights_belong_to_a_layer_that_is_listed(name: str):
    costs = measure(GENERATORS, name)
    assert costs is not None
    assert sum(layer.parameters for layer in costs.layers) == costs.parameters


def test_every_network_is_measured_and_every_part_has_a_row():
    rows = part_rows()
    assert [(row.name, row.kind.split(" (")[0]) for row in rows] == [(n, t.kind) for t in TABLES for n in t]
    networks = [row for row in rows if row.kind in {table.kind for table in NETWORKS}]
    assert all(row.costs is not None and row.costs.kept > 0 and row.costs.tflop > 0 for row in networks)
    generators = {row.name: row.costs for row in networks if row.kind == "generator"}
    assert {name for name, costs in generators.items() if costs and not costs.tileable} == {"ugatit", "unet_vit"}
    assert {name for name, costs in generators.items() if costs and not costs.exportable} == set()
    kinds = {row.name: row.kind for row in rows if row.name in PRESETS and row.kind.startswith("preset")}
    assert kinds["cut"] == "preset (cut)"
    assert kinds["paper"] == "preset (cyclegan)"
    assert all(row.what for row in rows)
