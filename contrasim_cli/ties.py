"""By how much a score must be greater than another to be greater: by less, rounding would decide."""

STRICTLY = 1e-6  # relative; of scores of encoded rows and of measures, between layers, batches and candidates
TIE = 1e-9  # relative; of one score computed again on the same rows in another order
SINGLE_TIE = 1e-7  # the same, of rows that are encoded in float32
