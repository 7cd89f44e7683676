"""The registry of closed-form measures: a light table, so that names are checked without importing torch.

Every measure compares two aligned matrices X [n, p] and Y [n, q]. A new one is a pair of functions in the file of its
family, one line here, and one row in the property tests.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrasim_cli.errors import UsageError
from contrasim_cli.names import quoted

STRICTLY = 1e-6  # relative; by how much a score must be greater to be greater: by less, rounding would decide
NO_VARIANCE = "a side has no variance"
NO_NEIGHBOURS = "a row is zero, a side's rows have all one direction, or there are fewer than k + 1 rows"

# What may be done to one side alone, or (where it says both) to both sides alike, without changing the score.
# The property tests prove each, and that the ones not listed change it.
INVARIANCES = (
    "scale",  # one side times a positive number
    "rotation",  # an orthogonal map of one side's columns
    "linear",  # an invertible linear map of one side's columns
    "permutation",  # a permutation of one side's columns
    "offset",  # a row added to every row of one side
    "both-rotation",  # the same orthogonal map on both sides
    "both-permutation",  # the same permutation of columns on both sides
    "symmetric",  # X and Y change places
)


@dataclass(frozen=True)
class Options:
    """The settings that measures have, for all of them together; each uses its own."""

    rank_tol: float = 1e-6  # directions with σ below this times the largest are dropped
    k: int = 10  # nearest rows
    clamp: float = 1.0  # quantile of a layer's absolute values beyond which neighbour measures clamp them
    rbf_threshold: float = 1.0  # bandwidth of the Gaussian kernel over the median distance
    rsm: str = "pearson"  # similarity of rows: pearson, cosine, euclidean, sqeuclidean
    rsm_compare: str = "spearman"  # of two row-similarity matrices: one of matrices.COMPARISONS
    ridge: float = 0.1  # λ of GULP, over the mean variance of a direction
    minibatch: int = 256  # rows per batch of cka_minibatch
    seed: int = 0
    shape_alpha: float = 0.5  # α of shape_alpha: 0 compares whitened sides, 1 sides as they are
    folds: int = 5  # of encoding scores
    encoding_score: str = "r2"  # of a neuron: r2 or correlation
    neurons: str = "median"  # what encoding scores take over neurons: median or mean
    components: int = 25  # of partial least squares
    topology_rows: int = 500  # drawn for the loops of rtd
    topology_trials: int = 10  # draws of rows and of landmarks

    def __post_init__(self) -> None:
        for name in ("rank_tol", "rbf_threshold", "ridge", "shape_alpha"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be a finite number")


# of ranges, in words; of angles that may be obtuse, the right one, at which nothing is similar
BOUNDS = {"√2": math.sqrt(2), "π/2": math.pi / 2, "π": math.pi / 2, "e⁻⁴": math.exp(-4)}


@dataclass(frozen=True)
class Entry:
    """What is known about a measure without loading it."""

    name: str
    family: str
    summary: str
    undefined: str
    module: str = ""  # file of the measure, where it is not called like the family
    range: str = "[0, 1]"
    higher_is_more_similar: bool = True
    invariances: frozenset[str] = frozenset()
    cost: str = "n p q"
    source: str = ""
    needs_equal_widths: bool = False
    trivial_at_full_rank: bool = False
    extra: str = ""  # the extra that it needs
    biased_by_width: bool = False  # with fewer rows than neurons, unrelated rows score as similar
    debiased: str = ""  # the measure of its kind that has no such bias
    empty_on_zero_rows: bool = False  # a row that is zero on either side makes the score undefined
    growth: float = 0.0  # scores grow as the number of rows to this power: those that are sums over rows
    bilinear: bool = (
        False  # the mean of inner products of two rows, so that its mean over all shuffles is that of the mean rows
    )
    fewest: int = 2  # rows below which every score is undefined or the same; of neighbour measures beyond k

    @property
    def unrelated(self) -> float | None:
        """The score of no similarity at all: 0 of similarities, the upper bound of distances (of angles, π/2); None without."""
        low, high = (bound.strip("[]() ") for bound in self.range.split(","))
        if self.higher_is_more_similar:
            return None if "∞" in low else 0.0
        return None if "∞" in high else BOUNDS.get(high) or float(high)

    @property
    def quadratic(self) -> bool:
        """Whether it costs n², so that many rows are out of reach."""
        return self.cost.startswith("n²")


def _entry(name: str, family: str, summary: str, invariances: str, **more: object) -> Entry:
    undefined = str(more.pop("undefined", NO_VARIANCE))
    return Entry(name, family, summary, undefined, invariances=frozenset(invariances.split()), **more)  # type: ignore[arg-type]


_LINEAR = "scale rotation linear permutation offset both-rotation both-permutation"
_ROTATION = "scale rotation permutation offset both-rotation both-permutation"
_BOTH = "both-rotation both-permutation"
_MATCHED = "permutation both-permutation"
_UNCENTRED = "scale rotation permutation both-rotation both-permutation"

_ENTRIES = (
    _entry(
        "cka",
        "cka",
        "linear centred kernel alignment (Eq. 8)",
        f"{_ROTATION} symmetric",
        source="Kornblith et al. 2019",
        biased_by_width=True,
        debiased="cka_debiased",
        fewest=3,
    ),
    _entry(
        "rv",
        "cka",
        "the RV coefficient, an alias of cka",
        f"{_ROTATION} symmetric",
        source="Robert & Escoufier 1976",
        biased_by_width=True,
        debiased="cka_debiased",
        fewest=3,
    ),
    _entry(
        "cka_debiased",
        "cka",
        "cka with the unbiased HSIC estimator; may be negative",
        f"{_ROTATION} symmetric",
        range="[-1, 1]",
        source="Song et al. 2012, Eq. 5; public code may clamp it at 0",
        undefined="a side's rows are all equal or equally far from each other, or there are fewer than 4",
        fewest=4,
    ),
    _entry(
        "cka_minibatch",
        "cka",
        "cka_debiased averaged over batches of --minibatch consecutive rows; may be negative",
        f"{_ROTATION} symmetric",
        range="[-1, 1]",
        cost="n batch (p + q)",
        source="Nguyen et al. 2021; public code differs in shuffling and in the last batch",
        undefined="as cka_debiased in every batch of a side",
        fewest=4,
    ),
    _entry(
        "cka_rbf",
        "cka",
        "cka of Gaussian kernels, bandwidth --rbf-threshold times the median distance",
        f"{_ROTATION} symmetric",
        cost="n² (p + q)",
        source="Kornblith et al. 2019; their code's median counts the distances of rows to themselves",
        undefined="more than half of a side's pairs of rows are equal",
        biased_by_width=True,
        debiased="cka_debiased",
        fewest=3,
    ),
    _entry(
        "cca",
        "cca",
        "mean canonical correlation (Eq. 5, 6)",
        f"{_LINEAR} symmetric",
        cost="n p q + p q²",
        source="Hotelling 1936",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "svcca",
        "cca",
        "cca of the directions that hold 99 % of the variance",
        f"{_ROTATION} symmetric",
        cost="n p q + p q²",
        source="Raghu et al. 2017; platonic-rep keeps 10 directions of z-scored columns, ReSi often a single one (a share against "
        "0.99 times the total variance)",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "pwcca",
        "cca",
        "projection-weighted cca, weighted by X (Eq. 7)",
        "scale permutation offset both-permutation",
        cost="n p q + p q²",
        source="Morcos et al. 2018",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "pwcca_google",
        "cca",
        "pwcca with the weights of github.com/google/svcca, of the narrower side; columns centred, where that code is not",
        "scale permutation offset both-permutation",
        cost="n p q + p q²",
        source="Morcos et al. 2018, released code",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "cca_yanai",
        "cca",
        "mean squared canonical correlation",
        f"{_LINEAR} symmetric",
        cost="n p q + p q²",
        source="Yanai 1974; Ramsay et al. 1984",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "procrustes",
        "alignment",
        "least distance over orthogonal maps, centred, unit norm; some report its square",
        f"{_ROTATION} symmetric",
        range="[0, √2]",
        higher_is_more_similar=False,
        cost="n p q + p q²",
        source="Schönemann 1966; Williams et al. 2021",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "angular_shape",
        "alignment",
        "angle between centred sides of unit norm after the best orthogonal map",
        f"{_ROTATION} symmetric",
        range="[0, π/2]",
        higher_is_more_similar=False,
        cost="n p q + p q²",
        source="Williams et al. 2021",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "procrustes_size_shape",
        "alignment",
        "least distance over orthogonal maps, centred, not scaled",
        "rotation permutation offset both-rotation both-permutation symmetric",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p q + p q²",
        source="Schönemann 1966; Williams et al. 2021",
        undefined="the values are too large to square",
        biased_by_width=True,
        growth=0.5,
    ),
    _entry(
        "nbs",
        "alignment",
        "normalised Bures similarity of the centred Gram matrices, the cosine of angular_shape",
        f"{_ROTATION} symmetric",
        module="shape",
        cost="n p q + p q²",
        source="Tang et al. 2020; Harvey et al. 2024; public code may leave out the centring",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "bures_distance",
        "alignment",
        "Bures distance of the centred Gram matrices, which is procrustes_size_shape",
        "rotation permutation offset both-rotation both-permutation symmetric",
        module="shape",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p q + p q²",
        source="Bhatia et al. 2019; Harvey et al. 2024; netrep's sq_bures_metric gives the square of any two matrices",
        undefined="the values are too large to square",
        biased_by_width=True,
        growth=0.5,
    ),
    _entry(
        "shape_alpha",
        "alignment",
        "angle after the best orthogonal map, whitened (--shape-alpha 0) to as they are (1, angular_shape)",
        f"{_ROTATION} symmetric",
        module="shape",
        range="[0, π/2]",
        higher_is_more_similar=False,
        cost="n p q + p q²",
        source="Williams et al. 2021; their code mixes sides as they are scaled, here those of unit mean variance",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "angular_cka",
        "cka",
        "angle whose cosine is cka",
        f"{_ROTATION} symmetric",
        module="shape",
        range="[0, π/2]",
        higher_is_more_similar=False,
        source="Williams et al. 2021",
        biased_by_width=True,
        debiased="cka_debiased",
        fewest=3,
    ),
    _entry(
        "angular_permutation",
        "alignment",
        "angle between centred sides of unit norm after the best permutation of columns",
        f"scale offset {_MATCHED} symmetric",
        module="shape",
        range="[0, π]",
        higher_is_more_similar=False,
        cost="n p q + max(p, q)³",
        source="Williams et al. 2021, netrep's PermutationMetric",
        extra="match",
        biased_by_width=True,
    ),
    _entry(
        "permutation_procrustes",
        "alignment",
        "least distance over permutations of columns, not centred or scaled",
        f"{_MATCHED} symmetric",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p q + max(p, q)³",
        source="Williams et al. 2021",
        undefined="the values are too large to square",
        extra="match",
        biased_by_width=True,
        growth=0.5,
    ),
    _entry(
        "aligned_cosine",
        "alignment",
        "mean cosine of paired rows after the best orthogonal map, not centred",
        f"{_UNCENTRED} symmetric",
        range="[-1, 1]",
        cost="n p q + p q²",
        source="Hamilton et al. 2016",
        undefined="a row is zero",
        biased_by_width=True,
        empty_on_zero_rows=True,
    ),
    _entry(
        "linear_regression",
        "alignment",
        "R² of X from Y by least squares",
        _ROTATION,
        cost="n p q + p q²",
        source="Kornblith et al. 2019",
        undefined="X has no variance",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "linear_regression_symmetric",
        "alignment",
        "mean of the R² of X from Y and of Y from X",
        f"{_ROTATION} symmetric",
        cost="n p q + p q²",
        source="Kornblith et al. 2019",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "hard_match",
        "alignment",
        "mean column correlation under the best one-to-one assignment; constant columns are left out",
        f"scale offset {_MATCHED} symmetric",
        range="[-1, 1]",
        cost="n p q + p q²",
        source="Li et al. 2016",
        extra="match",
        biased_by_width=True,
    ),
    _entry(
        "soft_match",
        "alignment",
        "mean of each column's best correlation, both ways; the optimal transport is soft_matching_correlation",
        f"scale offset {_MATCHED} symmetric",
        range="[-1, 1]",
        source="Li et al. 2016",
        biased_by_width=True,
    ),
    _entry(
        "soft_matching_distance",
        "alignment",
        "least root mean squared distance of columns over transport plans of equal masses, centred, not scaled",
        f"offset {_MATCHED} symmetric",
        module="transport",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p q + lcm(p, q)³",
        source="Khosla & Williams 2024; public code may scale columns or layers before",
        undefined="the values are too large to square",
        extra="match",
        biased_by_width=True,
        growth=0.5,
    ),
    _entry(
        "soft_matching_correlation",
        "alignment",
        "greatest mean correlation of columns over transport plans of equal masses; constant columns are left out",
        f"scale offset {_MATCHED} symmetric",
        module="transport",
        range="[-1, 1]",
        cost="n p q + lcm(p, q)³",
        source="Khosla & Williams 2024",
        extra="match",
        biased_by_width=True,
    ),
    _entry(
        "eigenspace_overlap",
        "subspace",
        "overlap of the spaces that the columns span, not centred",
        "scale rotation linear permutation both-rotation both-permutation symmetric",
        cost="n p q + p q²",
        source="May et al. 2019; ReSi divides by the larger width, here by the larger rank",
        undefined="both sides are zero",
        trivial_at_full_rank=True,
        biased_by_width=True,
    ),
    _entry(
        "gulp",
        "subspace",
        "distance of ridge predictions; λ is --ridge times the mean variance of a column",
        f"{_ROTATION} symmetric",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p q + p q²",
        source="Boix-Adserà et al. 2022; their code gives the square, of sides scaled to a total variance of 1, where λ is "
        "--ridge / width; ReSi takes λ = 0",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "encoding_ridge",
        "encoding",
        "median R² (--encoding-score, --neurons) of the neurons of Y by ridge regression on X in held-out "
        "rows; λ by generalised cross-validation",
        "scale permutation offset both-permutation",
        range="(-∞, 1]",
        cost="n p q + n p² + p³",
        source="Golub et al. 1979; Naselaris et al. 2011; public code may take λ by inner folds, one λ for all "
        "neurons, or R² per fold",
        undefined="every neuron of Y is constant, or there is one row",
        fewest=3,
    ),
    _entry(
        "decoding_ridge",
        "encoding",
        "encoding_ridge the other way round: the neurons of X from Y",
        "scale permutation offset both-permutation",
        range="(-∞, 1]",
        cost="n p q + n p² + p³",
        source="as encoding_ridge",
        undefined="every neuron of X is constant, or there is one row",
        fewest=3,
    ),
    _entry(
        "encoding_pls",
        "encoding",
        "encoding_ridge by partial least squares of all neurons of Y together, with --components",
        "scale permutation offset both-permutation",
        range="(-∞, 1]",
        cost="n p q + n p² + components p q",
        source="Wold et al. 2001; Yamins et al. 2014; scikit-learn's PLSRegression(scale=False); Brain-Score "
        "divides correlations by a noise ceiling",
        undefined="every neuron of Y is constant, or there is one row",
        fewest=3,
    ),
    _entry(
        "decoding_pls",
        "encoding",
        "encoding_pls the other way round: the neurons of X from Y",
        "scale permutation offset both-permutation",
        range="(-∞, 1]",
        cost="n p q + n p² + components p q",
        source="as encoding_pls",
        undefined="every neuron of X is constant, or there is one row",
        fewest=3,
    ),
    _entry(
        "dot",
        "pointwise",
        "mean dot product of paired rows",
        f"{_BOTH} symmetric",
        range="(-∞, ∞)",
        cost="n p",
        undefined="the widths differ",
        needs_equal_widths=True,
        bilinear=True,
    ),
    _entry(
        "cosine",
        "pointwise",
        "mean cosine of paired rows",
        f"scale {_BOTH} symmetric",
        range="[-1, 1]",
        cost="n p",
        undefined="a row is zero or the widths differ",
        needs_equal_widths=True,
        empty_on_zero_rows=True,
        bilinear=True,
    ),
    _entry(
        "norm",
        "pointwise",
        "mean of 1 - distance of paired unit rows (Eq. 9, 10)",
        f"scale {_BOTH} symmetric",
        range="[-1, 1]",
        cost="n p",
        undefined="a row is zero or the widths differ",
        needs_equal_widths=True,
        empty_on_zero_rows=True,
    ),
    _entry(
        "magnitude_difference",
        "statistics",
        "difference of the lengths of the centroids",
        "rotation permutation both-rotation both-permutation symmetric",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p",
        source="Wang et al. 2020",
        undefined="the values are too large to square",
    ),
    _entry(
        "concentricity_difference",
        "statistics",
        "difference of the mean cosines of rows to their centroid",
        f"{_UNCENTRED} symmetric",
        range="[0, 2]",
        higher_is_more_similar=False,
        cost="n p",
        source="Wang et al. 2020",
        undefined="a row or a centroid is zero",
        empty_on_zero_rows=True,
    ),
    _entry(
        "uniformity_difference",
        "statistics",
        "difference of log mean exp(-2 d²) over distinct pairs of unit rows; others count each row's pair with itself",
        f"{_UNCENTRED} symmetric",
        range="[0, 8]",
        higher_is_more_similar=False,
        cost="n² p",
        source="Wang and Isola 2020",
        undefined="a row is zero or there is only one",
        empty_on_zero_rows=True,
    ),
    _entry(
        "eigenspectrum_decay_difference",
        "statistics",
        "difference of the exponents α of power laws λ_i ∝ i^-α that are fitted to the covariances' eigenvalues",
        f"{_ROTATION} symmetric",
        module="spectrum",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n (p² + q²)",
        source="Stringer et al. 2019; their code fits a range of ranks that is chosen by eye, here all above --rank-tol",
        undefined="fewer than two directions of a side vary",
        fewest=3,
    ),
    _entry(
        "participation_ratio_difference",
        "statistics",
        "difference of the effective dimensions (Σ λ)² / Σ λ² of the covariances",
        f"{_ROTATION} symmetric",
        module="spectrum",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n (p² + q²)",
        source="Gao et al. 2017; public code may divide each by the width",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "mmd",
        "statistics",
        "unbiased squared maximum mean discrepancy, Gaussian kernel, bandwidth the median distance; may be negative",
        f"{_BOTH} symmetric",
        module="distributions",
        range="(-∞, 2]",
        higher_is_more_similar=False,
        cost="n² p",
        source="Gretton et al. 2012, Eq. 3; public code may take the biased one, its root, or a sum of bandwidths",
        undefined="more than half of all pairs of rows are equal, there is only one row or the widths differ",
        needs_equal_widths=True,
    ),
    _entry(
        "frechet_distance",
        "statistics",
        "squared Fréchet distance of Gaussians with the rows' means and covariances",
        f"{_BOTH} symmetric",
        module="distributions",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p² + p³",
        source="Dowson & Landau 1982; Heusel et al. 2017, whose FID is this number of Inception's features",
        undefined="there is only one row, the values are too large to square or the widths differ",
        needs_equal_widths=True,
    ),
    _entry(
        "bures_covariance",
        "statistics",
        "Bures distance of the covariances of neurons (bures_distance is of the Gram matrices of rows)",
        f"offset {_BOTH} symmetric",
        module="distributions",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n p² + p³",
        source="Bhatia et al. 2019",
        undefined="there is only one row, the values are too large to square or the widths differ",
        needs_equal_widths=True,
    ),
    _entry(
        "imd",
        "statistics",
        "intrinsic multi-scale distance: largest weighted difference of heat kernel traces of graphs of the 5 nearest rows",
        f"{_ROTATION} symmetric",
        module="topology",
        range="[0, e⁻⁴]",
        higher_is_more_similar=False,
        cost="n² p + n³",
        source="Tsitsulin et al. 2020; their code gives 10⁶ times as much, with traces estimated by stochastic Lanczos quadrature",
        undefined="there are fewer than 6 rows or all are equal",
        fewest=7,
    ),
    _entry(
        "gromov_wasserstein",
        "statistics",
        "Gromov-Wasserstein distance of the rows' Euclidean distances over their mean; a local minimum over permutations of rows",
        f"{_ROTATION} symmetric",
        module="gromov",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n² (p + q) + steps n³",
        source="Mémoli 2011; conditional gradient and swaps of rows from two starts; POT takes one; entropic variants differ",
        undefined="all rows of a side are equal",
        extra="match",
        fewest=3,
    ),
    _entry(
        "geometry_score",
        "statistics",
        "squared difference of the mean relative living times of loops of witness complexes of 64 landmarks (--topology-trials)",
        f"{_ROTATION} symmetric",
        module="topology",
        range="[0, 2]",
        higher_is_more_similar=False,
        cost="trials n landmarks (p + landmarks²)",
        source="Khrulkov & Oseledets 2018; their code draws landmarks with replacement, 1,000 times",
        undefined="all rows of a side are equal",
        fewest=8,
    ),
    _entry(
        "rtd",
        "matrices",
        "representation topology divergence: length of the loops in which distances differ (--topology-rows, --topology-trials)",
        f"{_ROTATION} symmetric",
        module="topology",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="trials (rows² (p + q) + rows³)",
        source="Barannikov et al. 2022, with its 10 draws of 500 rows; grows with the number of rows",
        undefined="more than nine tenths of the distances of a side's rows are 0",
        growth=1.0,
        fewest=3,
    ),
    _entry(
        "rsa",
        "matrices",
        "correlation (--compare) of two row-similarity matrices (--rsm)",
        "scale permutation both-permutation symmetric",
        range="[-1, 1]",
        cost="n² (p + q + log n)",
        source="Kriegeskorte et al. 2008; rsatoolbox's cosine, corr_cov, cosine_cov are cosine-rdm, corr-cov, cosine-cov",
        undefined="a side's row similarities are equal, a row is zero or (pearson) constant, or (crossnobis) repeats do not differ",
        empty_on_zero_rows=True,
        fewest=3,
    ),
    _entry(
        "rsm_norm_difference",
        "matrices",
        "Frobenius norm of the difference of the Euclidean distance matrices",
        "rotation permutation offset both-rotation both-permutation symmetric",
        range="[0, ∞)",
        higher_is_more_similar=False,
        cost="n² (p + q)",
        source="Yin & Shen 2018, with distances for inner products; ReSi takes the spectral norm",
        undefined="never",
        growth=1.0,
    ),
    _entry(
        "distance_correlation",
        "matrices",
        "√(dCov² / √(dVar dVar)) of double-centred distance matrices",
        f"{_ROTATION} symmetric",
        cost="n² (p + q)",
        source="Székely et al. 2007; public code may report its square or the bias-corrected one",
        biased_by_width=True,
        fewest=3,
    ),
    _entry(
        "jaccard_knn",
        "neighbours",
        "mean intersection over union of the --k nearest rows (cosine)",
        f"{_UNCENTRED} symmetric",
        cost="n² (p + q) + n k²",
        source="Schumacher et al. 2021; public code drops column 0 of a search as the row itself",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
    ),
    _entry(
        "mutual_knn",
        "neighbours",
        "mean intersection over k of the --k nearest rows (cosine)",
        f"{_UNCENTRED} symmetric",
        cost="n² (p + q) + n k²",
        source="Huh et al. 2024; their code clamps entries at their 95 % quantile over all layers; --clamp does per layer",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
    ),
    _entry(
        "cycle_knn",
        "neighbours",
        "share of rows that are among the --k nearest in X of one of their --k nearest in Y (cosine); X with itself may be below 1",
        _UNCENTRED,
        cost="n² (p + q) + n k²",
        source="Huh et al. 2024; their code clamps entries, as --clamp 0.95",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
    ),
    _entry(
        "lcs_knn",
        "neighbours",
        "mean longest common subsequence of the --k nearest rows, nearest first (cosine), over k",
        f"{_UNCENTRED} symmetric",
        cost="n² (p + q) + n k²",
        source="Huh et al. 2024; their code does not divide by k, and clamps entries, as --clamp 0.95",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
        fewest=1,
    ),
    _entry(
        "edit_distance_knn",
        "neighbours",
        "1 - mean edit distance of the --k nearest rows, nearest first (cosine), over k",
        f"{_UNCENTRED} symmetric",
        cost="n² (p + q) + n k²",
        source="Huh et al. 2024; their code clamps entries, as --clamp 0.95",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
        fewest=1,
    ),
    _entry(
        "cknna",
        "neighbours",
        "cka over pairs of rows that are among the --k nearest on both sides",
        f"{_UNCENTRED} symmetric",
        range="[-1, 1]",
        cost="n² (p + q) + n k²",
        source="Huh et al. 2024, Eq. 16-18; their code masks before it centres, and can exceed 1",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
        fewest=1,
    ),
    _entry(
        "second_order_cosine",
        "neighbours",
        "mean cosine of rows' cosines with both sides' --k nearest rows",
        f"{_UNCENTRED} symmetric",
        range="[-1, 1]",
        cost="n² (p + q) + n k (p + q)",
        source="Hamilton et al. 2016; public code takes cosine distances",
        undefined=f"{NO_NEIGHBOURS}, or a row's cosines are all zero",
        empty_on_zero_rows=True,
        fewest=1,
    ),
    _entry(
        "rank_similarity",
        "neighbours",
        "shared --k nearest rows (cosine), weighted by how alike their ranks are",
        f"{_UNCENTRED} symmetric",
        cost="n² (p + q) + n k²",
        source="Wang et al. 2022",
        undefined=NO_NEIGHBOURS,
        empty_on_zero_rows=True,
        fewest=1,
    ),
)

MEASURES = {entry.name: entry for entry in _ENTRIES}


def higher_is_more_similar(name: str) -> bool:
    """The direction of what a result calls a measure; encoders, which are named by their files, score higher."""
    return name not in MEASURES or MEASURES[name].higher_is_more_similar


def check_names(names: Sequence[str], option: str = "--measure") -> list[str]:
    """The measures that are asked for, each once: names, `family:NAME`, or `all`.

    Raises:
        UsageError: a name is unknown; the nearest are offered.
    """
    return list(dict.fromkeys(name for asked in names for name in _expand(asked, option)))


def _expand(asked: str, option: str) -> list[str]:
    if asked == "all":
        return list(MEASURES)
    if asked.startswith("family:"):
        members = [entry.name for entry in _ENTRIES if entry.family == asked.removeprefix("family:")]
        if not members:
            families = ", ".join(dict.fromkeys(entry.family for entry in _ENTRIES))
            raise UsageError(f"{option} {quoted(asked)} is not a family; there are {families}")
        return members
    if asked not in MEASURES:
        if "," in asked:
            repeated = " ".join(f"{option} {quoted(name.strip())}" for name in asked.split(","))
            raise UsageError(f"{option} {quoted(asked)}: give one name per option: {repeated}")
        near = [asked.lower()] if asked.lower() in MEASURES else difflib.get_close_matches(asked.lower(), MEASURES, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "contrasim baseline --list shows what there is"
        raise UsageError(f"{option} {quoted(asked)} is unknown; {hint}")
    return [asked]
