"""A run in one HTML page: pictures, curves, warnings and configuration, without a server or a network."""

from ganparts.training.report.page import write_report

__all__ = ["write_report"]
