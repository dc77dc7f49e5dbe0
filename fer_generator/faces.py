"""Draws grey 48x48 faces from parameters: a head, its features, and the muscle movements of an expression.

Lengths are in half pictures: a picture spans -1..1 in x (to the right) and y (downwards). Grey is 0..1 until
the end. Every parameter has the shape `f32[N, 1, 1]`, so that one expression draws N faces at once.
"""

from types import SimpleNamespace

import numpy as np

SIZE = 48
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

# The action units of the Facial Action Coding System (Ekman and Friesen 1978) that the faces have.
ACTION_UNITS = {
    "inner_up": "AU1, inner brows raised",
    "outer_up": "AU2, outer brows raised",
    "lower": "AU4, brows lowered and drawn together",
    "wide": "AU5, upper lids raised",
    "cheeks": "AU6, cheeks raised, eyes narrowed from below",
    "wrinkle": "AU9, nose wrinkled",
    "upper_lip": "AU10, upper lip raised",
    "smile": "AU12, mouth corners pulled up",
    "smirk": "AU14, one mouth corner tightened and pulled up",
    "frown": "AU15, mouth corners pulled down",
    "chin": "AU17, chin raised",
    "stretch": "AU20, mouth stretched sideways",
    "press": "AU24, lips pressed",
    "jaw": "AU26, jaw dropped",
    "teeth": "AU25, lips parted over the teeth",
    "droop": "AU43, upper lids lowered",
}

# Two ways to show each emotion at full intensity, reserved and open; a face lies somewhere between them.
EXPRESSIONS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "neutral": ({}, {"jaw": 0.1}),
    "happiness": (
        {"smile": 0.8, "cheeks": 0.6, "teeth": 0.2},
        {"smile": 1.0, "cheeks": 1.0, "jaw": 0.45, "teeth": 1.0},
    ),
    "surprise": (
        {"inner_up": 0.9, "outer_up": 0.9, "wide": 0.7, "jaw": 0.5},
        {"inner_up": 1.0, "outer_up": 1.0, "wide": 1.0, "jaw": 1.0},
    ),
    "sadness": (
        {"inner_up": 0.9, "lower": 0.3, "frown": 0.8, "chin": 0.8, "droop": 0.7},
        {"inner_up": 1.0, "lower": 0.4, "frown": 1.0, "chin": 0.5, "droop": 0.5, "jaw": 0.2, "stretch": 0.2},
    ),
    "anger": (
        {"lower": 1.0, "wide": 0.3, "press": 1.0, "frown": 0.3, "chin": 0.3},
        {"lower": 1.0, "wide": 0.4, "jaw": 0.5, "teeth": 1.0, "upper_lip": 0.3, "stretch": 0.3},
    ),
    "disgust": (
        {"lower": 0.6, "wrinkle": 1.0, "upper_lip": 0.7, "cheeks": 0.5, "frown": 0.4, "droop": 0.3},
        {
            "lower": 0.6,
            "wrinkle": 1.0,
            "upper_lip": 1.0,
            "cheeks": 0.7,
            "jaw": 0.25,
            "teeth": 0.6,
            "frown": 0.5,
        },
    ),
    "fear": (
        {
            "inner_up": 1.0,
            "outer_up": 0.4,
            "lower": 0.5,
            "wide": 0.9,
            "stretch": 0.8,
            "teeth": 0.3,
            "jaw": 0.1,
        },
        {
            "inner_up": 1.0,
            "outer_up": 0.5,
            "lower": 0.5,
            "wide": 1.0,
            "stretch": 1.0,
            "teeth": 0.7,
            "jaw": 0.5,
        },
    ),
    "contempt": (
        {"smirk": 0.8, "droop": 0.3, "press": 0.2},
        {"smirk": 1.0, "droop": 0.4, "lower": 0.2, "cheeks": 0.2},
    ),
}

# Who is shown and how the picture was taken: each is drawn evenly between the two values.
RANGES = {
    "shift_x": (-0.10, 0.10), "shift_y": (-0.08, 0.10), "angle": (-0.18, 0.18), "scale": (1.0, 1.22),
    "yaw": (-0.32, 0.32), "pitch": (-0.15, 0.15),
    "head_x": (0.62, 0.76), "head_y": (0.86, 0.98), "jaw_taper": (0.10, 0.34), "neck_x": (0.30, 0.50),
    "eye_x": (0.27, 0.34), "eye_y": (-0.20, -0.10), "eye_w": (0.125, 0.165), "eye_h": (0.055, 0.085),
    "eye_tilt": (-0.12, 0.12), "gaze": (-0.05, 0.05), "iris": (0.06, 0.08), "iris_grey": (0.05, 0.40),
    "brow_y": (0.15, 0.22), "brow_thick": (0.015, 0.04), "brow_arch": (0.0, 0.05),
    "brow_tilt": (-0.03, 0.03), "brow_uneven": (-0.03, 0.03), "brow_grey": (0.02, 0.35),
    "nose_y": (0.16, 0.26), "nose_x": (0.08, 0.14),
    "mouth_y": (0.46, 0.54), "mouth_x": (0.22, 0.30), "lip": (0.03, 0.075), "lip_grey": (0.45, 0.85),
    "mouth_rest": (-0.025, 0.03), "side": (-1.0, 1.0), "style": (0.0, 1.0), "age": (0.0, 1.0),
    "skin": (0.35, 0.90), "hair_grey": (0.02, 0.60), "hair": (0.0, 1.0), "hair_line": (0.55, 0.80),
    "hair_length": (-0.2, 1.2), "hair_full": (0.02, 0.18),
    "fringe": (-0.1, 0.9), "parting": (-0.35, 0.35), "beard": (0.0, 1.0), "glasses": (0.0, 1.0),
    "light_x": (-0.7, 0.7), "light_y": (-0.7, 0.3), "ambient": (0.35, 0.75),
    "back": (0.0, 1.0), "back_x": (-0.35, 0.35), "back_y": (-0.35, 0.35),
    "contrast": (0.75, 1.45), "brightness": (-0.10, 0.10), "blur": (0.0, 1.0), "noise": (0.0, 1.0),
}  # fmt: skip


def _edge(distance: np.ndarray) -> np.ndarray:
    """Coverage 0..1 of a pixel at a signed distance (negative inside): an edge about one pixel soft."""
    return np.clip(0.5 - 20 * distance, 0, 1)


def _spot(x: np.ndarray, y: np.ndarray, radius_x: float, radius_y: float) -> np.ndarray:
    """A soft spot: 1 at (0, 0), 0 from the radii on."""
    return np.maximum(0, 1 - (x / radius_x) ** 2 - (y / radius_y) ** 2) ** 2


def _ellipse(
    x: np.ndarray, y: np.ndarray, radius_x: float | np.ndarray, radius_y: float | np.ndarray
) -> np.ndarray:
    """Signed distance to an ellipse about (0, 0), exact on its outline."""
    return (np.sqrt((x / radius_x) ** 2 + (y / radius_y) ** 2) - 1) * radius_y


def _stroke(x: np.ndarray, y: np.ndarray, start: tuple, end: tuple, width: float | np.ndarray) -> np.ndarray:
    """Coverage of a round-ended line of half width `width` from `start` to `end`."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    from_x, from_y = x - start[0], y - start[1]
    t = np.clip((from_x * along_x + from_y * along_y) / (along_x * along_x + along_y * along_y), 0, 1)
    return _edge(np.sqrt((from_x - t * along_x) ** 2 + (from_y - t * along_y) ** 2) - width)


def _paint(image: np.ndarray, grey: float | np.ndarray, coverage: np.ndarray) -> None:
    image += coverage * (grey - image)


def _sample(rng: np.random.Generator, n: int) -> SimpleNamespace:
    """Draws the parameters of RANGES for n pictures, `f32[n, 1, 1]` each."""
    low, high = np.array(list(RANGES.values())).T
    drawn = (low + (high - low) * rng.random((n, len(RANGES)))).astype(np.float32)
    return SimpleNamespace(**{name: drawn[:, i, None, None] for i, name in enumerate(RANGES)})


def _action_units(
    rng: np.random.Generator, emotion: np.ndarray, intensity: np.ndarray, style: np.ndarray
) -> SimpleNamespace:
    """Strength of each action unit, `f32[N, 1, 1]`: no two people move their faces alike."""
    table = np.array(
        [[[way.get(unit, 0) for unit in ACTION_UNITS] for way in EXPRESSIONS[e]] for e in EMOTIONS]
    )
    reserved, opened = table[emotion].swapaxes(0, 1)
    full = reserved + style[:, :, 0] * (opened - reserved)
    spread, stray = rng.random((len(emotion), 2, len(ACTION_UNITS))).swapaxes(0, 1)
    strength = full * intensity[:, None] * (0.7 + 0.5 * spread) + 0.25 * np.maximum(0, stray - 0.6)
    strength = strength.astype(np.float32)
    return SimpleNamespace(**{unit: strength[:, i, None, None] for i, unit in enumerate(ACTION_UNITS)})


def _background(p: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A wall that brightens to one side."""
    return np.clip(p.back + p.back_x * x + p.back_y * y, 0, 1)


def _eyes(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    across, right = np.abs(x), np.sign(x)
    ex = across - p.eye_x
    ey = y - p.eye_y - (p.eye_tilt - 0.25 * au.droop) * ex
    _paint(image, 0.55 * image, 0.5 * _spot(ex, ey + 0.04, 0.24, 0.17))
    _paint(
        image,
        0.45 * image,
        (0.2 + 0.6 * au.cheeks) * p.age * _stroke(ex, ey, (-0.1, 0.13), (0.12, 0.11), 0.01),
    )
    curve = 1 - (ex / p.eye_w) ** 2
    upper = p.eye_h * (1 + 0.8 * au.wide - 0.5 * au.droop - 0.25 * au.wrinkle - 0.25 * au.cheeks)
    lower = p.eye_h * (0.8 + 0.25 * au.wide - 0.7 * au.cheeks - 0.2 * au.lower)
    inside = np.maximum(-ey - upper * curve, ey - lower * curve)
    opening = _edge(inside)
    _paint(image, 0.35 + 0.6 * image, opening)
    iris = np.sqrt((ex - right * p.gaze) ** 2 + ey**2) - p.iris
    _paint(image, p.iris_grey, opening * _edge(iris))
    _paint(image, 0.02, opening * _edge(iris + 0.55 * p.iris))
    _paint(image, 0.05, _edge(np.abs(ey + upper * curve) - 0.018) * _edge(np.abs(ex) - p.eye_w))
    for rise in (-0.05, 0.04):
        crow = _stroke(ex, ey, (p.eye_w + 0.04, 0.2 * rise), (p.eye_w + 0.14, rise), 0.008)
        _paint(image, 0.5 * image, 0.7 * np.clip(au.cheeks * (0.4 + p.age), 0, 1) * crow)


def _brows(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    across, right = np.abs(x), np.sign(x)
    height = p.eye_y - p.brow_y + right * p.brow_uneven + 0.06 * au.lower
    inner_y = height - 0.14 * au.inner_up + 0.07 * au.lower + p.brow_tilt + 0.03 * au.wrinkle
    outer_y = height - 0.12 * au.outer_up + 0.04 * au.droop - p.brow_tilt - 0.02 * au.lower + 0.02
    inner_x = p.eye_x - 0.17 - 0.05 * au.lower
    middle = (p.eye_x + 0.05, 0.4 * inner_y + 0.6 * outer_y - p.brow_arch)
    thick = p.brow_thick + 0.008 * au.lower
    inner = _stroke(across, y, (inner_x, inner_y), middle, thick)
    outer = _stroke(across, y, middle, (p.eye_x + 0.2, outer_y + 0.02), 0.7 * thick)
    _paint(image, p.brow_grey * (0.4 + image), 0.9 * np.maximum(inner, outer))
    between = _stroke(across, y, (0.035, p.eye_y - 0.18), (0.045, p.eye_y - 0.05), 0.012)
    _paint(image, 0.4 * image, np.clip(0.8 * au.lower, 0, 1) * between)
    for line in (0.12, 0.22):
        wave = y - height + line + 0.1 * au.inner_up - 0.15 * x * x
        raised = np.clip(0.5 * (au.inner_up + au.outer_up) * (0.3 + p.age) + 0.3 * (p.age - 0.6), 0, 0.8)
        _paint(image, 0.55 * image, raised * _edge(np.abs(wave) - 0.01) * _edge(across - 0.32))


def _nose(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    across = np.abs(x)
    tip = p.nose_y - 0.04 * au.wrinkle
    wide = p.nose_x * (1 + 0.25 * au.wrinkle + 0.12 * au.smile)
    shaded = x * np.sign(p.light_x)
    _paint(image, 0.7 * image, 0.8 * _stroke(-shaded, y, (0.05, p.eye_y + 0.05), (0.8 * wide, tip), 0.03))
    _paint(image, 0.3 + 0.75 * image, 0.5 * _spot(x, y - tip + 0.05, 0.08, 0.16))
    _paint(image, 0.55 * image, _stroke(across, y, (wide, tip - 0.03), (0.8 * wide, tip + 0.04), 0.015))
    _paint(image, 0.15, 0.9 * _stroke(across, y, (0.4 * wide, tip + 0.05), (0.65 * wide, tip + 0.04), 0.014))
    for line in (0.04, 0.11):
        crease = _stroke(across, y, (0.0, p.eye_y + line), (0.1, p.eye_y + line - 0.06), 0.011)
        _paint(image, 0.45 * image, np.clip(au.wrinkle, 0, 0.9) * crease)
    depth = np.clip(0.25 * p.age + 0.6 * au.smile + 0.7 * au.wrinkle + 0.3 * au.upper_lip, 0, 0.9)
    fold = _stroke(across, y, (wide + 0.03, tip - 0.03), (p.mouth_x + 0.08, p.mouth_y - 0.1), 0.014)
    _paint(image, 0.55 * image, depth * fold)
    _paint(
        image, 0.2 + 0.85 * image, 0.8 * np.clip(au.cheeks, 0, 1) * _spot(across - 0.36, y - 0.13, 0.18, 0.14)
    )


def _mouth(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    half = p.mouth_x * (1 + 0.25 * au.smile + 0.3 * au.stretch - 0.1 * au.press - 0.12 * au.chin)
    half = half * (1 - 0.25 * np.clip(au.jaw - au.smile - au.stretch - au.teeth, 0, 1))
    s = x / half
    bow = np.minimum(s * s, 2)
    arch = np.sqrt(np.maximum(0, 1 - bow))
    one_side = bow * (s * np.sign(p.side) > 0)
    line = (
        p.mouth_y
        + (p.mouth_rest - 0.15 * au.smile + 0.13 * au.frown) * (bow - 0.4)
        - 0.13 * au.smirk * one_side
    )
    line = line - 0.03 * au.chin - 0.02 * au.upper_lip
    gap = 0.02 * au.jaw + (0.03 + 0.04 * au.upper_lip) * np.minimum(au.teeth + au.upper_lip, 1)
    upper = line - gap * arch
    lower = line + (0.34 * au.jaw + 0.06 * au.teeth) * arch
    lip = p.lip * (1 - 0.6 * np.clip(au.press, 0, 1))
    ends = np.abs(x) - half
    lips = np.maximum(upper - 0.8 * lip * arch - y, y - lower - lip * arch)
    _paint(image, 0.6 * image, 0.6 * _spot(x, y - lower - lip - 0.06, 0.18, 0.07))
    _paint(image, p.lip_grey * image, _edge(np.maximum(lips, ends)))
    opening = np.maximum(upper - y, y - lower)
    inside = _edge(np.maximum(opening, ends))
    _paint(image, 0.08, inside * np.clip(4 * (au.jaw + au.teeth + au.upper_lip), 0, 1))
    shown = np.clip(2 * au.teeth - 0.2, 0, 1)
    _paint(image, 0.25 + 0.65 * p.skin, inside * shown * _edge(y - upper - 0.09))
    _paint(
        image,
        0.2 + 0.55 * p.skin,
        inside * shown * np.clip(2 * (au.stretch + au.lower), 0, 1) * _edge(lower - 0.05 - y),
    )
    _paint(image, 0.12, 0.8 * _edge(np.abs(y - upper) - 0.012) * _edge(ends))
    corner_y = line - 0.02
    pit = _edge(np.sqrt((np.abs(x) - half - 0.02) ** 2 + (y - corner_y) ** 2) - 0.02)
    _paint(image, 0.4 * image, np.clip(au.smile + au.frown + au.smirk * one_side, 0, 0.8) * pit)


def _hair_and_beard(
    image: np.ndarray, p: SimpleNamespace, x: np.ndarray, y: np.ndarray, outline: np.ndarray
) -> None:
    line = y + p.hair_line - p.fringe * (x - p.parting) ** 2
    strands = p.hair_grey * (1 + 0.05 * np.sin(25 * (x + p.parting * y)) - 0.3 * np.maximum(0, line + 0.1))
    _paint(image, strands, np.clip(8 * p.hair - 0.8, 0, 1) * _edge(np.maximum(outline, 2 * line)))
    jaw_line = np.clip(3 * (np.abs(x) + y - 0.65), 0, 1) * np.clip(4 * (y - 0.1), 0, 1) * _edge(outline)
    moustache = _spot(x, y - p.mouth_y + 0.12, 0.3, 0.1)
    _paint(image, p.hair_grey, np.clip(6 * p.beard - 4.8, 0, 0.8) * np.maximum(jaw_line, moustache))


def _finish(rng: np.random.Generator, image: np.ndarray, p: SimpleNamespace) -> np.ndarray:
    """The camera: blur, contrast, brightness, noise, eight bits."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    soft = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    image = image + p.blur * (soft - image)
    image = (image - 0.5) * p.contrast + 0.5 + p.brightness
    image = image + 0.04 * p.noise**3 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def draw_faces(rng: np.random.Generator, emotion: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Draws one face per entry: emotion `int[N]` in 0..7, intensity `float[N]` in 0..1 -> `u8[N, 48, 48]`.

    At intensity 0 every emotion looks neutral. Face i depends on the generator's seed, i, emotion[i] and
    intensity[i] alone, not on N.
    """
    shape_rng, unit_rng, noise_rng = rng.spawn(3)
    p = _sample(shape_rng, len(emotion))
    au = _action_units(unit_rng, emotion, intensity, p.style)
    axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) * (2 / SIZE) - 1)[None]
    image = _background(p, axis[:, None, :], axis[:, :, None]).astype(np.float32)

    # from the picture's axes to the head's
    px, py = axis[:, None, :] - p.shift_x, axis[:, :, None] - p.shift_y
    cos, sin = np.cos(p.angle) / p.scale, np.sin(p.angle) / p.scale
    x, y = cos * px + sin * py, cos * py - sin * px

    hair = _ellipse(x, y, p.head_x + p.hair_full, p.head_y + p.hair_full)
    long_hair = np.maximum(np.where(y < 0, hair, np.abs(x) - p.head_x - p.hair_full), y - p.hair_length)
    bust = np.maximum(np.abs(x) - p.neck_x - 4 * np.maximum(0, y - 1.05), 0.3 - y)
    _paint(image, 0.7 * p.skin * p.ambient, _edge(bust))
    _paint(image, p.hair_grey, np.clip(8 * p.hair - 0.8, 0, 1) * _edge(long_hair))
    head_y = p.head_y * (1 + 0.1 * au.jaw * (y > 0))
    taper = 1 - p.jaw_taper * np.maximum(0, y) ** 2
    nx, ny = x / (p.head_x * taper), y / head_y
    nz = np.sqrt(np.maximum(0, 1 - nx * nx - ny * ny))
    lit = np.clip(nx * p.light_x + ny * p.light_y + nz * 0.75, 0, 1)
    skin = p.skin * (p.ambient + (1 - p.ambient) * lit)
    for side in (-1, 1):
        _paint(image, 0.8 * skin, _edge(_ellipse(x - side * p.head_x - 0.3 * p.yaw, y - 0.02, 0.08, 0.16)))
    _paint(image, skin, _edge(_ellipse(x / taper, y, p.head_x, head_y)))

    # features sit on the front of a ball that turns by yaw and pitch
    depth = np.sqrt(np.maximum(0.05, 1 - x * x - y * y))
    x = x * np.cos(p.yaw) - depth * np.sin(p.yaw)
    y = y * np.cos(p.pitch) - depth * np.sin(p.pitch)
    _nose(image, p, au, x, y)
    _mouth(image, p, au, x, y)
    _eyes(image, p, au, x, y)
    _brows(image, p, au, x, y)
    _hair_and_beard(image, p, x, y, hair)
    rim = np.abs(_ellipse(np.abs(x) - p.eye_x, y - p.eye_y - 0.03, 0.21, 0.17)) - 0.015
    frame = np.maximum(_edge(rim), _stroke(np.abs(x), y, (0.0, p.eye_y), (p.eye_x - 0.2, p.eye_y), 0.012))
    _paint(image, 0.1, (p.glasses > 0.9) * frame)
    return _finish(noise_rng, image, p)


def draw_clutter(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draws n pictures without a face, `u8[n, 48, 48]`: blots and bars before a wall."""
    shape_rng, blot_rng, noise_rng = rng.spawn(3)
    p = _sample(shape_rng, n)
    axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) * (2 / SIZE) - 1)[None]
    x, y = axis[:, None, :], axis[:, :, None]
    image = _background(p, x, y).astype(np.float32)
    blots = blot_rng.random((n, 6, 5), dtype=np.float32)[..., None, None].swapaxes(0, 1).swapaxes(1, 2)
    for at_x, at_y, to_x, to_y, grey in blots:
        _paint(
            image, grey, _ellipse(x - 2 * at_x + 1, y - 2 * at_y + 1, 0.1 + 0.5 * to_x, 0.1 + 0.5 * to_y) < 0
        )
        _paint(
            image,
            1 - grey,
            _stroke(x, y, (2 * at_x - 1, 2 * to_y - 1), (2 * to_x - 1, 2 * at_y - 1), 0.05 * grey),
        )
    return _finish(noise_rng, image, p)
