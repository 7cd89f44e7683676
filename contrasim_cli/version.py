"""The version, which nothing else is needed for."""

__version__ = "0.2.0"
