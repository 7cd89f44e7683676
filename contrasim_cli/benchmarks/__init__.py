"""The benchmarks that tell which measure to trust: layer prediction and retrieval."""

STRICTLY = 1e-6  # relative; by less than this nothing is greater, so that rounding wins nothing
