"""VLFeat's mixtures of Gaussians through ctypes, for the benchmarks that compare with them."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

import numpy as np


class VLFeatGMM:
    """EM of VLFeat's C library (Debian: ``libvlfeat1``) from a given start; OSError where it is not installed."""

    FLOAT = 1
    CUSTOM_START = 2

    def __init__(self) -> None:
        size, pointer, real = ctypes.c_ulonglong, ctypes.c_void_p, ctypes.c_double
        library = ctypes.CDLL(ctypes.util.find_library("vl") or "libvl.so.1")
        library.vl_set_num_threads.argtypes = [size]
        library.vl_gmm_new.argtypes, library.vl_gmm_new.restype = [ctypes.c_uint, size, size], pointer
        library.vl_gmm_delete.argtypes = [pointer]
        library.vl_gmm_set_initialization.argtypes = [pointer, ctypes.c_int]
        library.vl_gmm_set_max_num_iterations.argtypes = [pointer, size]
        library.vl_gmm_set_num_repetitions.argtypes = [pointer, size]
        library.vl_gmm_set_covariance_lower_bound.argtypes = [pointer, real]
        for name in ("means", "covariances", "priors"):
            getattr(library, f"vl_gmm_set_{name}").argtypes = [pointer, pointer]
            getattr(library, f"vl_gmm_get_{name}").argtypes = [pointer]
            getattr(library, f"vl_gmm_get_{name}").restype = pointer
        library.vl_gmm_cluster.argtypes, library.vl_gmm_cluster.restype = [pointer, pointer, size], real
        library.vl_set_num_threads(1)
        self._library = library

    def __call__(
        self, rows: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, max_iter: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return weights, means and covariances after `max_iter` iterations, in float32."""
        library, shape = self._library, means.shape
        start = [np.ascontiguousarray(array, dtype=np.float32) for array in (weights, means, covariances)]
        gmm = library.vl_gmm_new(self.FLOAT, shape[1], shape[0])
        try:
            library.vl_gmm_set_initialization(gmm, self.CUSTOM_START)
            library.vl_gmm_set_max_num_iterations(gmm, max_iter)
            library.vl_gmm_set_num_repetitions(gmm, 1)
            library.vl_gmm_set_covariance_lower_bound(gmm, 1e-6)
            for name, array in zip(("priors", "means", "covariances"), start, strict=True):
                getattr(library, f"vl_gmm_set_{name}")(gmm, array.ctypes.data)
            library.vl_gmm_cluster(gmm, rows.ctypes.data, len(rows))
            learned = []
            for name, array in zip(("priors", "means", "covariances"), start, strict=True):
                address = getattr(library, f"vl_gmm_get_{name}")(gmm)
                values = (ctypes.c_float * array.size).from_address(address)
                learned.append(np.array(values, dtype=np.float32).reshape(array.shape))
        finally:
            library.vl_gmm_delete(gmm)
        sys.stdout.flush()
        return learned[0], learned[1], learned[2]
