"""Numbers at logarithmic axes."""

import pytest

from painn_fast.runtime.log_axis import plain_numbers


@pytest.mark.parametrize(
    ("low", "high", "some"),
    [
        (14.0, 21.0, {"16", "20"}),
        (77.0, 146.0, {"80", "100", "120", "140"}),
        (0.003, 0.04, {"0.01"}),
        (1.0, 2e3, {"1", "10", "1000"}),
    ],
)
def test_ticks_are_plain_numbers(low, high, some):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    axes.semilogy([0, 1], [low, high])
    plain_numbers(axes.yaxis)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_yticklabels(which="both") if label.get_text()]
    assert all(float(label) > 0 for label in labels)
    assert some <= set(labels)
