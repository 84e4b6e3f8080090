# Two commands: `make run` and `make test`. They need python3 (3.11 or newer) with venv, and make.
# uv is used when it is there, and never needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
ifneq ($(UV),)
PIP := $(UV) pip install --quiet --python $(BIN)/python
else
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif
# Tests wait more than they compute: four workers pay on two cores. Each starts its own servers.
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: install run demo test test-all check format bench lock docs clean help

# peer.lock: a real Soulseek peer for the tests, run as a program without its window, so without what that needs.
install: $(VENV)/.installed ## Make .venv and install what the locks name, hash by hash

$(VENV)/.installed: pyproject.toml requirements/dev.lock requirements/peer.lock
	$(call installed,requirements/dev.lock)
	@$(PIP) --require-hashes --no-deps -r requirements/peer.lock
	@touch $(VENV)/.runs $@

# What it takes to run it: a third of what it takes to work on it.
$(VENV)/.runs: pyproject.toml requirements/run.lock
	$(call installed,requirements/run.lock)
	@touch $@

define installed
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "Cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@$(PIP) --require-hashes -r $(1)
	@$(PIP) --no-deps --no-build-isolation -e .
endef

run: $(VENV)/.runs ## Start everything: page, API, PostgreSQL and Valkey, data in .kima
	@exec $(BIN)/kima-stream up

demo: $(VENV)/.runs ## Play a story: webhooks, a crash, a replay, the proof
	@exec $(BIN)/kima-stream demo

test: install ## All tests on the embedded servers, the large ones at a tenth of their size
	@$(BIN)/python -m pytest -n $(WORKERS) -q

test-all: install ## All tests at full size, and once more against PostgreSQL and Redis of this machine
	@KIMA_TEST_FULL=1 $(BIN)/python -m pytest -q
	@.ci/other-servers

check: install ## Lint, types, import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/interrogate --quiet tests
	@$(BIN)/python -m pytest -q tests/unit/test_types.py

format: install ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

bench: install ## Measure this machine
	@exec $(BIN)/python -m bench

lock: ## Resolve the dependencies anew into requirements/*.lock (needs uv, in .venv or on the PATH)
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	lock() { "$$UV" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --upgrade "$$@"; }; \
	lock --output-file requirements/runtime.lock && \
	lock --extra embedded --output-file requirements/embedded.lock && \
	lock --extra soulseek --extra notify --output-file requirements/soulseek.lock && \
	lock --extra checkout --output-file requirements/run.lock && \
	lock --extra dev --extra embedded --output-file requirements/dev.lock && \
	echo nicotine-plus | "$$UV" pip compile - --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --no-deps --upgrade --output-file requirements/peer.lock

docs: install ## Write docs/settings.md anew
	@$(BIN)/python -m kima_stream.settings.reference > docs/settings.md

clean: ## Remove .venv and caches; the data in .kima stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
