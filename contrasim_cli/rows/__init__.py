"""The one way from a file to what a scorer takes.

A view's layer is read, standardised or described by anchors, and encoded (`rows.stored_rows`, `scored_rows`); what fits is held
(`Room`, `Kept`); what does not is cut into blocks (`store.blocks.row_blocks`: by data and options alone, so that whoever
shares rows out cuts alike) and read one block ahead (`read_ahead`). `exact_search` finds nearest rows.
"""

from contrasim_cli.rows.rows import Kept, Room, Rows, read_ahead, scored_rows, size, stored_rows

__all__ = ["Kept", "Room", "Rows", "read_ahead", "scored_rows", "size", "stored_rows"]
