# make demo    the whole way of an event, shown (ONCE=1 stops everything at the end)
# make test    every test, on a real Kafka, PostgreSQL and Valkey
# make soak    what breaks under load, all of it and for long; writes docs/faults.md
# make lint    ruff, mypy, import contracts
# make bench   speed, beside a bare asyncio program in the same run
# make up      start everything; make down stops it
# make lock    resolve the dependencies anew (for maintainers)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soak lint bench up down lock

demo: $(VENV)/.run
	@$(BIN)/nhood demo $(if $(ONCE),--once)

up: $(VENV)/.run
	@$(BIN)/nhood up

down: $(VENV)/.run
	@$(BIN)/nhood down

test: $(VENV)/.browser
	@$(BIN)/python -m pytest -q $(ARGS)

soak: $(VENV)/.dev
	@NHOOD_SOAK=1 NHOOD_FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest -q tests/faults/test_matrix.py $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	@$(BIN)/python -m bench $(ARGS)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …")'
	@echo "Making the environment in $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements.lock pyproject.toml
	@echo "Installing (once; about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@echo "Installing what tests need (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# A browser that cannot be had is told, and told again by the tests that need it.
$(VENV)/.browser: $(VENV)/.dev tests/chromium.py
	@$(BIN)/python -m tests.chromium
	@touch $@

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --group build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --group build --group dev pyproject.toml -o requirements-dev.lock
