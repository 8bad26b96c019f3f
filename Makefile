# Two commands matter: make demo, make test. Everything is installed into .venv and node_modules beside this file;
# what a Debian machine lacks is installed too when that is possible (as root), else it is named.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that share out the tests, a file each at a time. More than there are cores: what they start works, they wait.
WORKERS ?= 4
.DEFAULT_GOAL := help
# Daemons are started hundreds of times here: what Python compiled of them is kept, also where that is turned off.
export PYTHONDONTWRITEBYTECODE =
# So is what Node.js compiled of the program that drives browsers.
export NODE_COMPILE_CACHE = $(CURDIR)/$(VENV)/node-cache
.PHONY: help setup system-packages test-packages demo test check fix lint types house contract generated unit schema proto bench chaos clean

help: ## Shows this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(VENV)/.installed ## Installs what is needed into .venv

system-packages:
	@PYTHON='$(PYTHON)' sh deploy/system-packages.sh run

test-packages: system-packages
	@PYTHON='$(PYTHON)' sh deploy/system-packages.sh test

$(VENV)/.installed: pyproject.toml constraints.txt | system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[server,recording,s3,otlp,dev]'
	@touch $@

node_modules/.installed: package.json package-lock.json | test-packages
	npm install --silent --no-audit --no-fund --no-save
	@touch $@

demo: setup ## Shows the product at work, from nothing: a ladder (INPUT=file of your own), then sessions that share a device
	@$(BIN)/python -m demo $(if $(INPUT),--input '$(INPUT)')

# The tests wait more than they work: whatever else is checked is checked beside them, when lint has nothing to say.
test: ## Lint, types, house rules, contract, tests
	@$(MAKE) --no-print-directory --jobs=2 setup node_modules/.installed
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory --jobs=2 unit check

check: setup node_modules/.installed lint types house contract generated ## Everything that is not a test

fix: setup ## Formats and mends what can be mended by machine
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

lint: setup
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: setup
	$(BIN)/mypy

house: setup
	$(BIN)/lint-imports --no-logo

contract: node_modules/.installed
	node_modules/.bin/buf lint
	node_modules/.bin/buf breaking --against proto/baseline.binpb

generated: setup
	$(BIN)/python tests/house/generated_code.py --check

# The tests are compiled once here. Else each of the processes that share them out would compile them all.
$(VENV)/.collected: $(VENV)/.installed
	@$(BIN)/python -m pytest --collect-only --quiet > /dev/null 2>&1 || true
	@touch $@

unit: setup node_modules/.installed $(VENV)/.collected
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

proto: setup ## Generates gpu_balancer/v1 from proto/
	$(BIN)/python tests/house/generated_code.py

schema: setup ## Generates the editors' JSON schemas beside config/*.toml
	$(BIN)/python -m gpu_balancer.runtime.settings_schema balancer.settings:BalancerSettings > config/balancer.schema.json
	$(BIN)/python -m gpu_balancer.runtime.settings_schema agents.settings:AgentSettings > config/agent.schema.json

bench: setup ## Runs every benchmark, both sides in one run
	$(BIN)/python -m bench

chaos: setup ## Breaks a running house in every way and judges it, about an hour (SEED=8 repeats a run; docs/chaos.md)
	$(BIN)/python -m bench.chaos $(if $(SEED),--seed '$(SEED)')

clean: ## Removes what was installed and built
	rm -rf $(VENV) node_modules build dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
