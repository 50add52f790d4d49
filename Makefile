# `make setup` makes .venv: a thin environment of this clone on top of a cached one that holds the packages. The cached
# one lies outside the clone and is keyed by constraints.txt, the dependencies and the Python version, so a second clone pays nothing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
CACHE ?= $(or $(REELSENSE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/reelsense)
KEY := $(shell $(PYTHON) requirements.py --key)
PACKAGES := $(CACHE)/environments/$(KEY)
RUN := .venv/bin/python
VIDEOS ?=
DATA ?= demo-data

.PHONY: setup demo test test-all check bench lock clean

setup: .venv/$(KEY)

$(PACKAGES)/complete:
	@echo "setup: installing the locked packages into $(PACKAGES) (several GB, minutes; once for each lock file)"
	rm -rf "$(PACKAGES)"
	$(PYTHON) -c 'import sys; sys.exit("ReelSense needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv "$(PACKAGES)"
	$(PYTHON) requirements.py > "$(PACKAGES)/requirements.txt"
	"$(PACKAGES)/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -r "$(PACKAGES)/requirements.txt"
	$(PYTHON) requirements.py --without-dependencies > "$(PACKAGES)/without-dependencies.txt"
	"$(PACKAGES)/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r "$(PACKAGES)/without-dependencies.txt"
	touch "$@"

.venv/$(KEY): $(PACKAGES)/complete pyproject.toml
	@echo "setup: making .venv"
	rm -rf .venv
	$(PYTHON) -m venv --without-pip .venv
	$(RUN) -c 'import sysconfig; open(sysconfig.get_path("purelib") + "/reelsense-packages.pth", "w").write("import site; site.addsitedir(\"$(PACKAGES)/lib/python%d.%d/site-packages\")\n" % __import__("sys").version_info[:2])'
	"$(PACKAGES)/bin/python" -m pip --python $(RUN) install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	touch "$@"

demo: setup
	$(RUN) -m app.demo --data "$(DATA)" $(if $(VIDEOS),--videos "$(VIDEOS)")

# Two tests at a time on two cores; the tests of a file stay together, for they share what is slow to make.
PYTEST := $(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test: setup
	$(PYTEST)

test-all: setup
	$(PYTEST) -m ""

check: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

bench: setup
	$(RUN) -m bench.throughput

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -qq setuptools wheel -e '.[dev]'
	{ head -1 constraints.txt; build/lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^pip=='; } > build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build

clean:
	rm -rf .venv build demo-data
