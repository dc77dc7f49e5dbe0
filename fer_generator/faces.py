"""Gray 48x48 face images, drawn from parameters of the person, the expression and the camera.

Lengths are in half images: an image spans -1..1 in x (to the right) and y (downwards). Gray values are 0..1 until
the last step. Pixels are `f32[N, 48, 48]` and every parameter is `f32[N, 1, 1]`, so one line draws on N faces at once.
In the code, `p` holds the parameters of RANGES and `au` the action units of expressions.py.
"""

from types import SimpleNamespace

import numpy as np

from fer_generator.expressions import action_units
from fer_generator.read_csv import SIDE

# Each parameter is uniform between two values.
RANGES = {
    # position and rotation of the head (radians)
    "shift_x": (-0.10, 0.10), "shift_y": (-0.08, 0.10), "scale": (1.00, 1.22),
    "angle": (-0.18, 0.18), "yaw": (-0.32, 0.32), "pitch": (-0.15, 0.15),
    # the head and its features
    "head_x": (0.62, 0.76), "head_y": (0.86, 0.98), "taper": (0.10, 0.34), "neck_x": (0.30, 0.50),
    "skin": (0.35, 0.90), "age": (0.00, 1.00), "glasses": (0.00, 1.00),
    "eye_x": (0.27, 0.34), "eye_y": (-0.20, -0.10), "eye_w": (0.125, 0.165), "eye_h": (0.055, 0.085),
    "eye_tilt": (-0.12, 0.12), "iris": (0.06, 0.08), "iris_gray": (0.05, 0.40), "gaze": (-0.05, 0.05),
    "brow_y": (0.15, 0.22), "brow_thick": (0.015, 0.040), "brow_arch": (0.00, 0.05),
    "brow_tilt": (-0.03, 0.03), "brow_uneven": (-0.03, 0.03), "brow_gray": (0.02, 0.35),
    "nose_x": (0.08, 0.14), "nose_y": (0.16, 0.26),
    "mouth_x": (0.22, 0.30), "mouth_y": (0.46, 0.54), "mouth_rest": (-0.025, 0.030),
    "lip": (0.03, 0.075), "lip_gray": (0.45, 0.85), "side": (-1.00, 1.00), "style": (0.00, 1.00),
    "hair": (0.00, 1.00), "hair_gray": (0.02, 0.60), "hair_full": (0.02, 0.18), "hair_line": (0.55, 0.80),
    "hair_length": (-0.20, 1.20), "fringe": (-0.10, 0.90), "parting": (-0.35, 0.35), "beard": (0.00, 1.00),
    # light, background and camera
    "light_x": (-0.70, 0.70), "light_y": (-0.70, 0.30), "ambient": (0.35, 0.75),
    "wall": (0.00, 1.00), "wall_x": (-0.35, 0.35), "wall_y": (-0.35, 0.35),
    "contrast": (0.75, 1.45), "brightness": (-0.10, 0.10), "blur": (0.00, 1.00), "noise": (0.00, 1.00),
}  # fmt: skip

_AXIS = (np.arange(SIDE, dtype=np.float32) + 0.5) * (2 / SIDE) - 1
X, Y = _AXIS[None, None, :], _AXIS[None, :, None]


def _sample_parameters(rng: np.random.Generator, n: int) -> SimpleNamespace:
    low, high = np.array(list(RANGES.values())).T
    values = (low + (high - low) * rng.random((n, len(RANGES)))).astype(np.float32)[..., None, None]
    return SimpleNamespace(**{name: values[:, i] for i, name in enumerate(RANGES)})


def _clip(value: np.ndarray) -> np.ndarray:
    return np.clip(value, 0, 1)


def _edge(distance: np.ndarray) -> np.ndarray:
    """Coverage 0..1 of a pixel at a signed distance (negative inside), with a soft edge of about one pixel."""
    return _clip(0.5 - 20 * distance)


def _spot(x: np.ndarray, y: np.ndarray, radius_x: float, radius_y: float) -> np.ndarray:
    """A soft spot: 1 at (0, 0), 0 at and beyond the radii."""
    return np.maximum(0, 1 - (x / radius_x) ** 2 - (y / radius_y) ** 2) ** 2


def _ellipse(x: np.ndarray, y: np.ndarray, radius_x: np.ndarray | float, radius_y: np.ndarray | float) -> np.ndarray:
    """Signed distance to an ellipse about (0, 0), exact on its outline."""
    return (np.sqrt((x / radius_x) ** 2 + (y / radius_y) ** 2) - 1) * radius_y


def _stroke(x: np.ndarray, y: np.ndarray, start: tuple, end: tuple, width: np.ndarray | float) -> np.ndarray:
    """Coverage of a line from `start` to `end` with round ends and half width `width`."""
    delta_x, delta_y = end[0] - start[0], end[1] - start[1]
    x, y = x - start[0], y - start[1]
    fraction = _clip((x * delta_x + y * delta_y) / (delta_x * delta_x + delta_y * delta_y))
    return _edge(np.sqrt((x - fraction * delta_x) ** 2 + (y - fraction * delta_y) ** 2) - width)


def _paint(image: np.ndarray, gray: np.ndarray | float, coverage: np.ndarray) -> None:
    image += coverage * (gray - image)


def _shade(image: np.ndarray, coverage: np.ndarray) -> None:
    image *= 1 - coverage


def _draw_head(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    bust = np.maximum(np.abs(x) - p.neck_x - 4 * np.maximum(0, y - 1.05), 0.3 - y)
    _paint(image, 0.7 * p.skin * p.ambient, _edge(bust))
    hair = np.where(y < 0, _hair_outline(p, x, y), np.abs(x) - p.head_x - p.hair_full)
    _paint(image, p.hair_gray, _hair_density(p) * _edge(np.maximum(hair, y - p.hair_length)))

    jaw_x = x / (1 - p.taper * np.maximum(0, y) ** 2)
    height = p.head_y * (1 + 0.1 * au.jaw * (y > 0))
    normal_x, normal_y = jaw_x / p.head_x, y / height
    normal_z = np.sqrt(np.maximum(0, 1 - normal_x * normal_x - normal_y * normal_y))
    light = _clip(normal_x * p.light_x + normal_y * p.light_y + 0.75 * normal_z)
    skin = p.skin * (p.ambient + (1 - p.ambient) * light)
    for side in (-1, 1):
        _paint(image, 0.8 * skin, _edge(_ellipse(x - side * p.head_x - 0.3 * p.yaw, y - 0.02, 0.08, 0.16)))
    _paint(image, skin, _edge(_ellipse(jaw_x, y, p.head_x, height)))


def _draw_nose(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    abs_x, shadow_x = np.abs(x), -x * np.sign(p.light_x)
    tip = p.nose_y - 0.04 * au.nose_wrinkle
    half_width = p.nose_x * (1 + 0.25 * au.nose_wrinkle + 0.12 * au.smile)
    _shade(image, 0.25 * _stroke(shadow_x, y, (0.05, p.eye_y + 0.05), (0.8 * half_width, tip), 0.03))
    _paint(image, 0.3 + 0.75 * image, 0.5 * _spot(x, y - tip + 0.05, 0.08, 0.16))
    _shade(image, 0.45 * _stroke(abs_x, y, (half_width, tip - 0.03), (0.8 * half_width, tip + 0.04), 0.015))
    _paint(image, 0.15, 0.9 * _stroke(abs_x, y, (0.4 * half_width, tip + 0.05), (0.65 * half_width, tip + 0.04), 0.014))
    for line in (0.04, 0.11):
        crease = _stroke(abs_x, y, (0, p.eye_y + line), (0.1, p.eye_y + line - 0.06), 0.011)
        _shade(image, 0.5 * _clip(au.nose_wrinkle) * crease)
    depth = _clip(0.25 * p.age + 0.6 * au.smile + 0.7 * au.nose_wrinkle + 0.3 * au.upper_lip)
    fold = _stroke(abs_x, y, (half_width + 0.03, tip - 0.03), (p.mouth_x + 0.08, p.mouth_y - 0.1), 0.014)
    _shade(image, 0.4 * depth * fold)
    cheek = _spot(abs_x - 0.36, y - 0.13, 0.18, 0.14)
    _paint(image, 0.2 + 0.85 * image, 0.8 * _clip(au.cheeks) * cheek)


def _draw_mouth(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    half_width = p.mouth_x * (1 + 0.25 * au.smile + 0.3 * au.stretch - 0.1 * au.press - 0.12 * au.chin)
    half_width = half_width * (1 - 0.25 * _clip(au.jaw - au.smile - au.stretch - au.teeth))
    bow = np.minimum((x / half_width) ** 2, 2)
    arch = np.sqrt(np.maximum(0, 1 - bow))
    smirk_side = bow * (x * p.side > 0)
    corner = (p.mouth_rest - 0.15 * au.smile + 0.13 * au.frown) * (bow - 0.4) - 0.16 * au.smirk * smirk_side
    line = p.mouth_y + corner - 0.03 * au.chin - 0.02 * au.upper_lip
    upper = line - arch * (0.02 * au.jaw + (0.03 + 0.04 * au.upper_lip) * _clip(au.teeth + au.upper_lip))
    lower = line + arch * (0.34 * au.jaw + 0.06 * au.teeth)
    side_distance = np.abs(x) - half_width

    lip = p.lip * arch * (1 - 0.6 * _clip(au.press))
    _shade(image, 0.25 * _spot(x, y - lower - p.lip - 0.06, 0.18, 0.07))
    lips = np.maximum(upper - 0.8 * lip - y, y - lower - lip)
    _shade(image, (1 - p.lip_gray) * _edge(np.maximum(lips, side_distance)))
    opening = _edge(np.maximum(np.maximum(upper - y, y - lower), side_distance))
    _paint(image, 0.08, opening * _clip(4 * (au.jaw + au.teeth + au.upper_lip)))
    teeth = opening * _clip(2 * au.teeth - 0.2)
    _paint(image, 0.25 + 0.65 * p.skin, teeth * _edge(y - upper - 0.09))
    _paint(image, 0.2 + 0.55 * p.skin, teeth * _clip(2 * (au.stretch + au.brow_lower)) * _edge(lower - 0.05 - y))
    _paint(image, 0.12, 0.8 * _edge(np.abs(y - upper) - 0.012) * _edge(side_distance))
    dimple = _edge(np.sqrt((side_distance - 0.02) ** 2 + (y - line + 0.02) ** 2) - 0.02)
    _shade(image, 0.5 * _clip(au.smile + au.frown + au.smirk * smirk_side) * dimple)


def _draw_eyes(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    gaze = np.sign(x) * p.gaze
    x = np.abs(x) - p.eye_x
    y = y - p.eye_y - (p.eye_tilt - 0.25 * au.droop) * x
    _shade(image, 0.22 * _spot(x, y + 0.04, 0.24, 0.17))
    bag = _stroke(x, y, (-0.1, 0.13), (0.12, 0.11), 0.01)
    _shade(image, 0.55 * (0.2 + 0.6 * au.cheeks) * p.age * bag)
    for rise in (-0.05, 0.04):
        crow_foot = _stroke(x, y, (p.eye_w + 0.04, 0.2 * rise), (p.eye_w + 0.14, rise), 0.008)
        _shade(image, 0.35 * _clip(au.cheeks * (0.4 + p.age)) * crow_foot)
    lens = 1 - (x / p.eye_w) ** 2
    upper = lens * p.eye_h * (1 + 0.8 * au.lid_raise - 0.5 * au.droop - 0.25 * au.nose_wrinkle - 0.25 * au.cheeks)
    lower = lens * p.eye_h * (0.8 + 0.25 * au.lid_raise - 0.7 * au.cheeks - 0.2 * au.brow_lower)
    opening = _edge(np.maximum(-y - upper, y - lower))
    _paint(image, 0.35 + 0.6 * image, opening)
    iris = np.sqrt((x - gaze) ** 2 + y * y) - p.iris
    _paint(image, p.iris_gray, opening * _edge(iris))
    _paint(image, 0.02, opening * _edge(iris + 0.55 * p.iris))
    _paint(image, 0.05, _edge(np.abs(y + upper) - 0.018) * _edge(np.abs(x) - p.eye_w))


def _draw_brows(image: np.ndarray, p: SimpleNamespace, au: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    abs_x = np.abs(x)
    height = p.eye_y - p.brow_y + np.sign(x) * p.brow_uneven + 0.06 * au.brow_lower
    inner_y = height + p.brow_tilt - 0.14 * au.inner_up + 0.07 * au.brow_lower + 0.03 * au.nose_wrinkle
    outer_y = height - p.brow_tilt - 0.12 * au.outer_up - 0.02 * au.brow_lower + 0.04 * au.droop
    middle = p.eye_x + 0.05, 0.4 * inner_y + 0.6 * outer_y - p.brow_arch
    inner = _stroke(abs_x, y, (p.eye_x - 0.17 - 0.05 * au.brow_lower, inner_y), middle, p.brow_thick)
    outer = _stroke(abs_x, y, middle, (p.eye_x + 0.2, outer_y + 0.04), 0.7 * p.brow_thick)
    _paint(image, p.brow_gray * (0.4 + image), 0.9 * np.maximum(inner, outer))
    furrow = _stroke(abs_x, y, (0.035, p.eye_y - 0.18), (0.045, p.eye_y - 0.05), 0.012)
    _shade(image, 0.5 * _clip(au.brow_lower) * furrow)
    forehead_depth = _clip(0.5 * (au.inner_up + au.outer_up) * (0.3 + p.age) + 0.3 * (p.age - 0.6))
    for line in (0.12, 0.22):
        wave = y - height + line + 0.1 * au.inner_up - 0.15 * x * x
        _shade(image, 0.4 * forehead_depth * _edge(np.abs(wave) - 0.01) * _edge(abs_x - 0.32))


def _hair_outline(p: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _ellipse(x, y, p.head_x + p.hair_full, p.head_y + p.hair_full)


def _hair_density(p: SimpleNamespace) -> np.ndarray:
    """The opacity of the hair, 0..1; one head in ten is bald."""
    return _clip(8 * p.hair - 0.8)


def _draw_fringe_and_beard(
    image: np.ndarray, p: SimpleNamespace, x: np.ndarray, y: np.ndarray, outline: np.ndarray
) -> None:
    line = y + p.hair_line - p.fringe * (x - p.parting) ** 2
    strands = p.hair_gray * (1 + 0.05 * np.sin(25 * (x + p.parting * y)) - 0.3 * np.maximum(0, line + 0.1))
    _paint(image, strands, _hair_density(p) * _edge(np.maximum(outline, 2 * line)))
    beard = _clip(3 * (np.abs(x) + y - 0.65)) * _clip(4 * (y - 0.1)) * _edge(outline)
    moustache = _spot(x, y - p.mouth_y + 0.12, 0.3, 0.1)
    _paint(image, p.hair_gray, np.clip(6 * p.beard - 4.8, 0, 0.8) * np.maximum(beard, moustache))


def _draw_glasses(image: np.ndarray, p: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> None:
    rim = np.abs(_ellipse(np.abs(x) - p.eye_x, y - p.eye_y - 0.03, 0.21, 0.17)) - 0.015
    bridge = _stroke(x, y, (0.2 - p.eye_x, p.eye_y), (p.eye_x - 0.2, p.eye_y), 0.012)
    _paint(image, 0.1, (p.glasses > 0.9) * np.maximum(_edge(rim), bridge))


def _draw_wall(p: SimpleNamespace) -> np.ndarray:
    return _clip(p.wall + p.wall_x * X + p.wall_y * Y)


def _photograph(rng: np.random.Generator, image: np.ndarray, p: SimpleNamespace) -> np.ndarray:
    """Apply blur, contrast, brightness and noise, and convert to eight bits."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    image = (image + p.blur * (blurred - image) - 0.5) * p.contrast + 0.5 + p.brightness
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(255 * _clip(image + 0.04 * p.noise**3 * grain)).astype(np.uint8)


def draw_faces(rng: np.random.Generator, emotion: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Draw N faces: emotion `int[N]` in 0..7, intensity `float[N]` in 0..1 -> `u8[N, 48, 48]`.

    At intensity 0 every emotion is neutral. Face i depends only on the generator's seed, i, emotion[i] and
    intensity[i], not on N.
    """
    person_rng, unit_rng, grain_rng = rng.spawn(3)
    p = _sample_parameters(person_rng, len(emotion))
    au = action_units(unit_rng, emotion, intensity, p.style[:, 0, 0])
    image = _draw_wall(p)

    cos, sin = np.cos(p.angle) / p.scale, np.sin(p.angle) / p.scale
    x = cos * (X - p.shift_x) + sin * (Y - p.shift_y)
    y = cos * (Y - p.shift_y) - sin * (X - p.shift_x)
    _draw_head(image, p, au, x, y)
    hair_outline = _hair_outline(p, x, y)

    # the features are on the front of a ball that turns by yaw and pitch
    depth = np.sqrt(np.maximum(0.05, 1 - x * x - y * y))
    x = x * np.cos(p.yaw) - depth * np.sin(p.yaw)
    y = y * np.cos(p.pitch) - depth * np.sin(p.pitch)
    for draw in (_draw_nose, _draw_mouth, _draw_eyes, _draw_brows):
        draw(image, p, au, x, y)
    _draw_fringe_and_beard(image, p, x, y, hair_outline)
    _draw_glasses(image, p, x, y)
    return _photograph(grain_rng, image, p)


def draw_clutter(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw n images without a face, `u8[n, 48, 48]`: blots and bars in front of a wall."""
    camera_rng, object_rng, grain_rng = rng.spawn(3)
    p = _sample_parameters(camera_rng, n)
    image = _draw_wall(p)
    objects = object_rng.random((n, 6, 5)).astype(np.float32)[..., None, None]
    for index in range(6):
        start_x, start_y, end_x, end_y, gray = (2 * objects[:, index, i] - 1 for i in range(5))
        blot = _ellipse(X - start_x, Y - start_y, 0.35 + 0.25 * end_x, 0.35 + 0.25 * end_y)
        _paint(image, 0.5 + 0.5 * gray, _edge(blot))
        _paint(image, 0.5 - 0.5 * gray, _stroke(X, Y, (start_x, end_y), (end_x, start_y), 0.04))
    return _photograph(grain_rng, image, p)
