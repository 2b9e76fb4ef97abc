"""The interface keeps what its OpenAPI description promises, whatever is sent."""

from __future__ import annotations

import numpy as np
import pytest

from cvretrieval import SIFT, VLAD, ImageRetriever, serve
from cvretrieval.datasets import make_scenes

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")


# Not that any bytes of a `photo` are accepted, which a description cannot limit to photos.
CHECKS = [
    checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance,
    checks.response_headers_conformance, schemathesis.checks.not_a_server_error,
]  # fmt: skip


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    path = tmp_path_factory.mktemp("described") / "a.cvr"
    scenes = make_scenes(n_scenes=2, n_views=2, image_size=(120, 90), random_state=0)
    retriever = ImageRetriever(extractor=SIFT(max_features=50), encoder=VLAD(2, random_state=0), location=path)
    retriever.fit(list(np.asarray(scenes.images))).close()
    app = serve.make_app(path, n_jobs=1)
    return schemathesis.openapi.from_asgi("/api/openapi.json", app, headers={"Host": "localhost"})


@pytest.mark.parametrize(
    "name",
    ["GET /api/info", "GET /api/images", "GET /api/images/{id}", "GET /api/queries/{key}", "POST /api/search",
     "POST /api/matches"],
)  # fmt: skip
def test_answers_are_those_described(described, name):
    operations = {
        f"{each.method.upper()} {each.path}": each for each in (r.ok() for r in described.get_all_operations())
    }
    assert len(operations) == 6

    @hypothesis.settings(
        max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=operations[name].as_strategy())
    def check(case):
        case.call_and_validate(headers={"Host": "localhost"}, checks=CHECKS)

    check()
