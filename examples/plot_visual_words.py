"""What visual words look like: the patches nearest to each word, as a montage (needs the [plot] extra).

python examples/plot_visual_words.py words.png
"""

from __future__ import annotations

import sys

import matplotlib

from cvretrieval import SIFT, KMeansCodebook
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_words


def main(path: str = "words.png") -> None:
    matplotlib.use("Agg")
    scenes = make_scenes(n_scenes=6, n_views=4, random_state=0)
    features = SIFT(root=True, max_features=600, n_jobs=-1).fit_transform(scenes.images)
    codebook = KMeansCodebook(60, random_state=0).fit(features)
    figure = plot_words(scenes.images, features, codebook, n_patches=12)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    print(f"the 10 commonest of {codebook.n_words} words: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
