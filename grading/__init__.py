"""The exercises of the course and their grading: `make grade`, or `%load_ext grading` and `%grade 1.1`."""


def load_ipython_extension(ipython):
    from grading.magic import grade

    ipython.register_magic_function(grade)
