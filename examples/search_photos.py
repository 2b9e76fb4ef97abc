"""Index a folder of photos, search with one of them, see why: the Python interface in a dozen lines.

python examples/search_photos.py PHOTOS/ query.jpg
"""

from __future__ import annotations

import sys

from cvretrieval import SIFT, VLAD, ImageRetriever, SpatialVerifier


def main(folder: str, query: str) -> None:
    retriever = ImageRetriever(
        extractor=SIFT(root=True),
        encoder=VLAD(n_words=64, residual_norm=True, local_coordinates=True, power=0.2, random_state=0),
        verifier=SpatialVerifier(),
        on_error="skip",
        n_jobs=-1,
        verbose=True,
    ).fit(folder)
    result = retriever.search([query], k=10)
    for hit in result[0].hits:
        print(f"{hit.rank:3d}  {hit.score:.3f}  {hit.n_inliers:4d} inliers  {hit.id}")
    print("report:", result.to_html("report.html"))


if __name__ == "__main__":
    main(*sys.argv[1:3])
