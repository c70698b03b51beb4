"""Differentiable augmentation of what discriminators see.

With few real images a discriminator learns them by heart. Augmenting real and generated images alike, and letting
gradients through, prevents it without teaching the generator to make augmented images.
"""

from ganparts.augment.adaptive import AdaptiveAugment, Changes, ada, apply_changes
from ganparts.augment.differentiable import DiffAugment, Draws, diffaugment

__all__ = ["AdaptiveAugment", "Changes", "DiffAugment", "Draws", "ada", "apply_changes", "diffaugment"]
