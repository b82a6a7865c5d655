# make run    serves this host's devices, and says what to type next
# make test   everything: lint, types, layers, unit, golden, end to end; as root the lab guest too
# make check  the quick part of it
# make lab    a shell in the guest, a real SAN host
# make bench  measures speed against peers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
RUNTIME := $(if $(filter 0,$(shell id -u)),/run/nodedev,$(or $(XDG_RUNTIME_DIR),/tmp/nodedev-$(shell id -u))/nodedev)

.PHONY: run test check lint golden lab bench clean

run: $(READY)
	@echo "Serving this host. In another terminal:"
	@echo "    $(BIN)/nodedev tree"
	@echo "    $(BIN)/nodedev list --json"
	@exec $(BIN)/nodedev serve

test: lint
	$(BIN)/pytest

check: lint
	$(BIN)/pytest tests/unit tests/golden

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

golden: $(READY)
	$(BIN)/pytest tests/golden --regenerate

lab: $(READY)
	$(BIN)/python -m tests.lab shell

bench: $(READY)
	$(BIN)/python -m tests.bench

# A new environment when what it is made from has changed: the dependencies, or the protos.
$(READY): pyproject.toml hatch_build.py $(wildcard protos/nodedev/v1/*.proto)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nodedev needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	    if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; \
	    else echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist nodedev/v1 .mypy_cache .ruff_cache .pytest_cache .hypothesis
