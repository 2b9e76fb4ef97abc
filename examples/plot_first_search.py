"""
First search
============

Index a folder of photos, ask with another photo, and see why the first result is the first.
"""

# %%
# The photos are made up: posters, packages, books and signs, painted and then photographed from several sides. Of each
# object the folder ``database`` has a picture of its front and three photos; the fourth photo is a query.

import tempfile

import matplotlib.pyplot as plt

from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier
from cvretrieval.datasets import make_scenes
from cvretrieval.plotting import plot_matches

folder = tempfile.TemporaryDirectory()
root = make_scenes(n_scenes=8, n_views=4, image_size=(320, 240), random_state=0).write(folder.name)

# %%
# An :class:`~cvretrieval.ImageRetriever` is the whole line: SIFT features of each photo, one VLAD vector from them to
# search with, and a verifier that looks at the geometry of the best candidates.

retriever = ImageRetriever(
    extractor=SIFT(root=True, max_features=500),
    encoder=VLAD(n_words=16, residual_norm=True, local_coordinates=True, power=0.2, random_state=0),
    verifier=SpatialVerifier(),
    random_state=0,
).fit(root / "database")
print(f"{len(retriever)} photos indexed")

# %%
# Ask with two photos at once. Verified results are framed in green, with the outline of the query in them; they come
# before all others, the one with the most inliers first. What follows was found by its vector alone.

queries = [root / "queries" / "scene_001_view_3.jpg", root / "queries" / "scene_005_view_3.jpg"]
result = retriever.search(queries, k=5)
figure = result.show(n_hits=5)

# %%
# Every result says why it is there: the matched points that one transform explains.

for hit in result[0].hits:
    print(f"{hit.rank}. {hit.id:32} score {hit.score:.3f}, {hit.n_inliers:3d} inliers, verified: {hit.verified}")

best = result[0].hits[0]
plot_matches(queries[0], best.path, best.matches, transform=best.transform, title=best.id)
plt.show()

# %%
# The index can grow, shrink, and be saved: :meth:`~cvretrieval.ImageRetriever.add`,
# :meth:`~cvretrieval.ImageRetriever.remove`, :meth:`~cvretrieval.ImageRetriever.save`.

retriever.remove([best.id])
again = retriever.search(queries[:1], k=1)[0].hits[0]
print(f"without it: {again.id}, {again.n_inliers} inliers")
folder.cleanup()
