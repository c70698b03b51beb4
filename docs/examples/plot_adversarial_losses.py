"""
Adversarial losses as curves
============================

What each loss pays for a logit: the discriminator for a real image and for a generated one, the generator for a
generated one. Where a curve is flat, nothing is learned from such images any more: the hinge loss leaves alone what the
discriminator tells apart well enough, the logistic loss never quite does, and least squares also pulls back logits that
are too sure.
"""

import matplotlib.pyplot as plt
import torch

from ganparts import ADVERSARIAL_LOSSES

logits = torch.linspace(-3, 3, 121)
nothing = torch.zeros(1)
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
titles = "discriminator, real image", "discriminator, generated image", "generator, generated image"

for name in ("lsgan", "logistic", "hinge", "wgan"):
    loss = ADVERSARIAL_LOSSES.create(name)
    maps = [logit.reshape(1, 1, 1, 1) for logit in logits]
    curves = (
        [loss.discriminator(logit, nothing) - loss.discriminator(nothing, nothing) for logit in maps],
        [loss.discriminator(nothing, logit) - loss.discriminator(nothing, nothing) for logit in maps],
        [loss.generator(logit) - loss.generator(nothing) for logit in maps],
    )
    for place, curve in zip(axes, curves, strict=True):
        place.plot(logits, torch.stack(curve), label=name)

for place, title in zip(axes, titles, strict=True):
    place.set_title(title)
    place.set_xlabel("logit")
    place.axhline(0, color="0.8", zorder=0)
axes[0].set_ylabel("loss, less that of logit 0")
axes[0].legend()
