"""The version, which nothing else is needed for."""

__version__ = "0.1.0"
