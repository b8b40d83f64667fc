# Every verb makes .venv first if it is missing or older than pyproject.toml. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
DEMO_ARGS ?= train preset=pick_place_tray_demo
BENCH_ARGS ?=
WORKERS ?= 2

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types bench docs

help:
	@echo "make demo    collect data, pre-train, fine-tune, evaluate, film: the main job, small"
	@echo "make test    the tests that need neither a GPU nor minutes, two files at a time (WORKERS=4: four)"
	@echo "make lint    ruff's rules and layout"
	@echo "make types   mypy --strict"
	@echo "make bench   every benchmark (BENCH_ARGS=--quick for short runs)"
	@echo "make docs    the documentation, into build/docs"
	@echo "make install only .venv, which the verbs above make by themselves"

install: $(READY)

demo: $(READY)
	$(BIN)/caliper $(DEMO_ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	@set -e; for script in benchmarks/[!_]*.py; do echo "$$script"; $(BIN)/python "$$script" $(BENCH_ARGS); done

docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs build/docs
	@echo "build/docs/index.html"

# robosuite comes without its declared dependencies: some need a compiler or OpenGL, and Caliper uses none of them.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Caliper needs Python 3.11 or newer, which '$(PYTHON)' is not: install it, or name one with PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: run 'apt-get install python3-venv' (Debian, Ubuntu) and try again." >&2; exit 1; }
	@echo "Installing into .venv: about 7 GB, some minutes, once."
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt --upgrade pip
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install -c constraints.txt --no-deps robosuite
	@touch $@
