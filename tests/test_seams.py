"""CIEDE2000 against its published test data, and what counts as a seam."""

import numpy as np
import pytest

from noisette.seams import delta_e, lab, steps_across

SHARMA = """
50 2.6772 -79.7751 50 0 -82.7485 2.0425
50 3.1571 -77.2803 50 0 -82.7485 2.8615
50 2.8361 -74.0200 50 0 -82.7485 3.4412
50 -1.3802 -84.2814 50 0 -82.7485 1.0000
50 0 0 50 -1 2 2.3669
50 2.49 -0.001 50 -2.49 0.0009 7.1792
50 2.49 -0.001 50 -2.49 0.0011 7.2195
50 -0.001 2.49 50 0.0009 -2.49 4.8045
50 -0.001 2.49 50 0.0011 -2.49 4.7461
50 2.5 0 50 0 -2.5 4.3065
50 2.5 0 73 25 -18 27.1492
50 2.5 0 61 -5 29 22.8977
50 2.5 0 56 -27 -3 31.9030
50 2.5 0 50 3.1736 0.5854 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""  # Sharma, Wu and Dalal 2005, table 1


@pytest.mark.parametrize("line", SHARMA.strip().splitlines())
def test_ciede2000(line: str) -> None:
    numbers = np.array([float(word) for word in line.split()])
    for a, b in ((numbers[:3], numbers[3:6]), (numbers[3:6], numbers[:3])):
        assert float(delta_e(a, b)) == pytest.approx(numbers[6], abs=1e-4)


def test_lab_of_known_colours() -> None:
    assert lab(np.array([255, 255, 255])) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab(np.array([0, 0, 0])) == pytest.approx([0, 0, 0], abs=1e-6)
    assert lab(np.array([255, 0, 0])) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


def test_steps_are_counted_across_the_edge_only() -> None:
    colours = np.zeros((4, 5, 3), np.uint8)
    repaint = np.zeros((4, 5), np.bool_)
    repaint[1:3, 1:3] = True
    colours[repaint] = 255
    colours[0, 4] = (255, 0, 0)  # far from the mask
    assert steps_across(colours, repaint) == pytest.approx([100] * 8, abs=0.01)
    assert len(steps_across(colours, np.ones((4, 5), np.bool_))) == 0
