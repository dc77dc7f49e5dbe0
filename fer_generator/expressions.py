"""Muscle movements of a face that shows an emotion, as action units of the Facial Action Coding System.

After Ekman and Friesen, Facial Action Coding System, 1978, and EMFACS; reduced to those visible in 48x48 pixels.
"""

from types import SimpleNamespace

import numpy as np

from fer_generator.read_csv import EMOTIONS

ACTION_UNITS = (
    "inner_up",  # AU1, inner brows raised
    "outer_up",  # AU2, outer brows raised
    "brow_lower",  # AU4, brows lowered and drawn together
    "lid_raise",  # AU5, upper lids raised
    "cheeks",  # AU6, cheeks raised, eyes narrowed from below
    "nose_wrinkle",  # AU9, nose wrinkled
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

# Two styles of each emotion at full intensity, reserved and open; the style of a face is between the two.
EXPRESSIONS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "neutral": ({}, {"jaw": 0.1}),
    "happiness": (
        {"smile": 0.8, "cheeks": 0.6, "teeth": 0.2},
        {"smile": 1, "cheeks": 1, "jaw": 0.45, "teeth": 1},
    ),
    "surprise": (
        {"inner_up": 0.9, "outer_up": 0.9, "lid_raise": 0.7, "jaw": 0.5},
        {"inner_up": 1, "outer_up": 1, "lid_raise": 1, "jaw": 1},
    ),
    "sadness": (
        {"inner_up": 0.9, "brow_lower": 0.3, "frown": 0.8, "chin": 0.8, "droop": 0.7},
        {"inner_up": 1, "brow_lower": 0.4, "frown": 1, "chin": 0.5, "droop": 0.5, "jaw": 0.2, "stretch": 0.2},
    ),
    "anger": (
        {"brow_lower": 1, "lid_raise": 0.3, "press": 1, "frown": 0.3, "chin": 0.3},
        {"brow_lower": 1, "lid_raise": 0.4, "jaw": 0.5, "teeth": 1, "upper_lip": 0.3, "stretch": 0.3},
    ),
    "disgust": (
        {"brow_lower": 0.6, "nose_wrinkle": 1, "upper_lip": 0.7, "cheeks": 0.5, "frown": 0.4, "droop": 0.3},
        {"brow_lower": 0.6, "nose_wrinkle": 1, "upper_lip": 1, "cheeks": 0.7, "jaw": 0.25, "teeth": 0.6, "frown": 0.5},
    ),
    "fear": (
        {"inner_up": 1, "outer_up": 0.4, "brow_lower": 0.5, "lid_raise": 0.9, "stretch": 0.8, "teeth": 0.3, "jaw": 0.1},
        {"inner_up": 1, "outer_up": 0.5, "brow_lower": 0.5, "lid_raise": 1, "stretch": 1, "teeth": 0.7, "jaw": 0.5},
    ),
    "contempt": (
        {"smirk": 0.8, "droop": 0.3, "press": 0.2},
        {"smirk": 1, "droop": 0.4, "brow_lower": 0.2, "cheeks": 0.2},
    ),
}

# f64[8, 2, units]
_FULL_INTENSITY = np.array(
    [[[style.get(unit, 0) for unit in ACTION_UNITS] for style in EXPRESSIONS[emotion]] for emotion in EMOTIONS]
)


def action_units(
    rng: np.random.Generator, emotion: np.ndarray, intensity: np.ndarray, style: np.ndarray
) -> SimpleNamespace:
    """Draw the strength (about 0..1.2) of each action unit for N faces, `f32[N, 1, 1]` each.

    Strengths vary by a quarter between people, and some units move a little without any emotion.

    Args:
        rng: the source of both variations.
        emotion: `int[N]` in 0..7.
        intensity: `float[N]` in 0..1.
        style: `float[N]` from 0, reserved, to 1, open.
    """
    reserved, opened = _FULL_INTENSITY[emotion].swapaxes(0, 1)
    variation, idle_motion = rng.random((len(emotion), 2, len(ACTION_UNITS))).swapaxes(0, 1)
    full = reserved + style[:, None] * (opened - reserved)
    strength = full * intensity[:, None] * (0.75 + 0.5 * variation) + 0.25 * np.maximum(0, idle_motion - 0.6)
    units = strength.astype(np.float32)[..., None, None]
    return SimpleNamespace(**{name: units[:, i] for i, name in enumerate(ACTION_UNITS)})
