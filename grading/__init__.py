"""The exercises of the course and their grading: `make grade`, or `%load_ext grading` and `%grade 1.1`.

From the grader to the learner's code and back:

    exercises.toml   exercises.py reads it: which functions, which checks, which points
          |
    grade.py         for each part of an exercise, calls its check with a Learner  (also from magic.py: %grade)
          |
    checks/*.py      learner.layers.affine_forward(x, w, b): expect.py compares what comes back with PyTorch's result;
          |          hints.py adds a question that leads on, from questions.toml, and the mistake
          |
    session.py       Learner, RemoteFunction, RemoteObject: a call becomes a message; time limits
          |  pipe
    child.py         another process: decodes the message, calls, encodes the result (objects stay, and go by number)
          |
    cs231n/*.py      the learner's code, with stubs in place of the functions of other exercises that it uses; models
                     that record what they are asked come from drivers.py

Four exercises are files of data, three nets and an ablation: hand_ins.py reads them for their checks, and no code of a
learner runs.

A stub sends its arguments back through the same pipe, and session.py passes them on to a second process of child.py,
which has the correct functions: those of substitutes.py, or of the reference.

oracle.py gives the checks PyTorch.  In a browser there is none, and no other process: there oracle.py replays what
PyTorch gave at release, from expected.npz, and in_place.py runs the learner's code in this process, without stubs.

rules.py says what the learner's code may do there, and raises an error in the line that does something else.

progress.py (`make progress`, `%progress`) counts the points of each notebook and names the next exercise.

display.py shows what magic.py has to say as tables, where HTML is shown.

update.py (`make update`) applies a corrected edition to a copy, and reset.py (`make reset`) puts an exercise back.
edition.py reads editions, and the record of what was given; merge.py merges files; notebooks.py reads notebooks.

instructor/ is not part of the student edition.  There, sandbox.py starts both processes with restricted rights.
"""


def load_ipython_extension(ipython):
    """Register `%grade`, `%hint` and `%progress`."""
    from grading.magic import grade, hint, progress  # here, since grading.magic imports other modules of this package

    for magic in (grade, hint, progress):
        ipython.register_magic_function(magic)
