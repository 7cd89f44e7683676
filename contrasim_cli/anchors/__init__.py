"""Anchored rows: a row described by how it lies among some rows that every store has, the anchors.

Neurons have no common basis: not across seeds, and not across widths. What a row has in common with other rows does not
depend on the basis, so that an encoder of anchored rows serves models that it was not trained on, of any width.

`anchoring` is which rows are anchors, and their lookup in a store; `features` what is said of a row; `views` stores as
their anchored rows, and two stores as one.
"""

from contrasim_cli.anchors.anchoring import Anchoring, draw, locate
from contrasim_cli.anchors.features import FEATURES, Anchored, width_of
from contrasim_cli.anchors.views import AnchoredView, Anchors

__all__ = ["FEATURES", "Anchored", "AnchoredView", "Anchoring", "Anchors", "draw", "locate", "width_of"]
