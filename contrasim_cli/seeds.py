"""What a seed is for: every stream of random numbers by its name, so that no two uses of one seed share theirs unawares.

A stream is of (seed, purpose, parts …). Numbers are those that results were made with: they stay.
"""

import numpy as np

# rows
CONFIDENCE_SUBSET, CONFIDENCE_DRAW, CONFIDENCE_SHUFFLE, CONFIDENCE_OFFSET = 0, 1, 2, 5
STACKED_SHUFFLE = 3
SANITY_CHANGES = 6
FOLDS = 8  # that rows are dealt to
TOPOLOGY = 9  # rows and landmarks of barcodes
PROJECTED_ROWS = 7
SAMPLED_ROWS = 8  # of all that are compared
WRONG_BATCHES = 10  # and wrong rows of other items
INTERVALS = 95
DIFFERENCES = 1947

# training; the first number is the epoch, copy or member that it is about
GRID_STEPS = 12
HOLD_OUT, CHOSEN_ROWS, FIRST_LAYERS = 1, 3, 4  # behind it
ANCHORS, COPIES = 3, 5
HELD_OUT_ROWS = 8  # that are left to test on

# what no user's seed changes
SEARCHED_ROWS = 1234  # that the lists of an approximate search are learned from
INSPECTED_ROWS = 0
SAMPLED_PAIRS = 0  # of rows, whose median distance is a kernel's bandwidth


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """Random numbers of a seed for one purpose and its parts."""
    return np.random.default_rng([seed, *purpose])
