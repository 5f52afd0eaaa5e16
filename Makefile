# Every target makes its own .venv on a fresh machine. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve serve-both test lint models clean

serve: $(VENV)/serve.stamp  ## The service with the bundled model on http://localhost:8000
	$(BIN)/fourstep up

serve-both: $(VENV)/serve.stamp  ## The same with the teacher beside the student, to compare them in the playground
	$(BIN)/fourstep up models/emoji-student models/emoji-teacher

test: lint  ## The whole suite
	$(BIN)/pytest

lint: $(VENV)/test.stamp  ## Style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models: $(VENV)/test.stamp  ## Make the bundled models again from the artwork (hours; needs npm)
	$(BIN)/python -m distill.emoji --work build/emoji
	$(BIN)/fourstep distill train --config distill/configs/emoji.yaml --run build/emoji/student --out models/emoji-student

$(VENV)/serve.stamp: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[worker]'
	touch $@

$(VENV)/test.stamp: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/serve.stamp

clean:
	rm -rf $(VENV) build
