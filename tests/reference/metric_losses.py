"""Losses of metric learning by their definitions, in float64: loops over anchors and pairs."""

from __future__ import annotations

import math

import numpy as np


def distance(a, b):
    return math.sqrt(((a - b) ** 2).sum())


def of_class(labels, i, same):
    return [j for j in range(len(labels)) if j != i and (labels[j] == labels[i]) == same]


def batch_hard(x, labels, margin):
    terms = []
    for i in range(len(x)):
        positives, negatives = of_class(labels, i, True), of_class(labels, i, False)
        if positives and negatives:
            farthest = max(distance(x[i], x[j]) for j in positives)
            nearest = min(distance(x[i], x[j]) for j in negatives)
            terms.append(max(0.0, margin + farthest - nearest))
    return np.mean(terms) if terms else 0.0


def semi_hard(x, labels, margin):
    terms = []
    for i in range(len(x)):
        to_negatives = [distance(x[i], x[j]) for j in of_class(labels, i, False)]
        for j in of_class(labels, i, True):
            if to_negatives:
                to_positive = distance(x[i], x[j])
                farther = [d for d in to_negatives if d > to_positive]
                chosen = min(farther) if farther else max(to_negatives)
                terms.append(max(0.0, margin + to_positive**2 - chosen**2))
    return np.mean(terms) if terms else 0.0


def contrastive(x, labels, margin):
    terms = {True: [], False: []}
    for i in range(len(x)):
        for j in range(i):
            d, same = distance(x[i], x[j]), bool(labels[i] == labels[j])
            terms[same].append(d**2 / 2 if same else max(0.0, margin - d) ** 2 / 2)
    return sum(np.mean(some) for some in terms.values() if some)


def multi_similarity(x, labels, alpha, beta, base, margin):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = unit @ unit.T
    terms = []
    for i in range(len(x)):
        positives, negatives = of_class(labels, i, True), of_class(labels, i, False)
        if not positives or not negatives:
            continue
        least, most = min(s[i, j] for j in positives), max(s[i, j] for j in negatives)
        pull = sum(math.exp(-alpha * (s[i, j] - base)) for j in positives if s[i, j] < most + margin)
        push = sum(math.exp(beta * (s[i, j] - base)) for j in negatives if s[i, j] > least - margin)
        terms.append(math.log(1 + pull) / alpha + math.log(1 + push) / beta)
    return np.mean(terms) if terms else 0.0


def smooth_ap(x, labels, temperature):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = unit @ unit.T
    terms = []
    for q in range(len(x)):
        positives = of_class(labels, q, True)
        if not positives:
            continue
        total = 0.0
        for i in positives:
            others = [j for j in range(len(x)) if j not in (q, i)]
            step = {j: 1 / (1 + math.exp(-(s[q, j] - s[q, i]) / temperature)) for j in others}
            total += (1 + sum(step[j] for j in others if j in positives)) / (1 + sum(step.values()))
        terms.append(1 - total / len(positives))
    return np.mean(terms) if terms else 0.0


def weak_ranking(query, positives, negatives, margin):
    nearest = min(distance(query, p) ** 2 for p in positives)
    return sum(max(0.0, nearest + margin - distance(query, n) ** 2) for n in negatives)


def cross_entropy(scores, labels, temperature, smoothing):
    n_classes = scores.shape[1]
    total = 0.0
    for row, label in zip(scores / temperature, labels, strict=True):
        logs = row - row.max() - math.log(np.exp(row - row.max()).sum())
        target = np.full(n_classes, smoothing / n_classes)
        target[label] += 1 - smoothing
        total -= (target * logs).sum()
    return total / len(scores)
