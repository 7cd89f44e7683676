"""What measures are called in titles of figures and pages and in captions; everything else has the names of the registry."""

TITLES = {
    "cka": "CKA",
    "rv": "RV coefficient",
    "cka_debiased": "CKA (debiased)",
    "cka_minibatch": "CKA (minibatch)",
    "cka_rbf": "CKA (RBF)",
    "angular_cka": "Angular CKA",
    "cca": "CCA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "pwcca_google": "PWCCA (Google)",
    "cca_yanai": "CCA (Yanai)",
    "procrustes": "Procrustes",
    "procrustes_size_shape": "Procrustes size and shape",
    "permutation_procrustes": "Permutation Procrustes",
    "nbs": "NBS",
    "bures_distance": "Bures distance",
    "frechet_distance": "Fréchet distance",
    "gromov_wasserstein": "Gromov-Wasserstein",
    "distance_correlation": "Distance correlation",
    "linear_regression": "Linear regression",
    "gulp": "GULP",
    "mmd": "MMD",
    "imd": "IMD",
    "rtd": "RTD",
    "rsa": "RSA",
    "cknna": "CKNNA",
    "jaccard_knn": "Jaccard k-NN",
    "mutual_knn": "Mutual k-NN",
}


def titled(measure: str) -> str:
    """The name of a measure in the literature; its own where the table has none, as for encoders."""
    return TITLES.get(measure, measure)
