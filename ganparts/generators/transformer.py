"""A vision transformer as the bottleneck of a U-Net (Torbunov et al. 2022, arXiv 2203.02557).

It has the state-dict keys of the published one. Deviation: the source's position codes are for one size; here they are
computed for each, so the buffers ``x_const`` and ``y_const`` of a published checkpoint are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import recomputed

__all__ = ["Transformer"]


class _Attention(nn.Module):
    """Multi-head self-attention on tokens [B, N, C], with the parameters of ``nn.MultiheadAttention``."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor) -> Tensor:
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = rearrange(projected, "b n (three h c) -> three b h n c", three=3, h=self.heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(rearrange(attended, "b h n c -> b n (h c)"))


class _FeedForward(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class _Block(nn.Module):
    """Attention, then feed-forward, each after a layer norm and scaled by one alpha, 0 at the start: [B, N, C]."""

    def __init__(self, channels: int, heads: int, hidden: int):
        super().__init__()
        self.recompute = False
        self.norm1 = nn.LayerNorm(channels)
        self.atten = _Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = _FeedForward(channels, hidden)
        self.re_alpha = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        return recomputed(self._forward, tokens, recompute=self.recompute)

    def _forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.re_alpha * self.atten(self.norm1(tokens))
        return tokens + self.re_alpha * self.ffn(self.norm2(tokens))


class _PositionCode(nn.Module):
    """Sines of linear functions of a token's row and column, each from -1 to 1: [H W, channels]."""

    def __init__(self, channels: int):
        super().__init__()
        self.projector = nn.Linear(2, channels)

    def forward(self, height: int, width: int) -> Tensor:
        rows, columns = (self._coordinates(side) for side in (height, width))
        places = torch.stack([repeat(rows, "h -> h w", w=width), repeat(columns, "w -> h w", h=height)], -1)
        return torch.sin(self.projector(rearrange(places, "h w two -> (h w) two")))

    def _coordinates(self, side: int) -> Tensor:
        weight = self.projector.weight
        places = torch.arange(side, device=weight.device, dtype=weight.dtype)
        return 2 * places / places[-1:].clamp(min=1) - 1  # a single one is at -1


class _Tokens(nn.Module):
    """Features [B, C, H, W] to tokens [B, H W, channels], from the position code and the features of each place."""

    def __init__(self, in_channels: int, channels: int, code: int):
        super().__init__()
        self.embed = _PositionCode(code)
        self.output = nn.Linear(code + in_channels, channels)
        self.register_load_state_dict_pre_hook(_forget_places)

    def forward(self, features: Tensor) -> Tensor:
        batch, _, height, width = features.shape
        code = repeat(self.embed(height, width), "n c -> b n c", b=batch)
        tokens = rearrange(features, "b c h w -> b (h w) c")
        return self.output(torch.cat([code.to(tokens.dtype), tokens], -1))


def _forget_places(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    for name in ("x_const", "y_const"):
        state_dict.pop(prefix + name, None)


class _Encoder(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]):
        super().__init__()
        self.encoder = nn.Sequential(*blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.encoder(tokens)


class Transformer(nn.Module):
    """The bottleneck: features [B, C, H, W] to features of the same shape, and a style [B, channels].

    The style is what becomes of one learned token beside those of the places.

    Args:
        in_channels: of the features.
        channels: of the tokens and of the style.
        heads: of the attention; must divide ``channels``.
        blocks: each has attention and a feed-forward layer.
        hidden: channels inside the feed-forward layers.
        code: channels of the position code.
    """

    def __init__(self, in_channels: int, *, channels: int, heads: int, blocks: int, hidden: int, code: int):
        super().__init__()
        self.trans_input = _Tokens(in_channels, channels, code)
        self.extra_tokens = nn.Parameter(torch.randn(1, 1, channels))
        self.encoder = _Encoder([_Block(channels, heads, hidden) for _ in range(blocks)])
        self.trans_output = nn.Linear(channels, in_channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        height = features.shape[2]
        tokens = self.trans_input(features)
        extra = repeat(self.extra_tokens, "1 1 c -> b 1 c", b=tokens.shape[0])
        tokens = self.encoder(torch.cat([tokens, extra.to(tokens.dtype)], 1))
        places = self.trans_output(tokens[:, :-1])
        return rearrange(places, "b (h w) c -> b c h w", h=height), tokens[:, -1]
