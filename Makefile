# Everything sets itself up: a virtual environment in .venv with a pinned torch, made once and again when
# pyproject.toml changes. Needs Python 3.11 or newer, with pip and venv.
PYTHON ?= python3
# A file of pip constraints, e.g. .github/constraints-oldest.txt; it then decides on torch as well.
CONSTRAINTS ?=
# Processes that share the tests, a file at a time; each takes up to 3 GB of memory.
WORKERS ?= 2
TORCH ?= $(if $(CONSTRAINTS),torch torchvision,torch==2.14.1 torchvision==0.29.1)
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
STAMP := .venv/installed-$(shell cksum pyproject.toml Makefile $(CONSTRAINTS) | cksum | cut -d' ' -f1)

.PHONY: demo test suite test-slurm test-page lint types format clean

demo: $(STAMP)  ## a leave-one-domain-out sweep of six algorithms on real images, about 4 minutes on 2 cores
	$(BIN)/domainbed-sage demo

test: lint types suite  ## what CI runs

suite: $(STAMP)  ## the tests alone
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# On a real Slurm on this host, which is brought up and taken down (Debian packages, root).
test-slurm: $(STAMP)  ## sweeps on a real Slurm: requeue, preemption, time limit, lost nodes, killed tasks
	scripts/slurm_testbed.sh up
	eval "$$(scripts/slurm_testbed.sh env)" && DOMAINBED_SAGE_SLURM_REQUIRED=1 $(BIN)/python -m pytest tests/sweeps/cluster/test_slurm.py; \
		status=$$?; scripts/slurm_testbed.sh down; exit $$status

# In Chromium, which is installed where there is none (a Debian package, root), with axe-core (npm) for accessibility.
test-page: $(STAMP)  ## the HTML report in a real browser: scripts, requests, accessibility, narrow windows
	scripts/page_testbed.sh
	DOMAINBED_SAGE_BROWSER_REQUIRED=1 $(BIN)/python -m pytest tests/results/report/test_browser.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) $(TORCH)
	$(INSTALL) --editable '.[dev]'
	@touch $@
