# Sets everything up in .venv and runs it. Needs make and Python 3.11 or newer, with its venv
# module, and a package index that pip can reach.
#
#   make run      the demo: two members, the proxy between, commands to try
#   make test     all tests
#   make check    format, lint, types, and the rules for imports and words
#   make bench    the benchmarks
#   make format   format the code and repair what the linter can
#   make clean    remove .venv
#
# Another interpreter: make run PYTHON=python3.13 (after make clean, if .venv is there already).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Everything goes through `python -m`: scripts in .venv/bin hold a path that ends with a move.
RUN := $(BIN)/python -m

.PHONY: help run test check bench format clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

run: $(VENV)/.installed-demo
	@exec $(RUN) proxy demo

# A file of tests stays together: its servers are started once.
test: $(VENV)/.installed-dev
	$(RUN) pytest --numprocesses auto --dist loadfile

check: $(VENV)/.installed-dev
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) mypy
	$(RUN) pytest tests/test_architecture.py tests/test_words.py

bench: $(VENV)/.installed-dev
	$(RUN) benchmarks.run

format: $(VENV)/.installed-dev
	$(RUN) ruff check --fix
	$(RUN) ruff format

clean:
	rm -rf $(VENV)

# The stamp is the last thing written, and `.unfinished` the first: an environment in which an
# installation was interrupted still holds that file, and is made anew instead of being trusted.
$(VENV)/.installed-%: pyproject.toml
	@$(check_python)
	@$(discard_unusable)
	@echo "make: setting up $(VENV) (extra '$*' of pyproject.toml) ..."
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(RUN) pip install --quiet --disable-pip-version-check --editable '.[$*]' || { $(no_install); }
	@rm $(VENV)/.unfinished && touch $@

new_enough := import sys; sys.exit(sys.version_info < (3, 11))

define check_python
if ! command -v $(PYTHON) >/dev/null; then \
    echo "make: '$(PYTHON)' not found. Python 3.11 or newer is needed: on Debian 12 or newer" \
        "'apt-get install python3 python3-venv', elsewhere see https://www.python.org/downloads/." \
        "If it goes by another name: 'make PYTHON=python3.12 ...'." >&2; exit 1; \
elif ! $(PYTHON) -c '$(new_enough)'; then \
    for other in python3.14 python3.13 python3.12 python3.11; do \
        if $$other -c '$(new_enough)' 2>/dev/null; then \
            echo "make: '$(PYTHON)' is older than 3.11, but $$other is there:" \
                "'make PYTHON=$$other ...'." >&2; exit 1; \
        fi; \
    done; \
    echo "make: '$(PYTHON)' is $$($(PYTHON) -V 2>&1), and 3.11 or newer is needed: on Debian 12" \
        "or newer 'apt-get install python3 python3-venv', elsewhere see" \
        "https://www.python.org/downloads/." >&2; exit 1; \
elif ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
    echo "make: '$(PYTHON)' has no venv and ensurepip modules. On Debian and Ubuntu they are" \
        "a package of their own: 'apt-get install python3-venv'." >&2; exit 1; \
fi
endef

define discard_unusable
if [ -e $(VENV)/.unfinished ]; then \
    echo "make: an earlier set-up was interrupted; $(VENV) is made anew."; rm -rf $(VENV); \
elif [ -d $(VENV) ] && ! $(BIN)/python -c '$(new_enough)' 2>/dev/null; then \
    echo "make: the interpreter of $(VENV) is gone or too old; $(VENV) is made anew."; \
    rm -rf $(VENV); \
fi
endef

define no_install
echo "make: the packages named in pyproject.toml could not be installed. pip's own words are" \
    "above; it needs a package index that it can reach (the network, or PIP_INDEX_URL)." >&2; exit 1
endef
