# Every target makes the virtual environment it needs: python3 (3.11 or newer) and pip are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: demo test check clean

# Users' environment: the package, plots and gymnasium's classic control.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[plot,classic]"
	touch $@

# Developers' environment: also tests, linters and type checker.
$(VENV)/developer: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,classic]"
	touch $@

# Train PPO on CartPole-v1, then play the learned policy in gymnasium's own environment.
demo: $(VENV)/installed
	rm -rf runs/demo
	$(BIN)/rlx train ppo CartPole-v1 --seeds 4 --out runs/demo
	$(BIN)/rlx eval runs/demo --gymnasium --episodes 100

# Everything.
test: $(VENV)/developer
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# The fast inner loop: format, lint, types, fast tests.
check: $(VENV)/developer
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

clean:
	rm -rf $(VENV) runs
