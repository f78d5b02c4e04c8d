# The pack's commands; `make` alone explains them. GNU make 3.81 or later, any POSIX shell.
# Nothing here needs an activated environment: every tool is run as .venv/bin/python -m TOOL.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
SET_UP := .venv/.set-up
COLAB_PYTHON ?= python3.13
SITE_SET_UP := .venv/.set-up-site
LITE_SET_UP := .venv/.set-up-lite
FIRST := notebooks/01_fully_connected_nets.ipynb

# Whatever the user's settings, figures are drawn in the notebook, and its kernel is this environment's own.
unexport MPLBACKEND
export JUPYTER_PREFER_ENV_PATH := 1

# A notebook's kernel runs in notebooks/; a relative folder for the data is relative to this folder there too.
ifneq ($(filter-out /% ~%,$(firstword $(CS231N_DATA_DIR))),)
export CS231N_DATA_DIR := $(CURDIR)/$(CS231N_DATA_DIR)
endif

# As cs231n/__init__.py does, for a notebook that imports NumPy first: OpenBLAS's idle threads sleep, and do not spin.
export OPENBLAS_THREAD_TIMEOUT ?= 16

.PHONY: help install lab get-data test test-instructor grade hint progress student grade-submissions mutants test-notebooks notebooks site test-site test-lab lite test-lite-one test-lite colab test-colab bench train lint clean

help: ## this text
	@echo 'Usage: make TARGET. The first call of any target sets up .venv.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'PYTHON=python3.12 names the Python (3.11 to 3.13) that .venv is made with. LAB_ARGS, TEST_ARGS, GRADE_ARGS,'
	@echo '... go to the program behind the target of that name, as in: make lab LAB_ARGS="--port=9999"'

install: $(SET_UP) ## only set up .venv: the pinned packages, and this one, editable

lab: $(SET_UP) ## open JupyterLab on the first notebook; the first cell that needs the data gets it
	@if [ "$$(id -u)" = 0 ]; then root=--allow-root; fi; \
	case "$$(uname)$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" in Linux) blind=--no-browser;; esac; \
	exec $(VENV_PYTHON) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(FIRST) $$root $$blind $(LAB_ARGS)

get-data: $(SET_UP) ## download and verify CIFAR-10 (170 MB); resumes a download that was cut off
	@$(VENV_PYTHON) -m cs231n.cifar10

# Tests run on all cores at once, and each notebook on one core, matrix products included.  The files are given out in
# the order of their names: by their number of tests, as is usual, those with a few long ones would come last.
PARALLEL := --numprocesses=auto --dist=loadfile --no-loadscope-reorder --benchmark-disable
CHECK_NOTEBOOKS = OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest --nbval notebooks $(PARALLEL) $(TEST_ARGS)

test: $(SET_UP) ## get the data, test the package and the grader, and check every notebook against its outputs
	@$(VENV_PYTHON) -m cs231n.cifar10 --or-stand-in
	@none_fits() { [ $$? = 5 ] && [ $(if $(TEST_ARGS),0,1) = 0 ]; }; \
	$(VENV_PYTHON) -m pytest tests $(PARALLEL) $(TEST_ARGS) || none_fits || failed=' tests'; \
	$(CHECK_NOTEBOOKS) || none_fits || failed="$$failed notebooks"; \
	[ -z "$$failed" ] || { echo "make test: failed in:$$failed" >&2; exit 1; }

test-instructor: $(SET_UP) ## test what only an instructor uses: making the student edition, grading submissions
	@$(VENV_PYTHON) -m pytest tests/instructor $(PARALLEL) $(TEST_ARGS)

grade: $(SET_UP) ## check the exercises and count the points: make grade GRADE_ARGS="2.3 4"
	@$(VENV_PYTHON) -m grading.grade $(GRADE_ARGS)

hint: $(SET_UP) ## ask a question on an exercise that is wrong, then name the mistake: make hint EXERCISE=2.3 TIER=3
	@$(VENV_PYTHON) -m grading.grade --tier "$${TIER:-2}" "$$EXERCISE"

progress: $(SET_UP) ## count the points of each notebook, and name what is next
	@$(VENV_PYTHON) -m grading.progress

student: $(SET_UP) ## write the student edition, without solutions, and a zip of it, into dist/
	@$(VENV_PYTHON) -m grading.instructor.student $(STUDENT_ARGS)

grade-submissions: $(SET_UP) ## grade a folder of submissions: make grade-submissions SUBMISSIONS=folder
	@$(VENV_PYTHON) -m grading.instructor.submissions $(GRADE_ARGS) -- '$(subst ','\'',$(value SUBMISSIONS))'

mutants: $(SET_UP) ## change the solutions in small ways, and list the changes that the checks miss
	@$(VENV_PYTHON) -c 'import cosmic_ray' 2>/dev/null || \
	  $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt cosmic-ray==8.7.0
	@$(VENV_PYTHON) -m grading.instructor.mutants $(MUTANTS_ARGS)

test-notebooks: $(SET_UP) ## get the data, and check every notebook against its outputs
	@$(VENV_PYTHON) -m cs231n.cifar10 --or-stand-in
	@$(CHECK_NOTEBOOKS)

notebooks: $(SET_UP) ## execute every notebook in place, and keep the outputs
	@$(VENV_PYTHON) -m cs231n.cifar10 --or-stand-in
	@$(VENV_PYTHON) -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.kernel_name=python3 \
	  --ExecutePreprocessor.timeout=600 --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

site: $(SITE_SET_UP) $(LITE_SET_UP) ## build the site into dist/site, with PDFs of the notebooks if there is a Chromium to print them
	@$(VENV_PYTHON) -m website.build $(SITE_ARGS)

test-site: site ## find the site's broken links, and test its pages in a headless Chromium if there is one
	@$(VENV_PYTHON) -m pytest tests/website --numprocesses=auto --dist=loadgroup --benchmark-disable $(TEST_ARGS)

test-lab: $(SITE_SET_UP) ## work in JupyterLab as a learner does, in a headless Chromium if there is one
	@$(VENV_PYTHON) -m pytest tests/lab $(TEST_ARGS)

lite: $(LITE_SET_UP) ## build only the part of it on which notebooks 01 to 04 run in the browser, into dist/lite
	@$(VENV_PYTHON) -m website.lite $(LITE_ARGS)

test-lite-one: $(LITE_SET_UP) $(SITE_SET_UP) ## in a headless Chromium, solve exercise 1.1 of the edition on that site
	@$(VENV_PYTHON) -m pytest tests/lite -m "not whole_notebooks" $(TEST_ARGS)

test-lite: $(LITE_SET_UP) $(SITE_SET_UP) ## run notebooks 01 to 04 to their end on that site: about a quarter of an hour
	@$(VENV_PYTHON) -m pytest tests/lite $(TEST_ARGS)

colab: $(SET_UP) ## write a first cell into each notebook that gets the pack in Colab
	@$(VENV_PYTHON) -m website.colab

test-colab: ## test that cell on the package versions of Colab, of which some hundred MB are downloaded
	@"$(COLAB_PYTHON)" -m venv --clear build/colab
	@build/colab/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/colab/versions.txt
	@build/colab/bin/python -m pytest --noconftest -o addopts= -o filterwarnings= tests/colab $(TEST_ARGS)

bench: $(SET_UP) ## measure speed, and PyTorch's on the same threads
	@for file in tests/benchmarks/test_*.py; do \
	  $(VENV_PYTHON) -m pytest $$file --benchmark-only $(BENCH_ARGS) || failed=1; \
	done; [ -z "$$failed" ]  # each in its own process: memory that the allocator keeps affects the next

train: $(SET_UP) ## train the PyTorch ResNet on CIFAR-10, on a GPU where there is one
	@$(VENV_PYTHON) -m cs231n.pytorch_cifar10 $(TRAIN_ARGS)

lint: $(SET_UP) ## check the style and the format of code and notebooks
	@$(VENV_PYTHON) -m ruff check . || failed=1; \
	$(VENV_PYTHON) -m ruff format --check . || failed=1; \
	[ -z "$$failed" ]

clean: ## remove .venv and everything that the tools wrote; keep the data and the notebooks
	@rm -rf .venv build dist cs231n.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	@find . -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The set-up. The stamp is written last and names the folder that it was made for: an interrupted set-up continues at the
# next call, and it starts over if the folder was moved or its Python is gone.

UP_TO_DATE := $(shell [ "$$(cat $(SET_UP) 2>/dev/null)" = "$$(pwd -P)" ] && $(VENV_PYTHON) -c '' 2>/dev/null && echo yes)
ifneq ($(UP_TO_DATE),yes)
.PHONY: $(SET_UP)
endif

# True if .venv was made for this folder (or by hand), by a supported Python, and has a working pip.
USABLE = { [ ! -f $(SET_UP) ] || [ "$$(cat $(SET_UP))" = "$$(pwd -P)" ]; } && $(VENV_PYTHON) -c 'import pip, sys; \
from importlib.metadata import files; sys.exit(not (files("pip") and (3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null

# JupyterLab asks no host for news or updates, and not whether it may, unless the user's own settings say so.
LAB_SETTINGS := .venv/etc/jupyter/labconfig/default_setting_overrides.json

$(SET_UP): pyproject.toml constraints.txt
	@stop() { echo "make: $$*" >&2; exit 1; }; \
	if $(USABLE); then exit 0; fi; \
	version=$$("$(PYTHON)" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); \
	case "$$version" in \
	  3.11.*|3.12.*|3.13.*) ;; \
	  '') stop "$(PYTHON) does not run here; name a Python 3.11 to 3.13, as in: make install PYTHON=python3.12";; \
	  *) stop "$(PYTHON) is Python $$version, not 3.11 to 3.13; name one, as in: make install PYTHON=python3.12";; \
	esac; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  stop "$(PYTHON) has no venv module; install it first (Debian and Ubuntu: apt install python3-venv)"; \
	echo "Making .venv with Python $$version"; \
	said=$$("$(PYTHON)" -m venv --clear .venv 2>&1) || \
	  stop "$(PYTHON) could not make .venv: $$(echo "$$said" | tail -n 1)"
	@rm -rf .venv/lib/python3*/site-packages/~*
	@for info in .venv/lib/python3*/site-packages/*.dist-info; do [ -f "$$info/RECORD" ] || rm -rf "$$info"; done
	@echo 'Installing the packages of constraints.txt into .venv: this takes several minutes; .venv/install.log shows the progress'
	@pip() { $(VENV_PYTHON) -m pip install --disable-pip-version-check --constraint constraints.txt "$$@" >>.venv/install.log 2>&1; }; \
	: >.venv/install.log; \
	pip setuptools && pip --no-build-isolation --editable '.[all]' || { \
	  why=$$(sed -n 's/^ *ERROR: //p' .venv/install.log | tail -n 1); \
	  echo "make: pip failed: $${why:-$$(tail -n 1 .venv/install.log)} (full log: .venv/install.log; make continues from here)" >&2; \
	  exit 1; }
	@mkdir -p $(dir $(LAB_SETTINGS))
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' >$(LAB_SETTINGS)
	@pwd -P >$(SET_UP)

# The site's own set-up, which no other target waits for.
$(SITE_SET_UP): $(SET_UP) website/packages.py
	@echo 'Installing what builds the site into .venv: about a minute'
	@$(VENV_PYTHON) -m pip install --disable-pip-version-check --constraint constraints.txt --no-build-isolation \
	  --editable '.[site]' >.venv/install.log 2>&1 || { grep ERROR: .venv/install.log >&2; exit 1; }
	@$(VENV_PYTHON) -m website.packages
	@touch $@

# What builds the site that runs notebooks, and the wheels that it serves: pure Python, and not part of Pyodide.
$(LITE_SET_UP): $(SET_UP) pyproject.toml
	@echo 'Installing what builds the site that runs notebooks into .venv'
	@pip() { $(VENV_PYTHON) -m pip "$$@" >.venv/install.log 2>&1 || { grep ERROR: .venv/install.log >&2; exit 1; }; }; \
	pip install --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[lite]' && \
	pip download --disable-pip-version-check --constraint constraints.txt --no-deps --only-binary=:all: \
	  --dest .venv/share/cs231n-lite comm filelock tqdm
	@touch $@
