"""Figures for the notebooks: curves, image grids, filters and confusion matrices.

The colours are those of Okabe and Ito, chosen to be distinguishable to colour-blind readers; lines also differ in their
dashes.  A figure whose data is the stand-in, and not CIFAR-10, says so above its panels.
Source of the colours: Okabe and Ito, Color universal design, 2008.
"""

import html
import math
import textwrap
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cs231n.arguments import check_count
from cs231n.browser import IN_BROWSER, budget

# In a browser: figures at full size, as the notebooks had them; `make student` and `make lite` write them.
FULL_SIZE = Path(__file__).parents[1] / "notebooks/full_size"

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
TINTS = ("white", "#9BD0F0", "#F5C98A", "#8FD8BF", "#E8B9D3")  # of these colours, lightened


def figure(rows=1, cols=1, data=None, width=None, height=None, title=None):
    """A figure of rows x cols panels; returns it and its axes, as `plt.subplots` does.

    width, height: of one panel, in inches (None: 4.2 and 3.2).  title: of the whole figure.  data: the dict that the
    figure is drawn from, as `get_cifar10_data` returns it, of which only the name is used; with a stand-in's name, a
    note is added to the title.
    """
    width, height = width or 4.2, height or 3.2
    fig, axes = plt.subplots(rows, cols, figsize=(cols * width, rows * height), layout="constrained")
    heading = [] if title is None else [title]
    if data is not None and data["name"] != "CIFAR-10":
        heading.append(f"(drawn from the stand-in {data['name']}, not from CIFAR-10)")
    if heading:
        fig.suptitle("\n".join(heading), fontsize=11)
    return fig, axes


def curves(ax, lines, x=None, xlabel=None, ylabel=None, title=None, legend=True):
    """Draw several lines into ax, and return ax.

    lines: a dict from label to values (T,).  x (T,): shared by all lines (None: 0, 1, 2, ...).  xlabel, ylabel, title:
    of ax.  legend: add one if there are two lines or more.
    """
    for (label, values), color, dash in zip(lines.items(), cycle(COLORS), cycle(DASHES), strict=False):
        ax.plot(np.arange(len(values)) if x is None else x, values, dash, color=color, label=label, linewidth=1.8)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    if legend and len(lines) > 1:
        ax.legend(frameon=False)
    return ax


def band(ax, runs, x=None, xlabel=None, ylabel=None, title=None, legend=True):
    """Like `curves`, for repeated runs: draw their mean, in a band of one standard deviation to either side.

    runs: a dict from label to values (n, T) of n runs.  The standard deviation is over n, not n - 1.  Returns ax.
    Raises ValueError for values of another shape.
    """
    runs = {label: _of_runs("runs", label, values, 2) for label, values in runs.items()}
    for values, color in zip(runs.values(), cycle(COLORS), strict=False):
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
        steps = np.arange(len(mean)) if x is None else x
        ax.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    means = {label: np.mean(values, axis=0) for label, values in runs.items()}
    return curves(ax, means, x, xlabel, ylabel, title, legend)


def dots(ax, results, ylabel=None, title=None):
    """Draw a dot for each repeated run, and a bar at their mean, in one column for each label; return ax.

    results: a dict from label to the values (n,) of n runs, such as `experiments.over_seeds` returns.  ylabel, title:
    of ax.  The dots of a column are spread sideways, in their order, so that equal values stay visible.
    Raises ValueError for values of another shape.
    """
    for column, ((label, values), color) in enumerate(zip(results.items(), cycle(COLORS), strict=False)):
        values = _of_runs("results", label, values, 1)
        spread = 0.12 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(column + spread, values, "o", color=color, alpha=0.7, markersize=5)
        ax.hlines(values.mean(), column - 0.3, column + 0.3, color=color, linewidth=2.5)
    ax.set_xticks(range(len(results)), [_in_lines(label) for label in results])
    ax.set(xlim=(-0.6, len(results) - 0.4), ylabel=ylabel, title=title)
    ax.grid(axis="y", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _in_lines(label):
    """A label in lines of 14 characters, so that it fits below its column, unless it has lines already."""
    return label if "\n" in label else textwrap.fill(label, 14)


def _of_runs(name, label, values, ndim):
    """The values of n repeated runs as an array of ndim dimensions; raises ValueError, naming it, for any other."""
    values = np.asarray(values, float)
    if values.ndim != ndim or not len(values):
        wanted = {1: "(n,)", 2: "(n, T)"}[ndim]
        raise ValueError(f"{name}: wanted values of shape {wanted}, one run at least, got {values.shape} for {label!r}")
    return values


def show(alt):
    """Show the current figure with a text for those who cannot see it, and close it.

    alt: says what the figure shows, and what is to be seen there.  In a notebook it becomes the alternative text of the
    picture, in JupyterLab and in the HTML of nbconvert.  Elsewhere this is `plt.show()`.
    Raises ValueError for an alt without text.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt: wanted a text that says what the figure shows, got {alt!r}")
    if "inline" in plt.get_backend():
        _display(plt.gcf(), budget("", "At full size: ") + " ".join(alt.split()))
    else:
        plt.show()
    plt.close()


def at_full_size(name=None):
    """Whether experiments have their full size; where they do not, a line says that their claims are not checked.

    name: of a file in FULL_SIZE, the figure at full size; below that line, it is shown.
    """
    if IN_BROWSER:
        print("In a browser, sizes are smaller: what the text says of the full size is not checked.")  # noqa: T201
        file = FULL_SIZE / f"{name}.html"
        if file.exists():
            shown = file.read_text(encoding="utf-8")
            _publish({"text/html": f"At full size:<br>{shown}", "text/plain": f"{name}, at full size"}, {})
    return not IN_BROWSER


def _display(fig, alt):
    """Publish a figure as the output of a notebook's cell.

    nbconvert takes the text of a PNG from its metadata.  JupyterLab, 4.6, does not: it shows the HTML.
    """
    from IPython.core.pylabtools import print_figure  # here: only a notebook has it

    png = print_figure(fig, base64=True)
    shown = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
    _publish({"image/png": png, "text/html": shown, "text/plain": repr(fig)}, {"image/png": {"alt": alt}})


def _publish(data, metadata):
    """Publish an output of a notebook's cell in several formats."""
    from IPython.display import display  # here: only a notebook has it

    display(data, metadata=metadata, raw=True)


def training(solvers, data, title=None):
    """Draw the training loss, the training accuracy and the validation accuracy, each in a panel, over one legend.

    solvers: a dict from label to a trained Solver.  data, title: as for `figure`.  The loss is smoothed by `smooth`,
    the accuracies are in percent.  Returns the figure.
    """
    fig, (loss, train, val) = figure(1, 3, data, width=3.3, height=2.8, title=title)
    losses = {label: smooth(s.loss_history) for label, s in solvers.items()}
    curves(loss, losses, None, "step", "loss, smoothed", legend=False)
    for ax, name in ((train, "train_acc_history"), (val, "val_acc_history")):
        accuracies = {label: 100 * np.array(getattr(s, name)) for label, s in solvers.items()}
        curves(ax, accuracies, None, "epoch", f"{name.split('_')[0]} accuracy (%)", legend=False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    val.sharey(train)
    fig.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=len(solvers), frameon=False)
    return fig


def smooth(values, window=50):
    """The running mean of values (T,): out[t] is the mean of the last k values up to t, or of all where t + 1 < k.

    k is window, or a tenth of T if that is less, and at least 1.  Returns (T,) float64.
    """
    check_count("window", window, 1)
    values = np.asarray(values, float)
    window = max(1, min(window, len(values) // 10))
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (sums[last] - sums[first]) / (last - first)


def images(pictures, titles=None, data=None, cols=10, size=1.0, title=None):
    """A grid of images; returns the figure.

    pictures (N, 3, H, W), of any numeric dtype, in 0 to 255; values outside are clipped.  titles: N strings, one above
    each image (None: no titles).  data, title: as for `figure`.  cols: images in a row.  size: width of one, in inches.
    """
    check_count("cols", cols, 1)
    rows = math.ceil(len(pictures) / cols)
    height = size * (1.3 if titles is not None else 1.05)
    fig, axes = figure(rows, cols, data, size, height, title)
    for ax in np.ravel(axes):
        ax.axis("off")
    for i, (ax, picture) in enumerate(zip(np.ravel(axes), pictures, strict=False)):
        _show(ax, picture)
        if titles is not None:
            ax.set_title(titles[i], fontsize=7.5, pad=2)
    return fig


def samples(data, per_class=10):
    """A grid with the first per_class training images of each class, one class per row; returns the figure.

    data: as `get_cifar10_data` returns it; its mean_image is added to the images.
    """
    check_count("per_class", per_class, 1)
    names = data["class_names"]
    fig, axes = figure(len(names), per_class, data, 0.75, 0.75)
    for label, row in enumerate(axes):
        chosen = np.flatnonzero(data["y_train"] == label)[:per_class]
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, picture in zip(row, data["X_train"][chosen] + data["mean_image"], strict=False):
            _show(ax, picture)
        row[0].set_ylabel(names[label], rotation=0, ha="right", va="center", fontsize=9)
    return fig


def filters(weights, data=None, cols=16, title=None):
    """A grid of filters drawn as images; returns the figure.

    weights (N, 3, H, W), float.  Each filter is scaled by its largest magnitude m: -m, 0 and m become 0, 127.5 (grey)
    and 255.  data, title: as for `figure`.  cols: filters in a row.
    """
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    return images(127.5 * (1 + weights / np.where(largest, largest, 1)), None, data, cols, 0.62, title)


def _show(ax, picture):
    """Draw a picture (3, H, W), in 0 to 255, into ax."""
    ax.imshow(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0), interpolation="nearest")


def confusion_matrix(y_true, y_predicted, num_classes):
    """counts[i, j]: how many examples of class i were predicted to be of class j.

    y_true, y_predicted (N,): integers from 0 to num_classes - 1.  Returns counts (num_classes, num_classes) int64.
    Raises IndexError for a class of num_classes or more.
    """
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (y_true, y_predicted), 1)
    return counts


def confusion(y_true, y_predicted, data, title=None):
    """Draw the confusion matrix in percent of each true class: rows are true classes, columns predicted ones.

    y_true, y_predicted (N,): integers.  data: as for `figure`; its class_names label the axes.  Returns the figure.
    """
    names = data["class_names"]
    counts = confusion_matrix(y_true, y_predicted, len(names))
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    fig, ax = figure(1, 1, data, 6.2, 5.4, title)
    mesh = ax.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    for i, j in np.ndindex(percent.shape):
        ax.text(
            j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color="black" if percent[i, j] > 50 else "white"
        )
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true")
    fig.colorbar(mesh, ax=ax, label="% of the true class", shrink=0.8)
    return fig


def graph(ax, nodes, arrows):
    """Draw a computational graph into ax, and return ax.

    nodes: a dict from name to (column, row, formula); the name is written in bold above its formula ("" for none).
    arrows: a dict from (start, end), names of nodes, to a label such as the slope along the arrow.
    """
    columns, rows, _ = zip(*nodes.values(), strict=True)
    ax.set(xlim=(min(columns) - 0.3, max(columns) + 0.3), ylim=(min(rows) - 0.4, max(rows) + 0.3))
    ax.axis("off")
    centred = {"ha": "center", "va": "center", "fontsize": 10}
    frame = {"boxstyle": "round,pad=0.35", "facecolor": "#E6F1F8", "edgecolor": COLORS[0]}
    boxes = {}
    for name, (column, row, formula) in nodes.items():
        text = f"$\\bf{{{name}}}$" + (f"\n{formula}" if formula else "")
        boxes[name] = ax.text(column, row, text, bbox=frame, **centred).get_bbox_patch()
    ax.figure.canvas.draw()  # sets the sizes of the boxes, so that the arrows can end at their edges
    for (start, end), label in arrows.items():
        a, b = np.array(nodes[start][:2]), np.array(nodes[end][:2])
        line = {"arrowstyle": "-|>", "color": "grey", "linewidth": 1.5, "shrinkA": 0, "shrinkB": 1}
        ax.annotate("", b, a, arrowprops=line | {"patchA": boxes[start], "patchB": boxes[end]})
        white = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
        ax.text(*(0.52 * a + 0.48 * b), label, bbox=white, color=COLORS[1], **centred)
    return ax


def sizes_by_layer(ax, layers, predicted=None, title=None, color=COLORS[0], decades=(-7, 6)):
    """Draw a histogram of log10 |a| for each layer, the first at the top; return ax.

    layers: an array of any shape for each layer.  predicted: a positive number for each layer, drawn as a black dot
    (None: no dots).  decades: the powers of ten where the axis begins and ends; what is smaller or larger is left out.
    title, color: of ax, of the histograms.
    """
    edges = np.linspace(*decades, 105)
    for layer, a in enumerate(layers, start=1):
        sizes = np.abs(a[a != 0])
        heights, _ = np.histogram(np.log10(sizes), edges)
        ax.fill_between(edges[:-1], layer - 1.2 * heights / max(heights.max(), 1), layer, color=color, alpha=0.7)
    if predicted is not None:
        ax.plot(np.log10(predicted), np.arange(1, len(layers) + 1), "k.")
    ticks = range(3 * math.ceil(decades[0] / 3), decades[1] + 1, 3)
    ax.set_xticks(ticks, ["1" if tick == 0 else f"1e{tick}" for tick in ticks])
    ax.set_yticks(range(1, len(layers) + 1))
    ax.set(title=title, xlim=decades)
    ax.invert_yaxis()
    return ax


def marked_cells(ax, marked, chosen, title=None):
    """Draw a table of cells (rows, columns), row 0 at the top, with those where marked is true in blue; return ax.

    chosen: the (row, column) of one cell that is darker.  title: of ax.
    """
    shade = np.where(marked, 1, 0)
    shade[chosen] = 2
    ax.pcolormesh(shade, cmap=ListedColormap(["white", COLORS[5], COLORS[0]]), edgecolors="grey", vmin=0, vmax=2)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    ax.invert_yaxis()
    return ax


def image_table(rows, titles, data=None, size=1.3):
    """A table of images, as many in each row as there are titles; returns the figure.

    rows: a dict from the label of a row to its images (N, 3, H, W), in 0 to 255; values outside are clipped.  titles: N
    strings, above the first row.  data: as for `figure`.  size: width of an image, in inches.
    Raises ValueError for a row of another length.
    """
    for label, pictures in rows.items():
        if len(pictures) != len(titles):
            raise ValueError(
                f"rows: wanted {len(titles)} images, one for each title, got {len(pictures)} for {label!r}"
            )
    return map_table(rows, titles, data, size)


def matrix(ax, numbers, left=0, top=0, tints=None, title=None):
    """Draw a matrix as a table of its numbers, row 0 at the top, into ax; return ax.

    numbers: (rows, columns), shown as whole numbers.  left, top: the place of its corner; a cell is 1 x 1, and the y of
    ax grows downwards.  tints: of the shape of numbers, indices of TINTS (None: white).  title: a text above it.
    """
    for (i, j), number in np.ndenumerate(numbers):
        tint = TINTS[0 if tints is None else tints[i, j]]
        ax.add_patch(Rectangle((left + j, top + i), 1, 1, facecolor=tint, edgecolor="grey"))
        ax.text(left + j + 0.5, top + i + 0.5, f"{number:.0f}", ha="center", va="center", fontsize=9)
    ax.text(left + np.shape(numbers)[1] / 2, top - 0.3, title or "", ha="center")
    return ax


def bars(ax, rows, parts, xlabel=None, marks=None):
    """Draw a group of horizontal bars for each of the rows, the first at the top, with their values; return ax.

    rows: a dict from label to values (P,), a bar for each.  parts: P labels, of the bars of a group.  marks: a dict as
    rows, of some of its labels, whose values are drawn as black lines across the bars (None: none).  xlabel: of ax.
    """
    height, marks = 0.8 / len(parts), marks or {}
    for k, (part, color, hatch) in enumerate(
        zip(parts, cycle((COLORS[5], COLORS[4])), cycle(("", "///")), strict=False)
    ):
        places = np.arange(len(rows)) + (k - (len(parts) - 1) / 2) * height
        values = [row[k] for row in rows.values()]
        ax.barh(places, values, height, color=color, hatch=hatch, edgecolor="white", label=part)
        for label, place, value in zip(rows, places, values, strict=True):
            mark = marks[label][k] if label in marks else value
            if label in marks:
                ax.plot([mark, mark], [place - height / 2, place + height / 2], color="black", linewidth=2.5)
            number = f"{value:.3g}" if value < 100 else f"{value:.0f}"
            ax.text(max(value, mark), place, f"  {number}", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    ax.spines[["top", "right"]].set_visible(False)
    if len(parts) > 1:
        ax.legend(frameon=False)
    return ax


def map_table(rows, titles=None, data=None, size=1.1):
    """A table of pictures and maps; returns the figure.

    rows: a dict from the label of a row to its entries, each a picture (3, H, W) in 0 to 255, or a map (H, W), which
    has a colour scale of its own, dark where it is least and bright where it is most.  titles: above the first row
    (None: none).  data: as for `figure`.  size: width of an entry, in inches.
    """
    columns = max(map(len, rows.values()))
    fig, axes = figure(len(rows), columns, data, size, size)
    axes = np.reshape(axes, (len(rows), columns))
    for line, (label, entries) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center")
        for ax in line[len(entries) :]:
            ax.axis("off")
        for ax, entry in zip(line, entries, strict=False):
            ax.set(xticks=[], yticks=[])
            if np.ndim(entry) == 3:
                _show(ax, entry)
            else:
                ax.imshow(entry, cmap="cividis", interpolation="nearest")
    for ax, text in zip(axes[0], titles or (), strict=False):
        ax.set_title(text, fontsize=9)
    return fig
