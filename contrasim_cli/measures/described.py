"""A measure at length: its formula, what leaves it unchanged, and when it fails. Light, as the registry is."""

from collections.abc import Iterator

from contrasim_cli.measures import INVARIANCES, MEASURES, Entry

# X [n, p] and Y [n, q]; c: less the mean of each column; K = XcXcᵀ, L = YcYcᵀ; ρ: canonical correlations; σ: singular values of Xc;
# N: the k nearest rows by cosine
FORMULAS = {
    "cka": "‖YcᵀXc‖²_F / (‖XcᵀXc‖_F ‖YcᵀYc‖_F) = ⟨K, L⟩ / (‖K‖ ‖L‖)",
    "rv": "‖YcᵀXc‖²_F / (‖XcᵀXc‖_F ‖YcᵀYc‖_F)",
    "cka_debiased": "HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with the unbiased estimator of HSIC, for which diagonals are zero",
    "cka_minibatch": "mean HSIC(K_b, L_b) / √(mean HSIC(K_b, K_b) mean HSIC(L_b, L_b)) over batches b, unbiased in each",
    "cka_rbf": "cka of the kernels exp(-d² / 2s²), with s the threshold times the median distance d of two rows",
    "cca": "Σ_i ρ_i / min(rank X, rank Y)",
    "svcca": "cca of the fewest leading directions of either side with Σ σ² ≥ 0.99 of all",
    "pwcca": "Σ_i α_i ρ_i / Σ_i α_i, α_i = Σ_j |⟨h_i, x_j⟩| with the canonical variates h_i of X and the columns x_j of Xc",
    "pwcca_google": "the same with h_i from a QR decomposition of Xc u_i, u_i the left singular vectors of Σ_XX^-½ Σ_XY Σ_YY^-½",
    "cca_yanai": "Σ_i ρ_i² / min(rank X, rank Y)",
    "procrustes": "min_Q ‖X Q - Y‖_F = √(2 - 2 ‖XᵀY‖_*) of sides that are centred and of norm 1",
    "angular_shape": "arccos ‖XᵀY‖_* of sides that are centred and of norm 1",
    "procrustes_size_shape": "min_Q ‖Xc Q - Yc‖_F = √(‖Xc‖² + ‖Yc‖² - 2 ‖XcᵀYc‖_*)",
    "nbs": "tr (K^½ L K^½)^½ / √(tr K tr L) = ‖XcᵀYc‖_* / (‖Xc‖ ‖Yc‖)",
    "bures_distance": "√(tr K + tr L - 2 tr (K^½ L K^½)^½)",
    "shape_alpha": "arccos(‖X_αᵀ Y_α‖_* / (‖X_α‖ ‖Y_α‖)), X_α = Xc (α I / s + (1 - α) (XcᵀXc)^-½), s² the mean σ²",
    "angular_cka": "arccos(⟨K, L⟩ / (‖K‖ ‖L‖))",
    "angular_permutation": "arccos max_P ⟨X P, Y⟩ over permutations P of columns, of sides that are centred and of norm 1",
    "permutation_procrustes": "min_P ‖X P - Y‖_F over permutations P of columns; the narrower side gets zero columns",
    "aligned_cosine": "1/n Σ_r cos(x_r Q, y_r) with the orthogonal Q of the least ‖X Q - Y‖_F",
    "linear_regression": "1 - min_B ‖Xc - Yc B‖² / ‖Xc‖²",
    "linear_regression_symmetric": "the mean of linear_regression of X from Y and of Y from X",
    "hard_match": "max_π 1/m Σ_i corr(x_i, y_π(i)) over one-to-one pairs of columns, m = min(p, q)",
    "soft_match": "½ (mean_i max_j corr(x_i, y_j) + mean_j max_i corr(x_i, y_j))",
    "soft_matching_distance": "√ min_P Σ_ij P_ij ‖x_i - y_j‖² of centred columns over plans P ≥ 0 with sums 1/p and 1/q",
    "soft_matching_correlation": "max_P Σ_ij P_ij corr(x_i, y_j) over the same plans",
    "eigenspace_overlap": "‖U_Xᵀ U_Y‖²_F / max(rank X, rank Y), U orthonormal bases of the columns of X and Y",
    "gulp": "√(tr (Σ_X^-λ Σ_X)² + tr (Σ_Y^-λ Σ_Y)² - 2 tr(Σ_X^-λ Σ_XY Σ_Y^-λ Σ_YX)), Σ^-λ = (Σ + λI)⁻¹",
    "encoding_ridge": "median_j 1 - Σ (y_j - ŷ_j)² / Σ (y_j - ȳ_j)² over held-out rows, ŷ_j = ȳ_j + (x - x̄)(XᵀX + λ_j I)⁻¹Xᵀy_j",
    "decoding_ridge": "encoding_ridge with X and Y exchanged",
    "encoding_pls": "the same with ŷ by partial least squares of all neurons together",
    "decoding_pls": "encoding_pls with X and Y exchanged",
    "dot": "1/n Σ_r x_r · y_r",
    "cosine": "1/n Σ_r cos(x_r, y_r)",
    "norm": "1/n Σ_r (1 - ‖x_r/‖x_r‖ - y_r/‖y_r‖‖)",
    "magnitude_difference": "|‖x̄‖ - ‖ȳ‖|",
    "concentricity_difference": "|mean_r cos(x_r, x̄) - mean_r cos(y_r, ȳ)|",
    "uniformity_difference": "|u(X) - u(Y)|, u = log mean_r≠s exp(-2 ‖u_r - u_s‖²) of rows at unit length",
    "eigenspectrum_decay_difference": "|α_X - α_Y|, α the slope of log λ_i over -log i, weighted by 1/i",
    "participation_ratio_difference": "|d_X - d_Y|, d = (Σ λ)² / Σ λ² of the covariance's eigenvalues",
    "mmd": "mean_r≠s k(x_r, x_s) + mean_r≠s k(y_r, y_s) - 2 mean k(x_r, y_s), k = exp(-d² / 2s²), s the median distance",
    "frechet_distance": "‖x̄ - ȳ‖² + tr Σ_X + tr Σ_Y - 2 tr (Σ_X^½ Σ_Y Σ_X^½)^½",
    "bures_covariance": "√(tr Σ_X + tr Σ_Y - 2 tr (Σ_X^½ Σ_Y Σ_X^½)^½)",
    "imd": "max_t exp(-2 (t + 1/t)) |h_X(t) - h_Y(t)|, h = 1/n Σ_i exp(-t λ_i) of the normalised Laplacian",
    "gromov_wasserstein": "√ min_π 1/n² Σ_rs (D_X(r, s) - D_Y(π(r), π(s)))² over permutations π, D distances over their mean",
    "geometry_score": "Σ_i (RLT_X(i) - RLT_Y(i))², RLT(i) the mean share of relaxations at which there are i loops",
    "rtd": "mean over directions of the total length of loops of [[0, D_X], [D_X, min(D_X, D_Y)]], D over their 0.9 quantile",
    "rsa": "corr(r_X, r_Y) of the similarities of the n(n-1)/2 pairs of rows; --rsm says which, --compare which correlation, "
    "--repeats-distance which of repeated measurements",
    "rsm_norm_difference": "‖D_X - D_Y‖_F of Euclidean distance matrices",
    "distance_correlation": "√(dCov²(X, Y) / √(dCov²(X, X) dCov²(Y, Y))), dCov² = 1/n² ⟨H D_X H, H D_Y H⟩",
    "jaccard_knn": "1/n Σ_r |N_X(r) ∩ N_Y(r)| / |N_X(r) ∪ N_Y(r)|",
    "mutual_knn": "1/n Σ_r |N_X(r) ∩ N_Y(r)| / k",
    "cycle_knn": "1/n Σ_r [r ∈ N_X(s) for some s ∈ N_Y(r)]",
    "lcs_knn": "1/(n k) Σ_r LCS(N_X(r), N_Y(r)) of neighbours in order",
    "edit_distance_knn": "1 - 1/(n k) Σ_r Levenshtein(N_X(r), N_Y(r)) of neighbours in order",
    "cknna": "Σ_r Σ_s∈N_X∩N_Y K̄_rs L̄_rs / √(the same of X with itself, and of Y), K̄ cosines less their row's mean",
    "second_order_cosine": "1/n Σ_r cos(c_X, c_Y), c the cosines of r with N_X(r) ∪ N_Y(r)",
    "rank_similarity": "1/n Σ_r Σ_s∈N_X∩N_Y 2 / ((1 + |i_s - j_s|)(i_s + j_s)) / Σ_m 1/m, i and j ranks, m to the number shared",
}


# what public code computes under the name, as it was run on the same rows; ReSi is github.com/mklabunde/resi
PEERS = {
    "cka": "ReSi, repsim's cka(kernel_type='linear'): the same; repsim's default is cka_rbf; netrep's LinearCKA is angular_cka",
    "cka_debiased": "pytorch-cka: the same, clamped to [0, 1]",
    "cka_rbf": "repsim's cka by default: the same",
    "angular_cka": "netrep's LinearCKA: the same",
    "cca": "repsim's cca(summary_type='pillai'): the same; its default is cca_yanai",
    "cca_yanai": "repsim's cca by default: the same",
    "pwcca": "repsim: the mean of pwcca of X with Y and of Y with X; ReSi fails with n < p, or X wider than Y",
    "procrustes": "ReSi: the same",
    "angular_shape": "ReSi, netrep's LinearMetric(alpha=1): the same",
    "procrustes_size_shape": "ReSi, netrep's LinearMetric(alpha=1, score_method='euclidean'): the same",
    "shape_alpha": "netrep's LinearMetric: the same for α of 0 and 1; in between it does not first scale sides to a mean σ² of 1",
    "angular_permutation": "netrep's PermutationMetric: the same",
    "permutation_procrustes": "ReSi: the same; netrep's PermutationMetric(score_method='euclidean') centres columns first",
    "aligned_cosine": "ReSi: the same",
    "linear_regression": "ReSi: the same",
    "hard_match": "ReSi: the same",
    "soft_match": "ReSi: the same",
    "eigenspace_overlap": "ReSi: the same with n > p; with n < p it divides by the width, so a side with itself is below 1",
    "gulp": "ReSi: the square, with λ = 0; fails with n < p",
    "rsa": "ReSi, rsatoolbox ('correlation', 'spearman'): the same; rsatoolbox's 'euclidean' is --rsm sqeuclidean",
    "rsm_norm_difference": "ReSi: the spectral norm of the difference, never larger",
    "distance_correlation": "ReSi: the same",
    "jaccard_knn": "ReSi: the same without duplicate rows",
    "rank_similarity": "ReSi: the same without duplicate rows",
    "second_order_cosine": "ReSi: of cosine distances 1 - cos in place of cosines",
    "dot": "repsim's dot_product: ‖XᵀY‖²_F",
    "magnitude_difference": "ReSi: the same",
    "concentricity_difference": "ReSi: the same",
    "uniformity_difference": "ReSi: of rows as they are, not at unit length, with each row's pair with itself",
}


def described(name: str) -> Iterator[tuple[str, str]]:
    """What there is to say of a measure: (heading, text), in order."""
    entry = MEASURES[name]
    yield name, entry.summary
    yield "formula", FORMULAS[name]
    yield "range", f"{entry.range}, {'higher' if entry.higher_is_more_similar else 'lower'} is more similar"
    yield "unchanged by", ", ".join(what for what in INVARIANCES if what in entry.invariances) or "nothing of the list"
    yield (
        "changed by",
        ", ".join(what for what in INVARIANCES if what not in entry.invariances) or "nothing of the list",
    )
    yield "undefined", entry.undefined
    yield from (("beware", text) for text in _warnings(name, entry))
    yield "cost", entry.cost + (f"; needs the extra {entry.extra}" if entry.extra else "")
    if name in PEERS:
        yield "peers", PEERS[name]
    yield "source", entry.source or "nobody's invention"


def _warnings(name: str, entry: Entry) -> Iterator[str]:
    """Where its scores say little or mislead."""
    if entry.trivial_at_full_rank:
        yield "with n - 1 independent directions on a side every score is perfect, whatever the rows: take n well above p + q"
    elif entry.biased_by_width:
        better = f"; {entry.debiased} has no such bias" if entry.debiased else ""
        yield f"with fewer rows than neurons (n < p) unrelated rows score as similar{better}"
    lacks = {what for what in INVARIANCES if what not in entry.invariances}
    told = (
        (
            entry.family == "alignment" and "rotation" in lacks,
            "shared directions make neurons alike in any basis: compare with the score after a random rotation of one side",
        ),
        (
            name.startswith("pwcca"),
            "with fewer than p + q rows some ρ are 1 and their weights open: other code may differ in the third digit",
        ),
        (
            entry.family == "neighbours",
            "unrelated rows share k / (n - 1) of their neighbours; equally near rows count in the order of rows",
        ),
        (
            entry.family == "encoding",
            "rows that know each other (trials, words of a text) leak between folds: --groups holds them out together",
        ),
        (
            bool(entry.growth),
            f"grows with the number of rows, about as n^{entry.growth or 0:g}: compare scores of as many rows",
        ),
        ("offset" in lacks, "a common mean changes it: see --standardize center"),
        (
            "scale" in lacks,
            "the scale of the values changes it: layers of unlike size are dissimilar whatever they hold",
        ),
        (
            entry.needs_equal_widths,
            "neurons are compared one by one: the sides must have one width and one order of neurons",
        ),
        (entry.empty_on_zero_rows, "a row of zeros leaves it undefined: see --zero-rows drop"),
        (entry.family == "statistics", "which row is which does not matter to it: shuffled rows score the same"),
        (entry.quadratic, "costs n²: --max-rows takes some rows, in blocks chosen at random"),
    )
    yield from (text for is_so, text in told if is_so)
