"""Consistency losses: how far an image is from what it should have stayed.

L1 is CycleGAN's (arXiv 1703.10593). Charbonnier: Charbonnier et al. 1994, doi 10.1109/ICIP.1994.413553. SSIM is in
``similarity.py``.
"""

from __future__ import annotations

from torch import Tensor, nn

from ganparts.registry import CONSISTENCY_LOSSES

__all__ = ["Charbonnier", "charbonnier", "l1", "l2", "total_variation"]


class Charbonnier(nn.Module):
    """A smooth L1: mean sqrt(difference^2 + eps^2).

    Args:
        eps: where the loss turns from square to linear, above 0.
        squared: False adds ``eps`` itself under the root, as the published code of joliGEN and mmagic does.

    Raises:
        ValueError: ``eps`` not above 0.
    """

    def __init__(self, eps: float = 1e-3, *, squared: bool = True):
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps={eps} leaves no gradient where images agree: use a number above 0, such as 1e-3")
        self.eps, self.squared = eps, squared

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        added = self.eps**2 if self.squared else self.eps
        return ((prediction - target).square() + added).sqrt().mean()

    def extra_repr(self) -> str:
        return f"eps={self.eps}, squared={self.squared}"


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of horizontal neighbours plus that of vertical ones, of images [B, C, H, W]."""
    return images.diff(dim=3).abs().mean() + images.diff(dim=2).abs().mean()


@CONSISTENCY_LOSSES.register("l1")
def l1() -> nn.L1Loss:
    """Mean absolute difference over all values, the paper's CycleGAN (arXiv 1703.10593).

    The usual choice for cycle and identity. It keeps colours, too.
    """
    return nn.L1Loss()


@CONSISTENCY_LOSSES.register("l2")
def l2() -> nn.MSELoss:
    """Mean squared difference over all values.

    It forgives small differences and punishes large ones, which blurs.
    """
    return nn.MSELoss()


@CONSISTENCY_LOSSES.register("charbonnier")
def charbonnier(*, eps: float = 1e-3, squared: bool = True) -> Charbonnier:
    """A smooth L1.

    Between ``l1`` and ``l2``: it does not jump at 0.
    """
    return Charbonnier(eps, squared=squared)
