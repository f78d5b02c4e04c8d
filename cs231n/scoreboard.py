"""The scoreboard of the course: the accuracy and the training time of each notebook's best net, for each data set.

It is kept in data/scoreboard.json, which git ignores.  A notebook's latest run replaces its earlier one.
"""

import logging

from cs231n.arguments import check_number
from cs231n.cifar10 import project_data_dir
from cs231n.files import read_json, write_json

logger = logging.getLogger(__name__)

FILE = project_data_dir() / "scoreboard.json"
ROWS = {"fully connected": "01", "batch norm": "02", "dropout": "03", "convolutional": "04", "residual": "05"}


def record(name, accuracy, seconds, data):
    """Write the result of a notebook's best net on the scoreboard, in place of an earlier one.

    name: "fully connected", "batch norm", "dropout", "convolutional" or "residual".  accuracy: on the validation set,
    from 0 to 1.  seconds: of training.  data: as `get_cifar10_data` returns it, of which only the name is used.
    Several processes may record at once.  A file that is damaged is replaced, and one that cannot be written is left;
    the log says so, and nothing is raised.
    Raises ValueError for any other name, accuracy or time.
    """
    from filelock import FileLock  # here: 35 ms of start-up

    if name not in ROWS:
        raise ValueError(f"name: wanted one of {', '.join(ROWS)}, got {name!r}")
    result = {"accuracy": check_number("accuracy", accuracy, 1), "seconds": check_number("seconds", seconds)}
    try:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(FILE.with_suffix(".lock")):
            tables = _read()
            tables.setdefault(str(data["name"]), {})[name] = result
            write_json(FILE, tables)
    except OSError as error:
        logger.warning("The scoreboard could not be written, and %s is not on it: %s", name, error)


def show(data):
    """Print the scoreboard of one data set: five rows, of which those that were not run say so.

    data: as `get_cifar10_data` returns it, of which only the name is used.
    """
    print("\n".join(_lines(str(data["name"]))))  # noqa: T201 - this is what it is for


def _lines(dataset):
    results = _read().get(dataset, {})
    yield f"{dataset:18s} notebook   validation accuracy   training"
    for name, notebook in ROWS.items():
        if name in results:
            accuracy, seconds = results[name]["accuracy"], results[name]["seconds"]
            yield f"{name:18s}    {notebook}    {100 * accuracy:12.1f} %  {seconds:14.0f} s"
        else:
            yield f"{name:18s}    {notebook}         not run yet"


def _read():
    """Data set -> name -> result, as far as they are known; a damaged file counts as empty."""
    try:
        tables = read_json(FILE)
        return {
            str(dataset): {
                name: {key: check_number(key, result[key]) for key in ("accuracy", "seconds")}
                for name, result in results.items()
            }
            for dataset, results in tables.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("The scoreboard %s is damaged, and counts as empty: %s", FILE.name, error)
        return {}
