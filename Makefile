# Every verb sets itself up from a fresh clone with nothing but Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup train test stress check format sbx bench
setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Covary needs Python >= 3.11; $(PYTHON) is older. Fix: make PYTHON=python3.11 setup"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	@touch $@

# Trains the two-angle task with PPO and a full covariance; a new folder under runs/ each time.
train: setup
	$(BIN)/python examples/heliostat.py

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The long studies that `make test` leaves out, and every trial of reliability at its full size.
stress: setup
	$(BIN)/python -m pytest -m slow
	$(BIN)/python bench/reliability.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Peers that bring dependencies of their own, in an environment of their own, over the same versions of what they share.
sbx: .venv-sbx/ready

.venv-sbx/ready: .venv/ready
	test -x .venv-sbx/bin/python || $(PYTHON) -m venv .venv-sbx
	$(BIN)/python -m pip freeze | grep -E '^(gymnasium|mujoco|numpy|stable_baselines3)==' > .venv-sbx/shared.txt
	.venv-sbx/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-sbx/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c .venv-sbx/shared.txt \
		stable-baselines3 'gymnasium[mujoco]' sbx-rl==0.28.0
	@touch $@

# The published numbers: the time of training beside other libraries, then every row of the table of returns.
bench: setup sbx
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/returns.py
