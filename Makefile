# Each target sets up what it needs: a virtual environment with the tested versions of constraints.txt.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
DATA ?=
SPHINXOPTS ?=
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed
AUTOTUNE_INSTALLED := $(VENV)/.autotune-installed
BENCH_INSTALLED := $(VENV)/.bench-installed
# one thread for each worker, or the workers fight over the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
BENCH_RESULTS ?= benchmarks/results/runs
BENCH = $(BIN)/python benchmarks/run.py --results $(BENCH_RESULTS)
SMALL := bmmc kidney generated-5 generated-5-shallow generated-15 generated-15-shallow

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-gpu lint types bench bench-quick speed reading differential notebooks docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create the virtual environment and install the package in it

demo: $(INSTALLED) ## run the model end to end into demo_output/ (DATA=file.h5mu for your own data)
	$(BIN)/python examples/demo.py --output demo_output $(if $(DATA),--data "$(DATA)")

test: lint types ## lint, types and the default tests (WORKERS=2 processes)
	$(PYTEST)

test-slow: $(AUTOTUNE_INSTALLED) ## the tests marked slow, tuning among them
	$(PYTEST) -m "slow and not gpu"

test-gpu: $(INSTALLED) ## the tests marked gpu, on a machine with a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy
	$(BIN)/mypy

speed: $(INSTALLED) ## time and memory of training beside MultiVI, rounds beside the committed ones
	$(BIN)/python benchmarks/speed.py

reading: $(INSTALLED) ## time and memory of reading 10,000 cells x 250,000 peaks, two minutes
	$(BIN)/python benchmarks/reading.py

bench: $(BENCH_INSTALLED) ## what the benchmark has no result of yet, hours (all anew: BENCH_RESULTS=mine/runs; data in $SCMVP_DATA)
	$(BENCH) --data cortex --protocols embedding held-out --seeds 0 1 2 3 4
	$(BENCH) --data cortex-4k --protocols thinning cross-modal modalities --seeds 0 1 2 3 4
	$(BENCH) --data cortex-4k --protocols clusters robustness
	$(BENCH) --data cortex-4k $(SMALL) --protocols cross-modal --methods "scmvp, a tenth held out" --seeds 0 1 2 3 4
	$(BENCH) --data cortex-4k-shares --protocols embedding --methods "RNA PCA" scmvp "scmvp, centred batches"
	$(BENCH) --data generated-12-batches --protocols embedding --seeds 0 1 2 3 4
	$(BENCH) --data generated-12-batches --protocols embedding --methods "scmvp, centred batches" --seeds 0 1 2 3 4
	$(BENCH) --data $(SMALL) --seeds 0 1 2 3 4
	$(BENCH) --data generated-20-deep --protocols embedding held-out --seeds 0 1 2 3 4

bench-quick: BENCH_RESULTS := benchmarks/quick/runs
bench-quick: $(BENCH_INSTALLED) ## a small part of it, all anew in benchmarks/quick
	$(BENCH) --data bmmc kidney --protocols embedding held-out \
	  --methods "RNA PCA" "ATAC LSI" "PCA + LSI" scmvp
	$(BENCH) --data bmmc --protocols cross-modal --methods mean "kNN 15" linear "scmvp, a tenth held out"
	$(BENCH) --data cortex --protocols held-out --methods "RNA PCA" "ATAC LSI" "PCA + LSI"

differential: $(INSTALLED) ## genes and peaks of the cortex types, ranks of known markers (same data)
	$(BIN)/python benchmarks/differential.py

notebooks: $(INSTALLED) ## execute the notebooks in place (NOTEBOOKS=notebooks/quickstart.ipynb for one)
	OMP_NUM_THREADS=$(WORKERS) $(BIN)/python notebooks/execute.py $(NOTEBOOKS)

docs: $(DOCS_INSTALLED) ## HTML documentation in docs/_build/html/; warnings are errors
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going $(SPHINXOPTS) docs docs/_build/html

clean: ## remove what the other targets made, except the virtual environment
	rm -rf build dist demo_output preprocess_output docs/_build docs/generated .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, as $(PYTHON). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments: its ensurepip or venv module is missing." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone: a failing download of the largest wheel shows at once
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $(shell grep '^torch==' constraints.txt)
	$(PIP) --editable '.[test]'
	@touch $@

$(DOCS_INSTALLED): pyproject.toml constraints.txt $(INSTALLED)
	$(PIP) --editable '.[docs]'
	@touch $@

$(AUTOTUNE_INSTALLED): pyproject.toml constraints.txt $(INSTALLED)
	$(PIP) --editable '.[autotune]'
	@touch $@

$(BENCH_INSTALLED): pyproject.toml constraints.txt $(INSTALLED)
	$(PIP) --editable '.[bench]'
	@touch $@
