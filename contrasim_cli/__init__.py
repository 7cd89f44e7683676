"""contrasim: how similar are two neural representations?"""

__version__ = "0.1.0"
