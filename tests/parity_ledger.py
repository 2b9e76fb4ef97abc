"""The lines of docs/parity.md: definitions, programs, departures. What was seen is measured by the tests."""

from __future__ import annotations

from typing import NamedTuple

VLFEAT = "VLFeat 0.9.21"
CIRTORCH = "cnnimageretrieval-pytorch 1e66a41"
PML = "pytorch-metric-learning 2.9.0"


class Row(NamedTuple):
    """One line of the ledger: our name, theirs, what is compared, what differs otherwise, with the switch.

    The unit is "absolute"; "relative", to each of the program's numbers; or "largest", relative to the largest of them.
    """

    definition: str
    program: str
    compared: str
    divergence: str = ""
    unit: str = "absolute"


#: section → key → line
SECTIONS = {
    "Local features": {
        "sift": Row(
            "`SIFT(max_features=None)`", "the OpenCV installed here", "keypoints and descriptors",
            "Feature limits: ours keeps exactly the strongest, OpenCV's `nfeatures` all that tie with the last",
        ),
        "opencv-features": Row(
            '`OpenCVFeatures("AKAZE")`, BRISK, KAZE, ORB', "the OpenCV installed here", "keypoints and descriptors",
        ),
        "surf-places": Row("`SURF`", "OpenCV 3.4.2", "x and y in pixels of the strongest keypoints"),
        "surf-responses": Row(
            "`SURF`", "OpenCV 3.4.2", "determinants of the Hessian",
            "Descriptors are sampled in float, OpenCV's in a resampled 8-bit patch: their median cosine is above 0.99",
            unit="relative",
        ),
        "dense-sift": Row(
            "`DenseSIFT`", f"{VLFEAT}, `vl_dsift`", "descriptors of five variants",
            'Smoothing is the caller\'s in VLFeat, `sigma` here; VLFeat\'s "fast" is `window="flat"`',
        ),
        "dense-sift-contrast": Row("`DenseSIFT`", f"{VLFEAT}, `vl_dsift`", "norms (contrast)", unit="relative"),
        "hamming-matching": Row(
            '`match_descriptors(metric="hamming", ratio=1)`', "OpenCV's `BFMatcher(crossCheck=True)`", "pairs",
        ),
    },
    "Codebooks": {
        "lloyd": Row('`KMeansCodebook(algorithm="lloyd")`', f"{VLFEAT}, float64", "centres after 1 and 10 iterations"),
        "lloyd-sklearn": Row("`KMeansCodebook`", "scikit-learn's `KMeans`", "centres at the same stop"),
        "gmm": Row(
            "`GMMCodebook`", f"{VLFEAT}, float64", "weights, means, variances after 1, 5, 20 iterations",
            "VLFeat leaves posteriors below 0.01/K out of the M-step: `min_posterior=0.01`",
            unit="largest",
        ),
        "gmm-plain": Row(
            "`GMMCodebook(min_posterior=0)`", "textbook EM in float64", "the same", unit="largest",
        ),
        "gmm-sklearn": Row(
            "`GMMCodebook(min_posterior=0)`", "scikit-learn's `GaussianMixture`", "means after 12 iterations",
            "scikit-learn adds `reg_covar` to variances; here they have a floor, `min_covariance`",
        ),
    },
    "Encoders": {
        "vlad": Row(
            "`VLAD`, all of its norms", f"{VLFEAT}, float64, all 16 flags", "vectors",
            "The order is VLFeat's: mass, power, intra, L2. Papers that normalise within words only: `power=None`",
            unit="largest",
        ),
        "vlad-soft": Row('`VLAD(assignment="soft")`', f"{VLFEAT}, float64, given weights", "vectors", unit="largest"),
        "fisher": Row(
            "`FisherVector`", f"{VLFEAT}, float64", "plain, improved and fast vectors",
            "VLFeat's text leaves out the root and the priors; its code has them, and so has ours",
        ),
        "fisher-skimage": Row(
            '`FisherVector(layout="skimage")`', "scikit-image 0.26.0", "vectors with the weights' gradient",
            'Its gradient of the variances has the other sign, its norm runs over the weights\' too: `layout="vlfeat"`',
        ),
        "bow-tfidf": Row(
            "`TfIdf`", "ln(N/N_i) in float64, Sivic & Zisserman", "weights",
            "scikit-learn's `TfidfTransformer` adds 1 and smooths: no switch, use it instead. Absent words weigh 0",
        ),
        "bow-dbow2": Row('`TfIdf(norm="l1")`', "DBoW2's formula in float64", "scores"),
        "hellinger": Row("`PowerNormalizer`", "VLFeat's encodeImage, by its definition", "vectors"),
        "kernel-map": Row(
            "`HomogeneousKernelMap`", f"{VLFEAT}, with its interpolation", "24 maps",
            "VLFeat interpolates in a table, up to 4e-4 away; ours is exact",
        ),
        "chi2-kernel": Row("`chi2_kernel`", "scikit-learn's", "matrices"),
        "hamming-embedding": Row(
            "`HammingEmbedding`", "COLMAP 5d968cf, inverted file", "scores of the encoder in its index",
            "Thresholds of words with few descriptors: 0 there, the medians of all here",
        ),
        "asmk": Row(
            "`ASMK`, `ASMK(binary=True)`", "jenicek/asmk 2a96d9c", "scores of the encoder in its index",
            "Dimensions that are no multiple of 32 are padded there, and the padding counts: `VisualWords.n_bits`",
        ),
    },
    "Vectors": {
        "pca-whitening": Row(
            "`PCAWhitening`", CIRTORCH, "applied, up to signs",
            "cirtorch divides by norm + 1e-6, so its rows are that much shorter",
        ),
        "pca-whitening-dir": Row(
            "`PCAWhitening(power=0.25)`", "deep-image-retrieval 610247f", "applied, up to signs",
            "Variances there are divided by n − 1, here by n, which the L2 norm removes: `norm=None` shows it",
        ),
        "learned-whitening": Row("`LearnedWhitening`", CIRTORCH, "inner products of applied rows",
                                 "norm + 1e-6, as above"),
    },
    "Index": {
        "inverted-file-cosine": Row("`InvertedIndex()`", "tf-idf cosine in float64", "scores"),
        "inverted-file-hamming": Row(
            '`InvertedIndex("hamming_embedding")`', "COLMAP 5d968cf, inverted file", "scores for 1 and 2 words",
            "`idf_` is ln(N/n), COLMAP's its square, which here the score has",
        ),
        "inverted-file-asmk": Row(
            '`InvertedIndex("asmk")`', "jenicek/asmk 2a96d9c", "scores, 8 settings",
            "asmk's idf is squared already: give its square root. HOW leaves it out: `idf=None`",
        ),
        "faiss-flat": Row(
            '`FaissIndex(structure="flat")`', "exact search, `DenseIndex`, `BinaryIndex`", "keys, scores, ties",
            "faiss's own order of ties and its float32 distances are not kept: candidates are scored anew",
        ),
    },
    "Verification": {
        "affine": Row("least-squares affinity", "pycolmap 4.2.1", "matrix", unit="largest"),
        "similarity": Row("least-squares similarity", "Umeyama 1991 in float64", "matrix", unit="largest"),
        "vote-and-verify": Row(
            '`SpatialVerifier(hypotheses="vote_and_verify")`', "COLMAP 5d968cf, vote-and-verify",
            "numbers of inliers and of effective inliers",
            "COLMAP bounds the sum of both squared errors (100² px by default), does not wrap turns, refines once; "
            "here each is bounded (`tolerance`), turns wrap, refinement is local",
            unit="relative",
        ),
    },
    "Reranking": {
        "query-expansion": Row(
            "`AverageQueryExpansion`, `AlphaQueryExpansion`", "deep-image-retrieval 610247f", "scores",
            "CroW sums instead of averaging: the same after L2. PyRetri does not normalise again: no switch",
        ),
        "database-augmentation": Row("`DatabaseAugmentation`", "deep-image-retrieval 610247f", "vectors"),
        "k-reciprocal": Row(
            "`KReciprocal(joint_queries=True)`", "PyRetri 3faf94e, given Euclidean distances", "distances",
            "PyRetri itself hands it squared distances, which it squares again. Each query alone, the default, has "
            "no influence on the others: `joint_queries`",
        ),
        "diffusion": Row(
            "`Diffusion`", "the definition of Iscen et al. 2017 in float64", "20 steps of conjugate gradients",
            "Exact: `max_iter=1000, tol=1e-12`",
        ),
    },
    "Measures": {
        "oxford-ap": Row(
            'protocol "oxford5k"', "`compute_ap.cpp` in float64", "200 average precisions",
            'A trapezoid from (0, 1), not scikit-learn\'s average precision: `"finite_sum"`',
        ),
        "revisited": Row('protocols "roxford", "revisited-…"', "revisitop be39832", "mAP, mP@k, of each query"),
        "metric-learning": Row(
            '"precision@1", "r_precision", "map@r"', PML, "figures",
            "`RecallAtK` counts queries without a match as failures, as the literature does; that program omits them",
        ),
        "ukbench": Row('protocol "ukbench"', "the definition in float64", "N-S"),
    },
    "CNN poolings": {
        "mac": Row("`layers.MAC`", CIRTORCH, "vectors", unit="relative"),
        "spoc": Row(
            "`layers.SPoC`", "the paper in float64; PyRetri 3faf94e agrees", "vectors",
            'cirtorch\'s "SPoC" is the plain mean: `center_prior=False, reduction="mean"`', unit="relative",
        ),
        "spoc-mean": Row('`layers.SPoC(center_prior=False, reduction="mean")`', CIRTORCH, "vectors", unit="relative"),
        "gem": Row(
            "`layers.GeM`", CIRTORCH, "p = 1, 3, 4.5",
            "Its float32 mean loses up to 2e-5, and 1e-6 to the tenth. PyRetri does not clamp, NaN below 0: no switch",
            unit="relative",
        ),
        "crow": Row(
            "`layers.CroW`", "yahoo/crow 75c2277", "vectors before L2, weights",
            "The paper and PyRetri add 1e-6 to the share of non-zeros: no switch. uCroW: both weightings `False`",
            unit="largest",
        ),
        "rmac": Row(
            "`layers.RMAC`", "the regions of gtolias/rmac, in float64", "vectors in double precision",
            "PyRetri's regions lack their last row and column: no switch", unit="largest",
        ),
        "rmac-global": Row(
            "`layers.RMAC(include_global=True, norm=False)`", CIRTORCH, "L = 1, 2, 3",
            "cirtorch adds the whole map as one more region, and does not normalise the sum", unit="largest",
        ),
        "scales": Row("`deep.GeM(scales=)`", CIRTORCH, "vectors combined with msp = 1, 2.92, 3"),
        "pooling-vectors": Row("all of these layers", "`tests/data/pooling_vectors.json`", "in double precision"),
        "netvlad": Row(
            "`layers.NetVLAD`", "the paper's form in float64; Nanne/pytorch-NetVlad's forward pass agrees",
            "vectors in double precision",
            "Nanne's initialisation lacks the square of ‖c‖², and looks from centres to descriptors: no switch",
        ),
        "netvlad-authors": Row(
            '`layers.NetVLAD(form="authors")`', "Relja/netvlad's shipped form in float64", "the same",
            "The models that were published have this form; the default is the paper's",
        ),
    },
    "Training": {
        "batch-hard": Row(
            "`losses.BatchHardTriplet`", f"{PML} and leftthomas/CGD c9cd98f", "gradients",
            "The former's default reducer divides by the terms that are not zero, ours by all",
        ),
        "cross-entropy": Row("`losses.CrossEntropy`", "the definition, and torch's", "gradients"),
        "cgd-head": Row("`layers.CombinedDescriptors`", "CGD's definition in float64", "4 configurations"),
    },
}  # fmt: skip

LEDGER = {key: row for rows in SECTIONS.values() for key, row in rows.items()}
