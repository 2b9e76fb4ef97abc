# Two commands do all the set-up: `make demo` and `make test`. Both need nothing but Python 3.10 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Each worker begins with one half of the tests: what a file sets up and compiles is done once.
PYTEST_ARGS ?= -n 2 --dist worksteal

.PHONY: parity release-check demo test lint test-opencv4 test-milvus test-deep docs clean help

help:
	@echo "make demo          install into $(VENV), index a small set of photographed scenes, search it, write a report"
	@echo "make test          install into $(VENV) with the test extra and run all tests"
	@echo "make lint          ruff and mypy"
	@echo "make test-opencv4  the tests that touch OpenCV, with OpenCV 4 in .venv-opencv4"
	@echo "make test-milvus   the tests of MilvusIndex on Milvus Lite, in .venv-opencv4"
	@echo "make test-deep     the tests of cvretrieval.deep, with torch and torchvision in .venv-deep"
	@echo "make docs          the documentation as HTML in build/docs, with all examples run, in .venv-deep"
	@echo "make parity        docs/parity.md, measured anew by the tests"
	@echo "make release-check builds sdist and wheel, tries the wheel in the oldest supported versions"
	@echo "make matrix-ROW    the same and the contract suite in a row of the matrix: oldest, middle, newest"
	@echo "make clean         remove what the others made"

demo: $(VENV)/.installed
	$(BIN)/python examples/make_demo_photos.py demo
	$(BIN)/cvretrieval index demo/photos --out demo/photos.cvr
	$(BIN)/cvretrieval search demo/photos.cvr demo/query.jpg -k 5 --report demo/report.html

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What calls OpenCV, and what is compared with it; everything else is the same with any of its versions.
test-opencv4: .venv-opencv4/.installed-test
	.venv-opencv4/bin/python -m pytest $(PYTEST_ARGS) tests/test_extraction.py tests/test_opencv_features.py
	.venv-opencv4/bin/python -m pytest $(PYTEST_ARGS) tests/test_verification.py tests/test_retriever.py -k 'graf-vote or oxford or finds_the_scene or save_load'

# Apart from $(VENV), because its packages bring pandas, which scikit-learn then loads wherever it is imported.
test-milvus: .venv-opencv4/.installed-test
	.venv-opencv4/bin/python -m pytest $(PYTEST_ARGS) tests/test_index_milvus.py tests/test_retriever_milvus.py tests/test_cli_milvus.py tests/contract/test_index.py -k milvus

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "cvretrieval needs Python 3.10 or newer, this is %s; try: make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml $(BIN)/python $(shell find cvretrieval -name '*.py' -o -path '*assets*' -type f)
	$(BIN)/python -m pip install --quiet .
	touch $@

# numba's compiled kernels stay behind when pip removes an ordinary installation, and what is left of the folder would
# be found before the editable one.
define clear_installed
	$(BIN)/python -m pip uninstall --quiet --yes cvretrieval
	rm -rf $(VENV)/lib/python*/site-packages/cvretrieval
endef

$(VENV)/.installed-test: setup.cfg pyproject.toml $(BIN)/python
	$(clear_installed)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml $(BIN)/python
	$(clear_installed)
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	touch $@

# What other packages bring comes first, apart from this one: it can be done while something else is.
.venv-opencv4/.installed-peers:
	$(PYTHON) -m venv .venv-opencv4
	.venv-opencv4/bin/python -m pip install --quiet 'opencv-contrib-python<5' 'pymilvus>=3.0' 'milvus-lite>=3.2.2' numba scipy scikit-learn 'matplotlib>=3.7' 'pytest>=8.0' 'pytest-xdist>=3.5' 'hypothesis>=6.80'
	touch $@

.venv-opencv4/.installed-test: setup.cfg pyproject.toml .venv-opencv4/.installed-peers
	.venv-opencv4/bin/python -m pip install --quiet --editable '.[plot,milvus]' 'opencv-contrib-python<5'
	touch $@

test-deep: .venv-deep/.installed-test
	.venv-deep/bin/python -m pytest $(PYTEST_ARGS) tests/deep tests/test_docstrings.py -k deep

# One release of each that belong together: a newer torch alone would not load beside an older torchvision. Apart from
# $(VENV), because torch for CUDA, which registries give by default, takes gigabytes and minutes.
.venv-deep/.installed-torch:
	$(PYTHON) -m venv .venv-deep
	.venv-deep/bin/python -m pip install --quiet 'torch==2.13.0' 'torchvision==0.28.0' 'timm>=1.0' 'onnx>=1.17' 'onnxscript>=0.5' 'onnxruntime>=1.20' 'pytorch-metric-learning>=2.5' 'httpx>=0.27' numba scipy scikit-learn 'opencv-contrib-python>=4.8' 'pytest>=8.0' 'pytest-xdist>=3.5'
	touch $@

.venv-deep/.installed-test: setup.cfg pyproject.toml .venv-deep/.installed-torch
	.venv-deep/bin/python -m pip install --quiet --editable '.[timm,onnx,serve]'
	touch $@

# docs/parity.md from what the tests that compare with other programs see; with CVRETRIEVAL_DATA, also on photos.
parity: $(VENV)/.installed-test .venv-deep/.installed-test
	rm -rf build/parity && mkdir -p build/parity
	CVRETRIEVAL_PARITY=$(CURDIR)/build/parity $(BIN)/python -m pytest -q $(PYTEST_ARGS) $$(grep -l 'tests.parity import' tests/test_*.py | grep -v test_parity)
	CVRETRIEVAL_PARITY=$(CURDIR)/build/parity .venv-deep/bin/python -m pytest -q $(PYTEST_ARGS) $$(grep -l 'tests.parity import' tests/deep/test_*.py)
	$(BIN)/python -m tests.parity_page build/parity

# What would be published, tried in empty environments; see .ci/release. In the oldest versions that are supported:
release-check: $(VENV)/.installed-dev
	.ci/release build
	.ci/release try oldest --quick

# A row of the matrix, `make matrix-newest`: one file in tests/environments each.
matrix-%: $(VENV)/.installed-dev
	.ci/release build
	.ci/release try $*

docs: .venv-deep/.installed-test .venv-deep/.installed-docs
	.venv-deep/bin/python -m sphinx -q -W --keep-going -j auto $(SPHINX_ARGS) docs build/docs
	@echo "the documentation: build/docs/index.html"

# The [docs] extra alone, so that it can be installed while something else is.
.venv-deep/.installed-docs: setup.cfg .venv-deep/.installed-torch
	sed -n '/^docs =/,/^[a-z]* =/s/^    //p' setup.cfg > .venv-deep/docs.txt
	.venv-deep/bin/python -m pip install --quiet --requirement .venv-deep/docs.txt
	touch $@

clean:
	rm -rf docs/auto_examples docs/generated docs/api/generated docs/api/backreferences
	rm -rf .venv .venv-opencv4 .venv-deep .venv-oldest .venv-middle .venv-newest demo build *.egg-info
