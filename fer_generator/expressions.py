"""The muscle movements of a face that shows an emotion, as action units of the Facial Action Coding System.

After Ekman and Friesen, Facial Action Coding System, 1978, and EMFACS; reduced to what 48x48 pixels can show.
"""

from types import SimpleNamespace

import numpy as np

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

ACTION_UNITS = (
    "inner_up",  # AU1, inner brows raised
    "outer_up",  # AU2, outer brows raised
    "lower",  # AU4, brows lowered and drawn together
    "wide",  # AU5, upper lids raised
    "cheeks",  # AU6, cheeks raised, eyes narrowed from below
    "wrinkle",  # AU9, nose wrinkled
    "upper_lip",  # AU10, upper lip raised
    "smile",  # AU12, mouth corners pulled up
    "smirk",  # AU14 on one side, that mouth corner tightened and pulled up
    "frown",  # AU15, mouth corners pulled down
    "chin",  # AU17, chin raised
    "stretch",  # AU20, mouth stretched sideways
    "press",  # AU24, lips pressed
    "teeth",  # AU25, lips parted over the teeth
    "jaw",  # AU26, jaw dropped
    "droop",  # AU43, upper lids lowered
)

# Two ways to show each emotion at full intensity, reserved and open; a face lies somewhere between them.
EXPRESSIONS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "neutral": ({}, {"jaw": 0.1}),
    "happiness": (
        {"smile": 0.8, "cheeks": 0.6, "teeth": 0.2},
        {"smile": 1, "cheeks": 1, "jaw": 0.45, "teeth": 1},
    ),
    "surprise": (
        {"inner_up": 0.9, "outer_up": 0.9, "wide": 0.7, "jaw": 0.5},
        {"inner_up": 1, "outer_up": 1, "wide": 1, "jaw": 1},
    ),
    "sadness": (
        {"inner_up": 0.9, "lower": 0.3, "frown": 0.8, "chin": 0.8, "droop": 0.7},
        {"inner_up": 1, "lower": 0.4, "frown": 1, "chin": 0.5, "droop": 0.5, "jaw": 0.2, "stretch": 0.2},
    ),
    "anger": (
        {"lower": 1, "wide": 0.3, "press": 1, "frown": 0.3, "chin": 0.3},
        {"lower": 1, "wide": 0.4, "jaw": 0.5, "teeth": 1, "upper_lip": 0.3, "stretch": 0.3},
    ),
    "disgust": (
        {"lower": 0.6, "wrinkle": 1, "upper_lip": 0.7, "cheeks": 0.5, "frown": 0.4, "droop": 0.3},
        {"lower": 0.6, "wrinkle": 1, "upper_lip": 1, "cheeks": 0.7, "jaw": 0.25, "teeth": 0.6, "frown": 0.5},
    ),
    "fear": (
        {"inner_up": 1, "outer_up": 0.4, "lower": 0.5, "wide": 0.9, "stretch": 0.8, "teeth": 0.3, "jaw": 0.1},
        {"inner_up": 1, "outer_up": 0.5, "lower": 0.5, "wide": 1, "stretch": 1, "teeth": 0.7, "jaw": 0.5},
    ),
    "contempt": (
        {"smirk": 0.8, "droop": 0.3, "press": 0.2},
        {"smirk": 1, "droop": 0.4, "lower": 0.2, "cheeks": 0.2},
    ),
}

_FULL = np.array([[[way.get(unit, 0) for unit in ACTION_UNITS] for way in EXPRESSIONS[e]] for e in EMOTIONS])


def action_units(
    rng: np.random.Generator, emotion: np.ndarray, intensity: np.ndarray, style: np.ndarray
) -> SimpleNamespace:
    """Draws the strength (about 0..1.2) of each action unit for N faces, `f32[N, 1, 1]` each.

    emotion `int[N]` in 0..7; intensity `float[N]` in 0..1; style `float[N]` from 0, reserved, to 1, open.
    No two people move their faces alike: strengths vary by a quarter, and some units stir for no reason.
    """
    reserved, opened = _FULL[emotion].swapaxes(0, 1)
    vary, stir = rng.random((len(emotion), 2, len(ACTION_UNITS))).swapaxes(0, 1)
    full = reserved + style[:, None] * (opened - reserved)
    strength = full * intensity[:, None] * (0.75 + 0.5 * vary) + 0.25 * np.maximum(0, stir - 0.6)
    units = strength.astype(np.float32)[..., None, None]
    return SimpleNamespace(**{name: units[:, i] for i, name in enumerate(ACTION_UNITS)})
