"""
What a discriminator sees
=========================

A discriminator gives a logit for each place of the image. How much of the image decides about one logit is its
receptive field. Here it is measured: a noise image goes in, the logit in the middle comes out, and the size of its
gradient at each pixel says how much that pixel matters. The small ones judge texture, the large ones shape and
composition, which is why several together teach more than one.
"""

import matplotlib.pyplot as plt
import torch

from ganparts import DISCRIMINATORS

options = {"pixel": {}, "patchgan": {"layers": 1}, "patchgan ": {}, "multiscale_patchgan": {}, "unet_discriminator": {}}
images = torch.randn(4, 3, 256, 256, requires_grad=True)
figure, axes = plt.subplots(1, len(options), figsize=(3 * len(options), 3.4), layout="constrained")

for place, (name, given) in zip(axes, options.items(), strict=True):
    torch.manual_seed(0)
    discriminator = DISCRIMINATORS.create(name.strip(), **given)
    logits = discriminator(images)
    coarsest = logits[-1] if isinstance(logits, tuple) else logits  # of several scales the one that sees most
    height, width = coarsest.shape[-2:]
    (gradient,) = torch.autograd.grad(coarsest[..., height // 2, width // 2].sum(), images)
    weight = gradient.abs().mean(dim=(0, 1))
    rows = (weight > weight.max() / 20).any(dim=1).sum().item()  # instance norm lets all pixels matter a little
    place.imshow(weight.sqrt(), cmap="magma")
    place.set_title(f"{name.strip()}({', '.join(f'{k}={v}' for k, v in given.items())})\n{rows} pixels", fontsize=9)
    place.set_xticks([])
    place.set_yticks([])
