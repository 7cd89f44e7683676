"""How sure each score of a grid is: 95 % intervals by resampling rows, p-values and z-scores against shuffled rows of Y.

Rows are taken to be independent draws. θ(N) is the score on all N rows.

Intervals
- Row-wise measures are means of f(x_r, y_r): the bootstrap draws N rows with replacement, and its percentiles are the
  interval.
- For all others a row that is drawn twice is its own nearest neighbour and weighs double in a kernel, so that the bootstrap
  is biased. Replicates are the score on m of n rows without replacement, m = n/2, n a seeded subset of all N
  (subsampling: Politis & Romano 1994; half-sampling: Shao & Wu 1989). The interval is

      θ(N) + √(m n / ((n - m) N)) · (quantile - mean of the replicates),

  because two sets of m out of n rows share rows: the replicates' variance is σ²(1/m - 1/n), that of θ(N) is σ²/N. It
  assumes that a spread falls with the root of the number of rows, which fails where m is not well above the widths
  (CCA family) or k. What θ(N) is biased by, in a measure that overestimates on few rows, the interval does not see.

Permutations
- Y's rows are shuffled, X's stay: what the measure says of unrelated sides of the same shape. p = (1 + number of shuffles
  at least as similar) / (B + 1), z = (score - mean) / std over the shuffles, signed so that larger is more similar. Both are
  of one set of rows: all for row-wise measures, else the seeded subset.
- Row-wise measures of rows that do not fit in memory read and encode them once for each of a few rolls: Y's rows are rolled by a
  seeded offset and then shuffled within the blocks that they are read in.
- Encoders are calibrated (`nulls`) by the same shuffles. Their level is exact, and of all rows, for dot products and CKA:
  the mean of x_r · y_π(r) over all π is x̄ · ȳ, that of CKA is tr K tr L / (n - 1) of centred kernels of norm 1.

Nothing is factored anew for a shuffle: a shuffled layer is the prepared one with its rows permuted. Every draw and
shuffle has a seed of its own, so that no result depends on how many are worked off at once; blocks apart.
"""

from contrasim_cli.confidence.resampling import Asked, Confidence, Resampling, interval, significance

__all__ = ["Asked", "Confidence", "Resampling", "interval", "significance"]
