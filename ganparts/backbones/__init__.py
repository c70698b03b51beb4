"""Frozen feature networks and their weights: shared, never trained, and left out of checkpoints."""
