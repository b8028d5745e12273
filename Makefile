# Everything runs in .venv, made on first use from constraints.txt; tests and linters add to it.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml constraints.txt
	@echo "1 of 3: make an environment in .venv"
	@$(PYTHON) -m venv .venv
	@echo "2 of 3: install torch, the largest package"
	@$(BIN)/pip install --quiet -c constraints.txt torch setuptools
	@echo "3 of 3: install Ray and the other packages, and kosmos2"
	@$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[heif]'
	touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[test,dev]'
	touch $@

install: .venv/installed  ## make .venv, with kosmos2 in it

demo: .venv/installed  ## annotate drawn scenes with the embedded model; prints captions and boxes
	$(BIN)/kosmos2 demo

chromium:
	@command -v chromium chromium-browser google-chrome $$CHROMIUM >/dev/null || echo "no Chromium:" \
		"tests of the pages are skipped; get one by 'apt-get install chromium', or set CHROMIUM"

azurite:
	@command -v azurite-blob >/dev/null || echo "no Azurite: tests of Azure are skipped; get it by" \
		"'npm install --global azurite'"

# For two cores. A third process saves half a minute, and takes a minute of CPU to import everything.
PROCESSES ?= 2
test: .venv/tested chromium azurite  ## the tests, as CI runs them
	$(BIN)/pytest -n $(PROCESSES)

test-all: .venv/tested chromium azurite  ## the tests that take minutes, too
	$(BIN)/pytest -m ''

test-compat: .venv/tested  ## a job on each version of Ray in pyproject.toml, each downloaded
	$(BIN)/pytest -m '' tests/e2e/test_ray_versions.py

SCHEDULES ?= 30
SEED ?= 1
STORE ?= s3
chaos: .venv/tested  ## kill drivers, actors, readers, nodes and requests at random, and check
	$(BIN)/python -m tests.chaos --schedules $(SCHEDULES) --seed $(SEED) --store $(STORE)

lint: .venv/tested  ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py

docs: .venv/tested  ## write docs/cli.md from the program
	$(BIN)/python -m tests.support.cli_page

bench: .venv/installed  ## time the image path against the Hugging Face processor
	$(BIN)/kosmos2 bench images

.PHONY: help install demo chromium azurite test test-all test-compat chaos lint docs bench
.DEFAULT_GOAL := help
