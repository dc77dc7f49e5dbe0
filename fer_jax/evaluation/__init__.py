"""The evaluation of predictions: metrics, intervals, calibration, comparisons."""
