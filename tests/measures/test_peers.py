"""What collections of measures have, we have: their names, and ours."""

import pytest

from contrasim_cli.measures import MEASURES

# the 25 classes of ReSi (Klabunde et al. 2024), and the measure that computes what each is named after
RESI = {
    "PWCCA": "pwcca",
    "SVCCA": "svcca",
    "HardCorrelationMatch": "hard_match",
    "SoftCorrelationMatch": "soft_match",
    "DistanceCorrelation": "distance_correlation",
    "EigenspaceOverlapScore": "eigenspace_overlap",
    "GeometryScore": "geometry_score",
    "IMDScore": "imd",
    "Gulp": "gulp",
    "LinearRegression": "linear_regression",
    "JaccardSimilarity": "jaccard_knn",
    "RankSimilarity": "rank_similarity",
    "SecondOrderCosineSimilarity": "second_order_cosine",
    "AlignedCosineSimilarity": "aligned_cosine",
    "OrthogonalAngularShapeMetricCentered": "angular_shape",
    "OrthogonalProcrustesCenteredAndNormalized": "procrustes",
    "PermutationProcrustes": "permutation_procrustes",
    "ProcrustesSizeAndShapeDistance": "procrustes_size_shape",
    "RSA": "rsa",
    "RSMNormDifference": "rsm_norm_difference",
    "ConcentricityDifference": "concentricity_difference",
    "MagnitudeDifference": "magnitude_difference",
    "UniformityDifference": "uniformity_difference",
    "CKA": "cka",
    "RTD": "rtd",
}
# the metrics of platonic-rep (Huh et al. 2024)
PLATONIC = {
    "cycle_knn": "cycle_knn",
    "mutual_knn": "mutual_knn",
    "lcs_knn": "lcs_knn",
    "cka": "cka",
    "unbiased_cka": "cka_debiased",
    "cknna": "cknna",
    "svcca": "svcca",
    "edit_distance_knn": "edit_distance_knn",
}


def test_resi_has_25() -> None:
    assert len(set(RESI.values())) == len(RESI) == 25


@pytest.mark.parametrize("theirs", [*RESI, *PLATONIC])
def test_every_measure_of_theirs_has_an_entry_with_a_source(theirs: str) -> None:
    entry = MEASURES[(RESI | PLATONIC)[theirs]]
    assert entry.source
