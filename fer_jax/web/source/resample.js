// Pillow's resizing of images, so that the page computes the pixels that fer_jax computes. Pixels are RGBA, 8 bits each.

const BITS = 22; // Pillow's weights are whole numbers, of 2^22

/** Python's round: halves go to the even neighbour. */
export function round(number) {
  const rounded = Math.round(number);
  return rounded - number === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

const roundAway = (x) => Math.trunc(x + Math.sign(x) / 2);
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

export const BILINEAR = { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };
export const LANCZOS = { support: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) };

/** For each new pixel of a line: the first old pixel, and the weights of those from it on. */
function weightsOf(length, start, end, count, filter) {
  const scale = (end - start) / count;
  const stretch = Math.max(1, scale);
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - filter.support * stretch + 0.5));
    const last = Math.min(length, Math.trunc(centre + filter.support * stretch + 0.5));
    const weights = Array.from({ length: last - first }, (_, j) => filter.weight((j + first - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(weights, (weight) => roundAway((weight / sum) * 2 ** BITS)) };
  });
}

/** Lines are resampled along one axis. `step` is the distance of neighbours in a line, `skip` that of lines. */
function resampleLines(source, target, lines, sums, [step, skip], [newStep, newSkip]) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < sums.length; i++) {
      const { first, weights } = sums[i];
      let red = 1 << (BITS - 1);
      let green = red;
      let blue = red;
      for (let j = 0, at = 4 * (line * skip + first * step); j < weights.length; j++, at += 4 * step) {
        red += source[at] * weights[j];
        green += source[at + 1] * weights[j];
        blue += source[at + 2] * weights[j];
      }
      const at = 4 * (line * newSkip + i * newStep); // a clamped array limits the values to 0..255
      target[at] = red >> BITS;
      target[at + 1] = green >> BITS;
      target[at + 2] = blue >> BITS;
      target[at + 3] = 255;
    }
  }
}

/** A box [left, top, right, bottom] of an image, with fractions of pixels, as an image of another size. */
function resample(image, [width, height], filter, [left, top, right, bottom]) {
  const columns = weightsOf(image.width, left, right, width, filter);
  const rows = weightsOf(image.height, top, bottom, height, filter);
  const across = { width, height: image.height, data: new Uint8ClampedArray(4 * width * image.height) };
  resampleLines(image.data, across.data, image.height, columns, [1, image.width], [1, width]);
  const data = new Uint8ClampedArray(4 * width * height);
  resampleLines(across.data, data, width, rows, [width, 1], [width, 1]);
  return { width, height, data };
}

/** The means of blocks of pixels of a photograph. It is read by strips: 100 megapixels would not fit twice. */
function reduce(photo, [across, down], [left, top, right, bottom]) {
  const width = Math.ceil((right - left) / across);
  const height = Math.ceil((bottom - top) / down);
  const data = new Uint8ClampedArray(4 * width * height);
  const strip = Math.max(1, Math.floor(2 ** 20 / (right - left) / down)); // rows of the result
  for (let row = 0; row < height; row += strip) {
    const start = top + row * down;
    const part = photo.read(left, start, right, Math.min(bottom, start + strip * down));
    for (let y = row; y < Math.min(height, row + strip); y++) {
      for (let x = 0; x < width; x++) {
        meanOfBlock(part, x * across, (y - row) * down, across, down, data, 4 * (y * width + x));
      }
    }
  }
  return { width, height, data };
}

function meanOfBlock(image, left, top, across, down, target, at) {
  const right = Math.min(image.width, left + across);
  const bottom = Math.min(image.height, top + down);
  let red = 0;
  let green = 0;
  let blue = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left, from = 4 * (y * image.width + left); x < right; x++, from += 4) {
      red += image.data[from];
      green += image.data[from + 1];
      blue += image.data[from + 2];
    }
  }
  const count = (right - left) * (bottom - top);
  target[at] = Math.floor(red / count + 0.5);
  target[at + 1] = Math.floor(green / count + 0.5);
  target[at + 2] = Math.floor(blue / count + 0.5);
  target[at + 3] = 255;
}

/**
 * A box of a photograph as an image of another size: Image.resize(size, filter, box, reducing_gap) of Pillow.
 *
 * A photograph has a width, a height and read(left, top, right, bottom), which returns pixels.
 */
export function resize(photo, size, filter, box, gap) {
  const [left, top, right, bottom] = box;
  const whole = box.every(Number.isInteger) && right - left === size[0] && bottom - top === size[1];
  if (whole) return photo.read(...box);
  const scale = [(right - left) / size[0], (bottom - top) / size[1]];
  const factor = scale.map((ratio) => Math.trunc(ratio / gap) || 1);
  const margin = scale.map((ratio) => (filter.support - (Math.max(...factor) > 1 ? 0.5 : 0)) * Math.max(1, ratio));
  const safe = [
    Math.max(0, Math.trunc(left - margin[0])),
    Math.max(0, Math.trunc(top - margin[1])),
    Math.min(photo.width, Math.ceil(right + margin[0])),
    Math.min(photo.height, Math.ceil(bottom + margin[1])),
  ];
  const image = Math.max(...factor) > 1 ? reduce(photo, factor, safe) : photo.read(...safe);
  return resample(image, size, filter, box.map((edge, i) => (edge - safe[i % 2]) / factor[i % 2]));
}
