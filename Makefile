# `make` lists what there is. Every target sets up what it needs: see .ci/setup.

MAKEFLAGS += --no-print-directory
SHELL     := /bin/sh

BIN   := .venv/bin
PY    := $(BIN)/python
READY := .venv/.ready
SITE  := build/site/.built

SCHEMAS := policies/edgeproxy.schema.json policies/edgeproxy-tests.schema.json
LANGUAGE_SERVER := .tools/yaml-language-server/.ready

# More words for the command behind a target: make test ARGS='-k cache -x'
ARGS  ?=

# A folder that was moved or copied needs a new .venv, as that one holds its path.
ifneq ($(shell cat .venv/.root 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format docs bench differential agreement bench-curves conformance curves soak soak-kill
.PHONY: policy-size soak-reload soak-full soak-slow soak-open wheel sbom audit clean distclean requirements
.PHONY: language-server screenshots

help: ## list these targets
	@echo "edgeproxy: make TARGET"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
	    awk -F'|' '{ printf "%-15s %s\n", $$1, $$2 }'
	@echo
	@echo "The first one sets up .venv; ARGS='...' is handed to the command behind a target."

setup: $(READY) $(SCHEMAS) ## make .venv, with the packages that requirements.txt pins

$(READY): requirements.txt pyproject.toml .python-version .ci/setup
	@.ci/setup

# What editors know of the policies beside it: see docs/editors.md.
$(SCHEMAS): $(READY) $(shell find edgeproxy plugins -name '*.py')
	@$(BIN)/edgeproxy schema $(if $(findstring tests,$@),--tests) >$@.new
	@mv $@.new $@

# ------------------------------------------------------------------- daily use

demo: $(READY) $(SITE) ## show edgeproxy at work, on this project's own site
	@$(PY) docs/demo.py $(ARGS)

test: $(READY) ## run the tests, a file to a core, four at the most; ARGS=-n0 for one
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

check: $(READY) ## all that must pass before a change goes in; ends with `make test`
	@echo "check: pins";    $(BIN)/uv pip check --quiet --python $(PY)
	@echo "check: format";  $(BIN)/ruff format --quiet --check .
	@echo "check: lint";    $(BIN)/ruff check --quiet .
	@echo "check: types";   $(PY) -m mypy
	@echo "check: imports"; $(BIN)/lint-imports --no-logo
	@echo "check: docs";    $(PY) -m sphinx -q -E -W --keep-going -b dirhtml -d build/check/doctrees docs build/check/site
	@echo "check: editors"; $(MAKE) language-server || echo "check: without yaml-language-server"
	@echo "check: tests";   $(MAKE) test

language-server: $(LANGUAGE_SERVER) ## install yaml-language-server with npm, for its tests

# Its pins are in package-lock.json; npm compares their hashes. No package runs a script.
$(LANGUAGE_SERVER): $(wildcard .ci/yaml-language-server/*.json)
	@mkdir -p $(@D)
	@cp $^ $(@D)
	@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=0 --loglevel=error
	@touch $@

format: $(READY) ## format the code and fix what can be fixed by itself
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(READY) ## build the documentation into build/site/
	@rm -f $(SITE)
	@$(MAKE) $(SITE)
	@echo "docs: see build/site/index.html"

$(SITE): $(shell find docs policies -type f ! -name '*.pyc' 2>/dev/null) $(wildcard *.md) | $(READY)
	@echo "docs: building build/site"
	@rm -rf build/demo-cache  # after a publish, nothing old is shown
	@$(PY) -m sphinx -q -b dirhtml -d build/doctrees docs build/site
	@touch $@

screenshots: $(READY) ## make the pictures of the dashboard anew, with Chromium
	@$(PY) -m tests.screenshots $(ARGS)

bench: $(READY) ## measure beside nginx and others: docs/performance.md
	@$(PY) -m tests.bench $(ARGS)

bench-curves: $(READY) ## draw docs/images/cost-curves.svg anew, and print its figures
	@$(PY) -m tests.bench.curves $(ARGS)

policy-size: $(READY) ## measure how loading and deciding grow with the number of routes
	@$(PY) tests/policy_size.py $(ARGS)

differential: $(READY) ## send REQUESTS=20000 connections' worth of requests both ways, and compare
	@EDGEPROXY_DIFFERENTIAL=$(or $(REQUESTS),20000) $(PY) -m pytest -q tests/threats/test_two_ways.py $(ARGS)

agreement: $(READY) ## hold `explain` to what happens, on REQUESTS=10000 random requests
	@EDGEPROXY_AGREEMENT=$(or $(REQUESTS),10000) $(PY) -m pytest -q --timeout 7200 $(ARGS) \
	    tests/edgeproxy/explain/test_agreement.py tests/journeys/test_explain_agrees.py

conformance: $(READY) ## run the public HTTP cache suite: SUITE=folder of its checkout
	@test -n "$(SUITE)" || { echo "conformance: name the suite's folder: SUITE=..."; exit 2; }
	@$(PY) tests/conformance.py $(SUITE) $(ARGS)

curves: $(READY) ## draw docs/images/hit-ratios.svg anew, and print its figures
	@$(PY) tests/simulate_tiers.py $(ARGS)

soak: $(READY) ## serve for MINUTES=30 before a faulty origin: no wrong byte, no growth
	@$(PY) tests/soak/soak.py --minutes $(or $(MINUTES),30) $(ARGS)

soak-kill: $(READY) ## kill it under load, ROUNDS=100 times: nothing damaged, nothing back
	@$(PY) tests/soak/kill.py --rounds $(or $(ROUNDS),100) $(ARGS)

soak-reload: $(READY) ## reload under load, ROUNDS=200 times, every third policy bad: nothing fails
	@$(PY) tests/soak/reload.py --rounds $(or $(ROUNDS),200) $(ARGS)

soak-full: $(READY) ## serve for MINUTES=20 under all the load there is: no error, no growth
	@$(PY) tests/soak/full.py --minutes $(or $(MINUTES),20) $(ARGS)

soak-slow: $(READY) ## be slow in four ways for SECONDS=20 each: other visitors do not notice
	@$(PY) tests/soak/slow.py --seconds $(or $(SECONDS),20) $(ARGS)

soak-open: $(READY) ## measure how long a disk cache of a million objects takes to open
	@$(PY) tests/soak/million.py $(ARGS)

# ------------------------------------------------------------------- release

wheel: $(READY) ## build the wheel into dist/, and beside it the pins of what it needs
	@rm -f dist/edgeproxy-*.whl dist/requirements.txt
	@$(PY) -m hatchling build -t wheel -d dist
	@.ci/pins >dist/requirements.txt

sbom: wheel ## list what the wheel is made of, as CycloneDX, in dist/edgeproxy.cdx.json
	@$(BIN)/uv venv --quiet --clear --no-project --python $(PY) build/sbom
	@$(BIN)/uv pip install --quiet --python build/sbom --require-hashes -r dist/requirements.txt
	@$(BIN)/uv pip install --quiet --python build/sbom --offline --no-deps dist/edgeproxy-*.whl
	@$(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment \
	    --pyproject pyproject.toml --output-reproducible -o dist/edgeproxy.cdx.json build/sbom
	@echo "sbom: see dist/edgeproxy.cdx.json"

audit: $(READY) ## look for known vulnerabilities in all pinned packages; needs the network
	@.ci/audit $(ARGS)

requirements: $(READY) ## pin again; ARGS=--upgrade, or ARGS='--upgrade-package NAME'
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --all-extras --group dev \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url \
	    $(ARGS) --output-file requirements.txt pyproject.toml
	@.ci/setup

clean: ## remove what was built
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find edgeproxy plugins tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and .tools as well
	@rm -rf .venv .tools
