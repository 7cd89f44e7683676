"""Rows to be fed to a model: texts, images and arrays; `open` finds which, `source` is what they have in common."""
