test: $(SET_UP) ## run every test: those of the exercises fail until these are right
	@$(VENV_PYTHON) -m pytest tests $(PARALLEL) $(TEST_ARGS)
