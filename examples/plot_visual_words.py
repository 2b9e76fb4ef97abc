"""
Visual words, seen
==================

What a word of a codebook stands for: the patches whose descriptors are nearest to it.
"""

# %%
# k-means on SIFT descriptors of all photos gives the words. A word is a point among descriptors, 128 numbers; the
# patches that it is nearest to say what it means.

import matplotlib.pyplot as plt
import numpy as np

from cvretrieval import SIFT, BagOfWords, KMeansCodebook, TfIdf
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_words

scenes = make_scenes(n_scenes=6, n_views=4, image_size=(400, 300), random_state=0)
features = SIFT(root=True, max_features=500).fit_transform(scenes.images)
codebook = KMeansCodebook(60, random_state=0).fit(features)
print(f"{features.n_descriptors:,} descriptors of {len(features)} photos, {codebook.n_words} words")

# %%
# One word a row, the nearest patch first, each from another photo, turned so that the keypoint's angle points to the
# right. The commonest words are edges, corners and blobs: they say little about what is shown.

figure = plot_words(scenes.images, features, codebook, n_patches=12)

# %%
# Words that stand in few photos say more. Those that appear in the fewest photos, among words of at least 40 patches:

encoder = BagOfWords(codebook=codebook, norm=None).fit(features)
counts = encoder.transform(features)
n_photos = (counts > 0).sum(axis=0)
often = np.flatnonzero(counts.sum(axis=0) >= 40)
rare = often[np.argsort(n_photos[often], kind="stable")[:5]]
print("word: photos of 24 that have it:", {int(word): int(n_photos[word]) for word in rare})
figure = plot_words(scenes.images, features, codebook, words=rare, n_patches=12)

# %%
# A photo is then a histogram of words. tf-idf makes words that stand in few photos count more; after it, two photos of
# one object are more alike than two of different objects, on average. Shown are two photos of one and one of another.

vectors = TfIdf().fit_transform(counts)
cosines = vectors @ vectors.T
same = scenes.labels[:, None] == scenes.labels
between = ~same
np.fill_diagonal(same, False)
print(f"mean cosine: same object {cosines[same].mean():.2f}, different objects {cosines[between].mean():.2f}")

figure, axes = plt.subplots(3, 1, figsize=(9, 5), sharex=True, sharey=True, layout="constrained")
for ax, image in zip(axes, (4, 5, 8), strict=True):
    ax.bar(np.arange(codebook.n_words), vectors[image])
    ax.set_ylabel(f"object {scenes.labels[image]}\nphoto {scenes.views[image]}")
axes[-1].set_xlabel("word")
plt.show()
