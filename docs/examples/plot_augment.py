"""
What DiffAugment shows the discriminator
========================================

With 69 paintings a discriminator soon knows each by heart. DiffAugment changes all images that it sees, real and
generated, so that it cannot; gradients flow through the changes to the generator. Here each change is shown alone, then
all three together, three draws a row.
"""

import matplotlib.pyplot as plt
import torch

from ganparts import AUGMENTATIONS
from ganparts.data import open_domains, sample, to_bytes, to_unit_range

painting = to_unit_range(open_domains(sample()).b[0])[None]
policies = {"color": ("color",), "translation": ("translation",), "cutout": ("cutout",)}
policies["all three"] = ("color", "translation", "cutout")

figure, axes = plt.subplots(len(policies), 4, figsize=(10, 2.6 * len(policies)), layout="constrained")
for places, (name, policy) in zip(axes, policies.items(), strict=True):
    torch.manual_seed(1)
    augment = AUGMENTATIONS.create("diffaugment", policy=policy)
    changed = augment(painting.expand(3, -1, -1, -1))
    for place, image in zip(places, to_bytes(torch.cat([painting, changed])), strict=True):
        place.imshow(image.permute(1, 2, 0))
        place.set_xticks([])
        place.set_yticks([])
    places[0].set_ylabel(name)
