"""
Train a discriminator alone
===========================

Every part works without the rest. Here a PatchGAN learns for some seconds to tell the sample's paintings from its
photos, on crops of 128 pixels. Then it judges a photo, what the painter ``vangogh`` makes of it, and a real painting.
The map below each says where it finds the picture painted (green) and where photographed (purple). Such maps are what a
generator learns from.
"""

import matplotlib.pyplot as plt
import torch

from ganparts import ADVERSARIAL_LOSSES, DISCRIMINATORS
from ganparts.data import open_domains, sample, to_unit_range
from ganparts.translate import translate

torch.manual_seed(0)
domains = open_domains(sample())
discriminator = DISCRIMINATORS.create("patchgan", width=32)
loss = ADVERSARIAL_LOSSES.create("hinge")
optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.99))


def crops(images, count=4, side=128):
    """Crops of random images, float [count, 3, side, side] in [-1, 1]."""
    chosen = [images[int(i)] for i in torch.randint(len(images), (count,))]
    tops = [int(torch.randint(image.shape[-2] - side + 1, ())) for image in chosen]
    lefts = [int(torch.randint(image.shape[-1] - side + 1, ())) for image in chosen]
    places = zip(chosen, tops, lefts, strict=True)
    return to_unit_range(torch.stack([image[:, top : top + side, left : left + side] for image, top, left in places]))


for _ in range(100):
    value = loss.discriminator(discriminator(crops(domains.b)), discriminator(crops(domains.a)))
    optimizer.zero_grad()
    value.backward()
    optimizer.step()

# %%
# What it has learned
# -------------------

photo = domains.test_a[3]
pictures = {"photo": photo, "painted by vangogh": translate("vangogh", photo), "painting by Van Gogh": domains.b[0]}
figure, axes = plt.subplots(2, len(pictures), figsize=(9, 6), layout="constrained")
for column, (name, picture) in zip(axes.T, pictures.items(), strict=True):
    with torch.inference_mode():
        logits = discriminator(to_unit_range(picture)[None])[0, 0]
    column[0].imshow(picture.permute(1, 2, 0))
    column[0].set_title(name)
    column[1].imshow(logits, cmap="PiYG", vmin=-3, vmax=3)
    column[1].set_title(f"mean logit {logits.mean():.2f}")
for place in axes.flat:
    place.set_xticks([])
    place.set_yticks([])
