"""Benchmarks, and the textbook training step that they and the tests compare with."""
