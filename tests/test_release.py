"""What a release says of itself: versions, lower bounds, parts of CI."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

import cvretrieval

ROOT = Path(__file__).resolve().parents[1]
CI = ROOT / ".ci"


@pytest.fixture(scope="module")
def setup():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text, sign):
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    return dict(line.split(sign) for line in lines)


def release_of(version):
    """1.24.0 and 1.24 are the same release; wheels of OpenCV have a fourth number of their own."""
    numbers = [int(number) for number in version.split(".")[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


def test_the_oldest_environment_has_exactly_the_lower_bounds(setup):
    pinned = requirements((ROOT / "tests" / "environments" / "oldest.txt").read_text(encoding="utf-8"), "==")
    required = requirements(setup["options"]["install_requires"], ">=")
    assert len(required) == 11
    for name, bound in required.items():
        assert release_of(pinned.pop(name)) == release_of(bound), name
    tests = requirements(setup["options.extras_require"]["test"], ">=")
    for name, version in pinned.items():
        assert release_of(version) == release_of(tests[name]), name


def test_versions_agree(setup):
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {cvretrieval.__version__}\n" in citation
    assert f"\nlicense: {setup['metadata']['license_expression']}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.M)[0] == cvretrieval.__version__


def test_supported_pythons_agree(setup):
    named = re.findall(r"Python :: (3\.\d+)$", setup["metadata"]["classifiers"], re.M)
    assert f">={named[0]}" == setup["options"]["python_requires"]
    if CI.exists():
        assert set(re.findall(r"3\.\d+", (CI / "release").read_text(encoding="utf-8"))) == set(named)


@pytest.mark.skipif(not CI.exists(), reason="the sdist has no .ci")
def test_unknown_parts_of_ci_are_named():
    done = subprocess.run(["bash", CI / "run", "lint", "mian"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no part mian; parts: demo lint" in done.stderr
