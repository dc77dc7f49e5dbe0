// The part of a photograph that the network sees, as in fer_jax/faces/crop.py: a square around one face, in grey, 48x48.

import { LANCZOS, resize } from "./resample.js";

export const SIDE = 48;
const SCALE = 0.9; // the side of the square, in longer sides of the detector's box
const DARK = 130;
const BRIGHT = 180;

const limit = (value, low, high) => Math.min(Math.max(value, low), high);

/** The face in a detector's box as the network expects it: grey, 48x48 bytes. A dark face is made brighter. */
export function cut(photo, { x, y, width, height }) {
  return brightened(grey(window(photo, [x + width / 2, y + height / 2], SCALE * Math.max(width, height), SIDE)));
}

/** A square of a photograph, resized to `pixels`. Outside the photograph its edge pixels are repeated. */
export function window(photo, centre, side, pixels) {
  const left = centre[0] - side / 2;
  const top = centre[1] - side / 2;
  const west = Math.floor(left);
  const north = Math.floor(top);
  const part = {
    width: Math.ceil(left + side) - west,
    height: Math.ceil(top + side) - north,
    read: (x, y, right, bottom) => readBeyond(photo, west + x, north + y, west + right, north + bottom),
  };
  return resize(part, [pixels, pixels], LANCZOS, [left - west, top - north, left - west + side, top - north + side], 3);
}

function readBeyond(photo, left, top, right, bottom) {
  const inside = [
    limit(left, 0, photo.width - 1),
    limit(top, 0, photo.height - 1),
    limit(right, 1, photo.width),
    limit(bottom, 1, photo.height),
  ];
  const part = photo.read(...inside);
  if (part.width === right - left && part.height === bottom - top) return part;
  const data = new Uint8ClampedArray(4 * (right - left) * (bottom - top));
  let at = 0;
  for (let y = top; y < bottom; y++) {
    const row = limit(y - inside[1], 0, part.height - 1) * part.width;
    for (let x = left; x < right; x++, at += 4) {
      const from = 4 * (row + limit(x - inside[0], 0, part.width - 1));
      for (let channel = 0; channel < 4; channel++) data[at + channel] = part.data[from + channel];
    }
  }
  return { width: right - left, height: bottom - top, data };
}

/** The brightness of each pixel, by Pillow's weights. */
function grey({ width, height, data }) {
  const values = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) {
    values[i] = (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 0x8000) >> 16;
  }
  return values;
}

/** The face itself where its 98th percentile is at least `DARK`, else with that at `BRIGHT`. */
function brightened(face) {
  const light = percentile(face, 98);
  return light >= DARK ? face : face.map((value) => Math.min(value * (BRIGHT / Math.max(light, 4)) + 0.5, 255));
}

/** A percentile of bytes, between two of them by linear interpolation. */
export function percentile(bytes, percent) {
  const sorted = bytes.toSorted();
  const place = (percent / 100) * (sorted.length - 1);
  const low = Math.floor(place);
  return sorted[low] + (place - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}
