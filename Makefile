# Everything is done by tools/course.py; this file finds a Python to run it with.
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11 python,\
  $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))

.DEFAULT_GOAL := help
.PHONY: help book test check format notebooks bench clean environment

help:
	@echo 'make book       run what changed, build the site, say where it is'
	@echo 'make test       lint, unit tests, claims, notebooks, site, the site in a browser'
	@echo 'make check      the quick part of test: no notebooks, no site'
	@echo 'make format     format code, also in chapters'
	@echo 'make notebooks  regenerate the .ipynb twins of the .md sources'
	@echo 'make bench      speed against torch, as ratios'
	@echo 'make clean      remove what was built'

book test check format notebooks bench clean environment:
	@if [ -z '$(PYTHON)' ]; then echo '$@: needs Python 3.11 or newer, and found none on PATH' >&2; exit 1; fi
	@$(PYTHON) tools/course.py $@
