# Everything runs from .venv, made from the lock file on first use: `make demo`, `make test`, `make help`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo docs notebooks screenshots test test-notebooks test-fast test-lowest test-newest lint mutate bench results release venv runtime bootstrap lock

# The first of these that is 3.11 or newer and has venv; `make PYTHON=python3.12 venv` names one.
PYTHON := python3.14 python3.13 python3.12 python3.11 python3
ENV := .venv
PINS := locks/dev.txt
# What the package needs to run, and what installs it from here.
RUNTIME_PINS := locks/runtime.txt locks/build.txt
PY = $(ENV)/bin/python
STAMP = $(ENV)/installed
# uv reads its own list of authorities; a mirror behind a company's certificate is known to the system only.
export UV_SYSTEM_CERTS := 1
# Images of Python ask for no bytecode: every process would compile all that it imports, which takes longer than its work.
unexport PYTHONDONTWRITEBYTECODE
# The environment is remade only when this changes: the locks, the package's own declaration, the place of the clone.
# Its first word says which packages the environment has.
FINGERPRINT = { printf '%s ' $(firstword $(PINS)); { cat locks/uv.txt $(PINS) pyproject.toml; pwd; } | sha256sum; }
# Files keep the order of tests/conftest.py, the longest first.
IN_PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
PYTEST = $(PY) -m pytest $(IN_PARALLEL)

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

demo: runtime ## Train, score and publish one simulated night
	@$(PY) -m cvj_ml demo

test: venv ## Run all tests, and of the notebooks the first
	@$(PYTEST) -m "not notebook"

test-notebooks: venv ## Run the other notebooks, and look at what they show
	@$(PYTEST) -m notebook tests/test_notebooks.py

test-fast: venv ## Run all tests but the slow ones
	@$(PYTEST) -m "not slow"

# Left out is what asks about the source tree, and not about what the package does.
BEHAVIOUR := -m "not slow" --ignore=tests/test_architecture.py --ignore=tests/test_packaging.py --ignore=tests/test_docs.py --ignore=tests/test_website.py

test-lowest: ## Run the fast tests with the lowest versions that pyproject.toml admits
	@export CVJ_ML_CACHE="$$PWD/.venv-lowest/cache"
	$(MAKE) --no-print-directory venv ENV=.venv-lowest PINS=locks/lowest.txt
	.venv-lowest/bin/python -m pytest $(IN_PARALLEL) $(BEHAVIOUR)

# Resolved now, so no lock is used: what an installation without one would get today.
test-newest: ## Run the fast tests with the newest versions that it admits, on each Python from 3.11 to 3.14
	@for version in 3.11 3.12 3.13 3.14; do
		python$$version -c 'import ensurepip, venv' 2>/dev/null || { echo "No python$$version here."; continue; }
		env=.venv-newest-$$version
		export CVJ_ML_CACHE="$$PWD/$$env/cache"
		$(MAKE) --no-print-directory bootstrap ENV=$$env PYTHON=python$$version
		$$env/bin/uv pip install --upgrade --python $$env/bin/python --editable '.[calendar,excel,mcp,postgres,spark,test,tune]'
		$$env/bin/python -m pytest $(IN_PARALLEL) $(BEHAVIOUR)
	done

lint: venv ## Check style, types and the direction of imports
	@$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) $(ENV)/bin/lint-imports --no-logo

docs: venv ## Build the documentation as a site, without a network
	@$(PY) -m website.build

notebooks: venv ## Run all notebooks, and show what comes out on the site
	@$(PY) -m website.notebooks
	$(PY) -m website.build

screenshots: venv ## Take the pictures of the page and of MLflow in docs/images anew
	@$(PY) -m website.screenshots

mutate: venv ## Plant faults into the modules that decide, and see whether their tests notice (most of an hour)
	@$(PY) tests/mutation/mutate.py $(MODULES)

bench: venv ## Measure the features against SQL and dataframes
	@$(PY) -m benchmarks.features

results: venv ## Measure the published figures anew
	@$(PY) -m benchmarks.results

release: venv ## Build what is published of the last commit into dist/, twice and compared, with its parts and checksums
	@$(PY) .ci/release.py dist

venv: ## Make or renew .venv (the other targets do it themselves)
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$($(FINGERPRINT))" ] && $(PY) -c '' 2>/dev/null; then exit; fi
	rm -f $(STAMP)
	$(MAKE) --no-print-directory bootstrap
	# uv takes no settings from pip, so behind a mirror that only pip knows pip takes over; both check every hash.
	if ! $(ENV)/bin/uv pip sync --python $(PY) --require-hashes $(PINS); then
		echo "uv could not install from $(PINS) (its reason stands above); trying pip." >&2
		$(PY) -m pip install --require-hashes $(addprefix --requirement=,$(PINS))
	fi
	$(PY) -m pip install --quiet --no-deps --no-index --no-build-isolation --editable .
	$(PY) -c 'from cvj_ml.warming import warm; warm()'
	$(FINGERPRINT) > $(STAMP)

# What a demonstration needs: fewer packages are enough to run it; an environment that has the tests' as well keeps them.
runtime:
	@case "$$(cat $(STAMP) 2>/dev/null)" in
		"" | "$(firstword $(RUNTIME_PINS)) "*) $(MAKE) --no-print-directory venv PINS="$(RUNTIME_PINS)" ;;
		*) $(MAKE) --no-print-directory venv ;;
	esac

# What the system has to bring, then an environment that holds nothing but pip and uv.
bootstrap:
	@find_python() {
		python= bare=
		for candidate in $(PYTHON); do
			"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
			bare=$${bare:-$$candidate}
			if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$$candidate; return; fi
		done
	}
	find_missing() {
		missing=()
		find_python
		if [ -z "$$python" ] && [ -n "$$bare" ]; then
			missing+=("$$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
		fi
		# LightGBM loads the system's OpenMP library when it is imported.
		if [ -n "$$bare" ] && [ "$$(uname -s)" = Linux ] \
			&& ! "$$bare" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then missing+=(libgomp1); fi
	}
	find_missing
	if [ -z "$$bare" ]; then
		echo "No Python 3.11 or newer among: $(PYTHON). Install one, or name it: make PYTHON=/path/to/python3 venv" >&2
		exit 2
	fi
	if [ $${#missing[@]} -gt 0 ]; then
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			apt-get update
			DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$${missing[@]}"
			find_missing
		elif command -v apt-get >/dev/null; then
			echo "Missing system packages. Run this line, then make again:" >&2
			echo "  sudo apt-get update && sudo apt-get install --yes $${missing[*]}" >&2
			exit 2
		fi
	fi
	if [ $${#missing[@]} -gt 0 ]; then
		echo "Missing: $${missing[*]} (Debian's names). Install what provides them, then make again." >&2
		exit 2
	fi
	# An interrupted set-up leaves an environment without a working pip: start it afresh.
	if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
		"$$python" -m venv --clear $(ENV)
	fi
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement locks/uv.txt

lock: bootstrap ## Renew locks/ after a change in pyproject.toml (LOCK=--upgrade takes newer releases)
	@compile() { $(ENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate $(LOCK) "$$@"; }
	compile --extra dev pyproject.toml --output-file locks/dev.txt
	# The same versions, without the tools.
	compile --constraint locks/dev.txt pyproject.toml --output-file locks/runtime.txt
	echo 'uv>=0.11' | compile - --output-file locks/uv.txt
	# What builds the package, where no tool of the tests is.
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| compile --constraint locks/dev.txt - --output-file locks/build.txt
	# The lowest versions of what is declared, but of what tests import: that tests here as it does elsewhere.
	tools=$$(sed -n '/^test = \[/,/^\]/s/^ *"\([a-z-]*\)[>=<].*/\1/p' pyproject.toml | paste -sd'|')
	rm -f locks/lowest.txt # a version that stands there would be kept
	compile --resolution lowest-direct --extra calendar --extra excel --extra mcp --extra postgres --extra spark --extra test --extra tune pyproject.toml \
		--output-file locks/lowest.txt --constraint <(grep -E "^($$tools)==" locks/dev.txt | tr -d '\\')
