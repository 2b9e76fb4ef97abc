"""Nearest words, one distance at a time, in float64."""

import numpy as np


def nearest_words_naive(descriptors, centers):
    """Return the word of least Euclidean distance for each descriptor; ties to the lowest."""
    words = []
    for x in np.asarray(descriptors, dtype=np.float64):
        best, word = np.inf, 0
        for k, center in enumerate(np.asarray(centers, dtype=np.float64)):
            square = sum((a - b) ** 2 for a, b in zip(x, center, strict=True))
            if square < best:
                best, word = square, k
        words.append(word)
    return np.array(words, dtype=np.int64)


def best_words_naive(scores):
    """Return best score and word of each column of scores (n_words, n_descriptors); NaN never wins."""
    best, words = [], []
    for column in np.asarray(scores).T:
        top, word = -np.inf, 0
        for k, score in enumerate(column):
            if score > top:
                top, word = score, k
        best.append(top)
        words.append(word)
    return np.array(best), np.array(words, dtype=np.int64)


def sum_squares_naive(descriptors):
    """Add up the squares of all elements."""
    return sum(float(value) ** 2 for row in descriptors for value in row)


def several_words_naive(scores, n_nearest):
    """Return the n_nearest best scores and words of each column of scores, best first; ties to the lowest word."""
    scores = np.asarray(scores)
    best, words = [], []
    for column in scores.T:
        ranked = sorted(range(len(column)), key=lambda k: (-column[k], k))[:n_nearest]
        words.append(ranked)
        best.append([column[k] for k in ranked])
    shape = (scores.shape[1], n_nearest)
    return np.array(best, dtype=np.float64).reshape(shape).T, np.array(words, dtype=np.int64).reshape(shape).T


def nearest_several_naive(descriptors, centers, n_nearest):
    """Return the n_nearest words of each descriptor and their squared distances beyond that of the nearest."""
    words, gaps = [], []
    for x in np.asarray(descriptors, dtype=np.float64):
        squares = [float(((x - center) ** 2).sum()) for center in np.asarray(centers, dtype=np.float64)]
        ranked = sorted(range(len(squares)), key=lambda k: (squares[k], k))[:n_nearest]
        words.append(ranked)
        gaps.append([squares[k] - squares[ranked[0]] for k in ranked])
    return np.array(words, dtype=np.int64), np.array(gaps)
