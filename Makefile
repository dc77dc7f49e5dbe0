# make demo    from a fresh clone to a trained, evaluated network on drawn sample faces
# make sample  only the sample data: sample/data
# make check   linters, type checker and the tests that are not slow: under two minutes on two cores
# make test    linters, type checker and all tests: nine to fourteen minutes on two cores, with the installation
# make bench   speed beside PyTorch's on this machine, everything that needs no GPU (some 20 minutes on two cores)
# make torture kills, odd inputs and endurance: an hour or two on an idle machine; python -m tests.torture has the parts
# make page    builds the browser page of fer_jax/web; needs Node.js and its package manager npm
# make clean   removes .venv, .venv-bench and the sample with its run
# Where .venv is missing they make it, and install some 1 GB of packages into it.
PYTHON ?= python3
BIN := .venv/bin
# Python compiles a module to bytecode when it is first imported; pip would compile all of them, most for nothing. Where
# this variable is set, as in many containers, Python keeps no bytecode: each command would compile jax anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip --disable-pip-version-check install --no-compile

.NOTPARALLEL:
.PHONY: demo sample check test lint bench torture page clean

demo: sample
	$(BIN)/python -m fer_jax.main --config configs/sample.py
	$(BIN)/python -m fer_jax.evaluate --run experiments/sample --split valid
	@echo
	@echo "checkpoints:      experiments/sample/checkpoints (latest and best)"
	@echo "report:           experiments/sample/report/report.html"
	@echo "TensorBoard logs: experiments/sample; look at them with: $(BIN)/tensorboard --logdir experiments"

# Both commands are quick where their output exists already.
sample: .venv/project
	$(BIN)/python -m fer_generator.synthetic -o sample
	$(BIN)/python fer_generator/generate_training_data.py -d sample/data -fer sample/fer2013.csv -ferplus sample/fer2013new.csv

check: lint
	$(call types_and_tests,-m "not slow")

test: lint
	$(call types_and_tests)

lint: .venv/installed-dev .venv/project
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy needs one core for half a minute, so it runs beside the tests; its output is printed after theirs. The order of
# the files is that of tests/conftest.py.
define types_and_tests
	@types=$$(mktemp); $(BIN)/mypy > $$types 2>&1 & \
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(1); tests=$$?; \
	wait $$!; typed=$$?; echo mypy; cat $$types; rm $$types; exit $$((tests | typed))
endef

# FER2013_DIR, where it is set, names the folder of the two CSVs for the generator.
bench: sample .venv-bench/installed
	$(BIN)/python benchmarks/compare.py --csvs $(or $(FER2013_DIR),sample)

torture: .venv/installed-dev .venv/project
	$(BIN)/python -m tests.torture kills
	$(BIN)/python -m tests.torture pairs
	$(BIN)/python -m tests.torture inputs
	$(BIN)/python -m tests.torture endurance

page: .venv/installed-dev .venv/project fer_jax/web/source/node_modules
	$(BIN)/python -m fer_jax.web.build

# The page's parts, as pinned; the only step that needs a network.
fer_jax/web/source/node_modules: fer_jax/web/source/package-lock.json
	npm ci --prefix fer_jax/web/source --ignore-scripts --no-audit --no-fund
	@touch $@

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fer_jax needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "installing the packages of requirements.txt into .venv: some 1 GB"
	$(PIP) -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	@echo "installing the packages of requirements-dev.txt into .venv"
	$(PIP) -r requirements-dev.txt
	@touch $@

# The command fer-jax, and `import fer_jax` from any folder. Changes in the code need no new installation.
.venv/project: .venv/installed pyproject.toml
	$(PIP) --quiet --no-deps --editable .
	@touch $@

# PyTorch, for the benchmarks alone
.venv-bench/installed: requirements-bench.txt
	$(PYTHON) -m venv .venv-bench
	@echo "installing PyTorch into .venv-bench: several GB on Linux"
	.venv-bench/bin/pip --disable-pip-version-check install -r requirements-bench.txt
	@touch $@

clean:
	rm -rf .venv .venv-bench sample experiments/sample
