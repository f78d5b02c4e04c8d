"""Grade changes of the reference where there is no PyTorch: python without_torch.py RECORDING < changes.json.

The changes are a list of pairs: the id of an exercise, and a dict from module to source.  What is printed is a list of
the parts' results, [earned, hint, question, answer], for each of them.
"""

import json
import sys
import tempfile
from pathlib import Path

from grading.exercises import read
from grading.instructor import cut_code


class Blocker:
    """Lets `import torch` fail."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(recording):
    sys.meta_path.insert(0, Blocker())
    from grading import oracle  # here: it looks for PyTorch
    from grading.grade import ROOT, grade  # here: likewise
    from grading.in_place import new_session  # here: likewise

    oracle.machine.file = Path(recording)
    reference = {f"{module}.py": text for module, text in cut_code.modules(ROOT).items()}
    with tempfile.TemporaryDirectory() as folder, new_session() as session:
        package = Path(folder, "cs231n")
        package.mkdir()
        for id, changes in json.load(sys.stdin):
            for name, text in (reference | changes).items():
                (package / name).write_text(text)
            results = grade(read()[0][id], session, package.parent)
            print(json.dumps([[r.earned, r.hint, r.question, r.answer] for r in results]))


if __name__ == "__main__":
    main(sys.argv[1])
