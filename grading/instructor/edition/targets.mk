test: $(SET_UP) ## run every test: those of the exercises fail until these are right
	@$(VENV_PYTHON) -m pytest tests $(PARALLEL) $(TEST_ARGS)

.PHONY: update reset
update: $(SET_UP) ## apply a corrected edition, keep what you wrote: make update FROM="new.zip"
	@$(VENV_PYTHON) -m grading.update "$$FROM"

reset: $(SET_UP) ## open an exercise again, keep the old text beside it: make reset EXERCISE=2.3
	@$(VENV_PYTHON) -m grading.reset "$$EXERCISE"
