"""What the notebooks draw: the right numbers, in colours and dashes that differ, and honest about the stand-in."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from cs231n import plots

CIFAR, STAND_IN = {"name": "CIFAR-10"}, {"name": "Shapes10"}
NOTE = "(drawn from the stand-in Shapes10, not from CIFAR-10)"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def data(name="CIFAR-10"):
    X = np.zeros((20, 3, 32, 32), np.float32)
    y = np.arange(20) % 10
    return {"name": name, "X_train": X, "y_train": y, "mean_image": X[0], "class_names": tuple("abcdefghij")}


def title(fig):
    return fig.get_suptitle()


def solver():
    return SimpleNamespace(loss_history=[2.0, 1.0], train_acc_history=[0.1, 0.5], val_acc_history=[0.2, 0.4])


@pytest.mark.parametrize(
    "draw",
    [
        lambda d: plots.training({"sgd": solver()}, d),
        lambda d: plots.images(np.zeros((2, 3, 4, 4)), None, d),
        lambda d: plots.filters(np.ones((2, 3, 4, 4)), d),
        lambda d: plots.confusion(np.arange(10), np.arange(10), d),
    ],
    ids=["training", "images", "filters", "confusion"],
)
def test_every_figure_drawn_from_the_stand_in_says_so(draw):
    assert NOTE in title(draw(data("Shapes10")))
    assert NOTE not in title(draw(data()))


def test_the_note_is_below_the_title():
    fig, _ = plots.figure(data=STAND_IN, title="Curves")
    assert title(fig) == f"Curves\n{NOTE}"


def test_lines_differ_in_colour_and_in_dash():
    _, ax = plots.figure()
    plots.curves(ax, {name: [0, 1] for name in "abcd"})
    assert len({line.get_color() for line in ax.lines}) == len({line.get_linestyle() for line in ax.lines}) == 4


def test_a_legend_is_drawn_where_there_are_several_lines():
    _, (one, two, none) = plots.figure(1, 3)
    plots.curves(one, {"a": [0, 1]})
    plots.curves(two, {"a": [0, 1], "b": [1, 0]}, xlabel="step", ylabel="loss")
    plots.curves(none, {"a": [0, 1], "b": [1, 0]}, legend=False)
    assert one.get_legend() is none.get_legend() is None
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["a", "b"]
    assert (two.get_xlabel(), two.get_ylabel()) == ("step", "loss")


def test_training_draws_accuracies_in_percent_over_one_legend():
    fig = plots.training({"sgd": solver(), "adam": solver()}, CIFAR)
    _, train, val = fig.axes
    assert train.lines[0].get_ydata().tolist() == [10.0, 50.0]
    assert val.lines[1].get_ydata().tolist() == [20.0, 40.0]
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sgd", "adam"]


def test_smooth_is_the_mean_of_the_last_few_worked_by_hand():
    assert plots.smooth([1, 2, 3], 50).tolist() == [1, 2, 3]  # a tenth of 3 is less than one: no smoothing
    values = np.arange(20.0)
    assert plots.smooth(values, 50).tolist() == [0.0, *(values[1:] - 0.5)]  # a tenth of 20: the mean of two
    assert plots.smooth(np.ones(100), 5).tolist() == [1.0] * 100


def test_pictures_keep_their_colours_and_are_clipped():
    picture = np.zeros((1, 3, 2, 2))
    picture[0, 0], picture[0, 2] = 300, -5
    fig = plots.images(picture, ["red"])
    (drawn,) = fig.axes[0].images
    assert drawn.get_array()[0, 0].tolist() == [255, 0, 0]
    assert fig.axes[0].get_title() == "red"


def test_filters_show_0_as_grey_and_their_largest_weight_at_the_end():
    weights = np.zeros((1, 3, 2, 2))
    weights[0, 0, 0, 0], weights[0, 1, 0, 0] = 0.2, -0.1
    (drawn,) = plots.filters(weights).axes[0].images
    assert drawn.get_array()[0, 0].tolist() == [255, 63, 127]
    assert drawn.get_array()[1, 1].tolist() == [127, 127, 127]


def test_samples_draws_a_class_a_row():
    X = np.broadcast_to(25.0 * (np.arange(100) % 10)[:, None, None, None], (100, 3, 32, 32))
    d = {**data("Shapes10"), "X_train": X, "y_train": np.arange(100) % 10}
    fig = plots.samples(d)
    assert NOTE in title(fig)
    axes = np.reshape(fig.axes, (10, 10))
    for label, row in enumerate(axes):
        assert row[0].get_ylabel() == d["class_names"][label]
        assert {int(ax.images[0].get_array()[0, 0, 0]) for ax in row} == {25 * label}


def test_confusion_is_in_percent_of_the_true_class_worked_by_hand():
    true, predicted = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 2, 1])
    ax, *_ = plots.confusion(true, predicted, data()).axes
    percent = ax.images[0].get_array()
    assert percent[0, 0] == 75
    assert percent[0, 2] == 25
    assert percent[1, 1] == 100
    assert percent[3:].sum() == 0  # a class without an example is no division by zero
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_colours_are_those_of_okabe_and_ito():
    assert plots.COLORS == ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def test_a_dead_filter_is_grey():
    (drawn,) = plots.filters(np.zeros((1, 3, 2, 2))).axes[0].images
    assert (drawn.get_array() == 127).all()


def test_a_band_is_the_mean_and_one_standard_deviation():
    _, ax = plots.figure()
    plots.band(ax, {"keep 0.5": np.array([[1.0, 2.0], [3.0, 2.0]])})
    assert ax.lines[0].get_ydata().tolist() == [2.0, 2.0]
    (path,) = ax.collections[0].get_paths()
    assert {tuple(point) for point in path.vertices.tolist()} >= {(0, 1), (0, 3), (1, 2)}


def test_dots_are_all_values_and_the_bar_is_their_mean():
    _, ax = plots.figure()
    assert plots.dots(ax, {"sgd": [1.0, 1.0, 4.0], "adam": np.array([5])}, ylabel="loss", title="t") is ax
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 1, 4], [5]]
    assert len(set(ax.lines[0].get_xdata())) == 3  # equal values do not hide each other
    bars = [bar.get_segments()[0] for bar in ax.collections]
    assert [set(bar[:, 1]) for bar in bars] == [{2.0}, {5.0}]
    assert [bar[:, 0].mean() for bar in bars] == [0, 1]
    assert [line.get_color() for line in ax.lines] == list(plots.COLORS[:2])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["sgd", "adam"]
    assert (ax.get_ylabel(), ax.get_title()) == ("loss", "t")


def test_dots_have_long_labels_in_several_lines():
    _, ax = plots.figure()
    plots.dots(ax, {"half of the units dropped": [1.0], "two lines\nthat are given": [1.0]})
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        "half of the\nunits dropped",
        "two lines\nthat are given",
    ]


@pytest.mark.parametrize(("draw", "shape"), [(plots.dots, (2, 3)), (plots.dots, (0,)), (plots.band, (3,))])
def test_values_of_another_shape_are_named(draw, shape):
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=r"wanted values of shape \(n.*, got .* for 'adam'$"):
        draw(ax, {"adam": np.zeros(shape)})


@pytest.mark.parametrize("alt", ["", " \n", None])
def test_a_figure_without_an_alternative_text_is_not_shown(alt):
    plots.figure()
    with pytest.raises(ValueError, match=r"^alt: wanted a text that says what the figure shows"):
        plots.show(alt)


def test_outside_of_a_notebook_show_is_that_of_pyplot(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    plots.figure()
    plots.show("a figure")
    assert (shown, plt.get_fignums()) == ([[1]], [])


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_count_that_cannot_be_is_named(count):
    pictures = np.zeros((2, 3, 4, 4))
    for name, draw in (
        ("window", lambda: plots.smooth([1, 2, 3], window=count)),
        ("cols", lambda: plots.images(pictures, cols=count)),
        ("cols", lambda: plots.filters(pictures, cols=count)),
        ("per_class", lambda: plots.samples({}, per_class=count)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: wanted a whole number of at least 1, got {count}$"):
            draw()


NODES = {"x": (0, 0, ""), "out": (2, 1, "2 x")}


def test_a_graph_has_a_box_for_each_node_and_an_arrow_from_one_to_the_other():
    _, ax = plots.figure()
    plots.graph(ax, NODES, {("x", "out"): "slope"})
    texts = [text for text in ax.texts if text.get_text()]
    assert [text.get_text() for text in texts] == ["$\\bf{x}$", "$\\bf{out}$\n2 x", "slope"]
    (arrow,) = [text.arrow_patch for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert arrow.patchA is texts[0].get_bbox_patch()
    assert arrow.patchB is texts[1].get_bbox_patch()


def test_sizes_by_layer_draws_the_first_layer_at_the_top_and_each_peak_at_its_size():
    _, ax = plots.figure()
    plots.sizes_by_layer(ax, [np.full((3, 4), -10.0), np.array([0.0, 1e-3])], predicted=[10, 1e-3])
    lowest, highest = ax.get_ylim()
    assert highest < 1 < 2 < lowest
    peaks = [path.vertices[path.vertices[:, 1].argmin()] for band in ax.collections for path in band.get_paths()]
    np.testing.assert_allclose([peak[0] for peak in peaks], [1, -3], atol=0.13)  # the bins are an eighth wide
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 1], [-3, 2]])


def test_marked_cells_are_shaded_and_the_chosen_one_is_darker():
    _, ax = plots.figure()
    plots.marked_cells(ax, np.array([[True, True], [False, True]]), (0, 0))
    np.testing.assert_array_equal(ax.collections[0].get_array(), [[2, 1], [0, 1]])
    assert ax.yaxis_inverted()


def test_an_image_table_labels_rows_and_columns():
    rows = {"bright": np.stack([np.full((3, 4, 4), value) for value in (300.0, 90.0)]), "dark": np.zeros((2, 3, 4, 4))}
    fig = plots.image_table(rows, ["a", "b"], STAND_IN)
    assert title(fig) == NOTE
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "", ""]
    assert [fig.axes[i].get_ylabel() for i in (0, 2)] == ["bright", "dark"]
    assert [ax.images[0].get_array().max() for ax in fig.axes] == [255, 90, 0, 0]
    with pytest.raises(ValueError, match="wanted 1 images, one for each title, got 2 for 'bright'"):
        plots.image_table(rows, ["a"])


def test_a_matrix_has_a_tinted_cell_with_its_number_for_each_entry():
    _, ax = plots.figure()
    plots.matrix(ax, np.array([[1, 2, 3], [4, 5, 6]]), left=10, top=20, tints=np.array([[0, 1, 0], [0, 0, 2]]))
    cells = {cell.get_xy(): cell.get_facecolor() for cell in ax.patches}
    assert cells.keys() == {(10 + j, 20 + i) for i in range(2) for j in range(3)}
    assert cells[11, 20] == to_rgba(plots.TINTS[1])
    assert cells[12, 21] == to_rgba(plots.TINTS[2])
    assert cells[10, 20] == to_rgba("white")
    assert {text.get_position(): text.get_text() for text in ax.texts}[12.5, 21.5] == "6"


def test_bars_have_their_values_and_marks_in_the_order_of_the_rows():
    _, ax = plots.figure()
    plots.bars(ax, {"a": (1, 2), "b": (3, 4)}, ("forward", "backward"), marks={"b": (5, 6)})
    assert [bar.get_width() for bar in ax.patches] == [1, 3, 2, 4]
    assert [float(text.get_text()) for text in ax.texts] == [1, 3, 2, 4]
    assert [line.get_xdata()[0] for line in ax.lines] == [5, 6]
    assert [text.get_position()[0] for text in ax.texts] == [1, 5, 2, 6]  # beyond the marks
    places = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert np.allclose([np.mean(line.get_ydata()) for line in ax.lines], [places[1], places[3]])
    bottom, top = ax.get_ylim()
    assert top < places[0] < places[1] < bottom
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["forward", "backward"]


def test_a_table_of_maps_shows_each_with_a_scale_of_its_own_and_pictures_as_they_are():
    faint, strong = np.eye(3), 1000 * np.eye(3)
    fig = plots.map_table({"picture": [np.full((3, 4, 4), 300.0)] * 2, "map": [faint, strong]}, ["a", "b"], STAND_IN)
    assert title(fig) == NOTE
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "", ""]
    assert [fig.axes[i].get_ylabel() for i in (0, 2)] == ["picture", "map"]
    assert fig.axes[0].images[0].get_array().max() == 255
    assert [ax.images[0].get_clim() for ax in fig.axes[2:]] == [(0, 1), (0, 1000)]
