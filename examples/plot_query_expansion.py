"""
Query expansion
===============

Ask again with the mean of the query and its first results: what it finds, and when it drifts.
"""

# %%
# Small, difficult photos of ten made-up objects, six of each: the first is a query, the other five are to be found.

import matplotlib.pyplot as plt
import numpy as np

from cvretrieval import SIFT, VLAD, AlphaQueryExpansion, AverageQueryExpansion
from cvretrieval.datasets import make_scenes

scenes = make_scenes(n_scenes=10, n_views=6, image_size=(200, 150), difficulty=0.7, random_state=0)
features = SIFT(root=True, max_features=100).fit_transform(scenes.images)
is_query = scenes.views == 0
encoder = VLAD(n_words=16, random_state=0).fit(features[~is_query])
database, queries = encoder.transform(features[~is_query]), encoder.transform(features[is_query])
found, asked = scenes.labels[~is_query], scenes.labels[is_query]

# %%
# A reranker is fitted to the vectors of the database; ``rerank`` gives the ranked lists of queries, ``score`` their
# mean average precision. The mean of the query and its first n results points to what they have in common. Two gain
# most here; wrong results, of which there are more the longer the list, pull it away again. Weights that fall with the
# similarity (α) gain a little less and keep more of it.

numbers = range(11)
average = [AverageQueryExpansion(n).fit(database, found).score(queries, asked) for n in numbers]
weighted = [AlphaQueryExpansion(n, alpha=1).fit(database, found).score(queries, asked) for n in numbers]
print("average: ", " ".join(f"{score:.3f}" for score in average))
print("weighted:", " ".join(f"{score:.3f}" for score in weighted))

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(numbers, average, marker="o", label="AverageQueryExpansion")
ax.plot(numbers, weighted, marker="o", label="AlphaQueryExpansion, α = 1")
ax.set(xlabel="results that the query is expanded by", ylabel="mean average precision")
ax.legend()
ax.grid(alpha=0.3)

# %%
# The query that gains most from two neighbours, its first seven results before (above) and after. Right ones are framed
# in green.

before, _ = AverageQueryExpansion(0).fit(database).rerank(queries, k=7)
after, _ = AverageQueryExpansion(2).fit(database).rerank(queries, k=7)
gain = (found[after] == asked[:, None]).sum(axis=1) - (found[before] == asked[:, None]).sum(axis=1)
query = int(np.argmax(gain))
print(f"query {query}: {gain[query]} more right ones among the first seven")
images = [image for image, is_asked in zip(scenes.images, is_query, strict=True) if not is_asked]
figure, axes = plt.subplots(2, 8, figsize=(12, 3), layout="constrained")
for row, ranking in zip(axes, (before[query], after[query]), strict=True):
    row[0].imshow(scenes.images[np.flatnonzero(is_query)[query]])
    row[0].set_title("query", fontsize=9)
    for ax, index in zip(row[1:], ranking, strict=True):
        ax.imshow(images[index])
        for spine in ax.spines.values():
            right = found[index] == asked[query]
            spine.set(color="#1d9e5b" if right else "#8a8d93", linewidth=4 if right else 1)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
plt.show()
