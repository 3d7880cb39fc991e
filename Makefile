# Every target sets up what it needs. Variables, for example `make demo PYTHON=python3.12`:
#   PYTHON       the interpreter that .venv is made with (3.11, 3.12 or 3.13)
#   TORCH_INDEX  a package index with CPU-only wheels of torch, such as https://download.pytorch.org/whl/cpu;
#                without it, pip on Linux takes torch's CUDA build from PyPI, several gigabytes
PYTHON ?= python3
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
DEV_EXTRAS := dev,envpool,postgres,wandb
SOURCES := $(wildcard rlplatform tests jobs benchmarks examples)

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test lint type format unit integration bench constraints clean

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Put rlplatform into .venv.

install-dev: $(VENV)/.installed-dev ## The same, with what tests and every extra need.

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
		sys.exit(None if (3, 11) <= v < (3, 14) else f"rlplatform needs Python 3.11, 3.12 or 3.13, got {sys.version}. Set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# A stamp, so that installing again costs nothing until what is installed changes.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[$(DEV_EXTRAS)]'
	@touch $@ $(VENV)/.installed

demo: install ## Train four agents in parallel on Ray, compare them, publish the best.
	$(BIN)/rlplatform demo

test: lint type ## Lint, check types, run every test.
	$(MAKE) -j2 --output-sync=target unit integration

lint: install-dev ## Check style and formatting.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

type: install-dev ## Check types.
	$(BIN)/mypy

format: install-dev ## Format and repair what can be repaired.
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

unit: install-dev ## Only the tests without Ray.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/learning

integration: install-dev ## Only the tests with Ray and with several processes.
	$(BIN)/python -m pytest tests/integration tests/e2e

bench: install-dev ## Compare the environment backends and measure the overhead over bare SB3; minutes.
	$(BIN)/python -m benchmarks.env_backends
	$(BIN)/python -m benchmarks.overhead

constraints: install-dev ## Write constraints.txt from what is installed in .venv.
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > .constraints.tmp
	@mv .constraints.tmp constraints.txt

clean: ## Remove .venv and caches; results stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
