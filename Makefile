# `make demo` and `make test` each work from a bare checkout: they need python3 (3.11 or newer) with venv, and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo test test-slow check fmt clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(INSTALLED)  ## make .venv and install the project into it, once

$(INSTALLED): pyproject.toml
	@echo "Installing into .venv; the first time this takes a few minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev,demo]'
	@touch $@

demo: $(INSTALLED)  ## compress some photographs, report on them, query the metrics, decompress them
	$(BIN)/python examples/demo.py

test: check  ## all checks, and the tests that are not slow
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not integration and not slow' --durations 10
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'integration and not slow' --durations 10

test-slow: check  ## all checks, and all tests
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## lint, formatting, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(INSTALLED)  ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches, build outputs and the demo's output; .venv stays
	rm -rf build dist *.egg-info demo-output .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
