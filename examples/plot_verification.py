"""
Geometric verification, step by step
====================================

From descriptors that look alike to points that agree on one transform.
"""

# %%
# Two photos of one made-up object, and one of another object.

import matplotlib.pyplot as plt
import numpy as np

from cvretrieval import SIFT, SpatialVerifier
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_matches
from cvretrieval.verification import match_descriptors

scenes = make_scenes(n_scenes=2, n_views=2, image_size=(400, 300), random_state=3)
a, b, other = scenes.images[0], scenes.images[1], scenes.images[2]
features_a, features_b, features_other = SIFT(root=True, max_features=500).transform([a, b, other])

# %%
# **1. Match.** Of each descriptor the nearest one in the other photo, if the second nearest is clearly farther away
# (the ratio test) and if both choose each other. One-to-one matters: many points that match one point would agree on
# any transform that collapses to it. Lines of wrong matches go anywhere.


def coordinates(one, two, rows):
    return np.hstack([one.keypoints[rows[:, 0], :2], two.keypoints[rows[:, 1], :2]])


for ratio in (1.0, 0.9, 0.8):
    rows = match_descriptors(features_a.descriptors, features_b.descriptors, ratio=ratio)
    print(f"ratio {ratio}: {len(rows)} matches")
rows = match_descriptors(features_a.descriptors, features_b.descriptors, ratio=1.0)
ax = plot_matches(
    a, b, coordinates(features_a, features_b, rows), max_lines=None, title=f"{len(rows)} matches, no ratio test"
)

# %%
# **2. One match, one hypothesis.** Two keypoints have a place, a scale and an angle each: a single match implies a
# turn, a change of size and a shift. Right matches imply nearly the same; the rest is spread.

turn = np.degrees(features_b.keypoints[rows[:, 1], 3] - features_a.keypoints[rows[:, 0], 3])
growth = np.log2(features_b.keypoints[rows[:, 1], 2] / features_a.keypoints[rows[:, 0], 2])
result = SpatialVerifier().verify(features_a, features_b)
agreed = {tuple(row) for row in result.matches[result.inliers].tolist()}
right = np.array([tuple(row) in agreed for row in rows.tolist()])
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for mask, color, label in ((~right, "#d1495b", "other matches"), (right, "#1d9e5b", "inliers in the end")):
    ax.scatter((turn[mask] + 180) % 360 - 180, growth[mask], s=14, color=color, label=label)
ax.set(xlabel="turn, degrees", ylabel="change of size, powers of two")
ax.legend()
ax.grid(alpha=0.3)

# %%
# **3. Count and refine.** Each hypothesis is scored by the matches it explains; the best are refined to a homography.
# Inliers are green; the frame of the first photo is drawn where the homography puts it in the second.

matched = coordinates(features_a, features_b, result.matches)
title = f"{result.n_inliers} inliers of {len(result.matches)} matches: {'accepted' if result else result.reason}"
ax = plot_matches(a, b, matched, inliers=result.inliers, transform=result.transform, max_lines=None, title=title)

# %%
# **4. The other object.** Some descriptors look alike there, too, but they agree on nothing.

result = SpatialVerifier().verify(features_a, features_other)
matched = coordinates(features_a, features_other, result.matches)
title = f"{result.n_inliers} inliers of {len(result.matches)} matches"
plot_matches(a, other, matched, inliers=result.inliers, max_lines=None, title=title)
print(f"rejected: {result.reason}")
plt.show()
