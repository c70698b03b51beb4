"""
Paint photos
============

The painters that ship with the package turn photos into paintings, in one line. A photo may have any size.
"""

import matplotlib.pyplot as plt
from PIL import Image

from ganparts.data import sample
from ganparts.translate import translate

photos = [Image.open(sample() / "testA" / name) for name in ("pontduGard_0.jpg", "neuschwansteinCastle_0.jpg")]
rows = {"photo": photos, "monet": translate("monet", photos), "vangogh": translate("vangogh", photos)}


def show(rows, columns):
    """A row of pictures under each name."""
    _, axes = plt.subplots(len(rows), columns, figsize=(3 * columns, 3 * len(rows)), layout="constrained")
    for (name, pictures), places in zip(rows.items(), axes.reshape(len(rows), columns), strict=True):
        for picture, place in zip(pictures, places, strict=True):
            place.imshow(picture)
            place.set_xticks([])
            place.set_yticks([])
        places[0].set_ylabel(name)


show(rows, columns=2)

# %%
# As strong as you like
# ---------------------
#
# A painting keeps every form of its photo in its place, so the two can be mixed: here 0, a third, two thirds and all of
# the painting. ``ganparts demo vangogh`` has a slider for it.

mixed = [Image.blend(photos[1], rows["vangogh"][1], strength) for strength in (0, 1 / 3, 2 / 3, 1)]
show({"vangogh": mixed}, columns=4)
