"""What the kernel of a browser runs before the first cell; PYTHONSTARTUP names this file (see website/lite.py)."""

__import__("grading.storage").storage.start(get_ipython())  # noqa: F821 - IPython's; no name stays for the learner
