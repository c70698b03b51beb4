"""A generator as a web page: a folder of static files that translates photos in the visitor's browser."""

from ganparts.interchange.web.folder import export_web

__all__ = ["export_web"]
