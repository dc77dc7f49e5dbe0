// The boxes of the faces in a photograph, as in fer_jax/faces/detect.py: two looks with the network YuNet.

import { percentile, window } from "./crop.js";
import { BILINEAR, resize, round } from "./resample.js";

const SURE = 0.54; // confidence from which a candidate is a face
const LOW = 0.2; // confidence from which a candidate gets a second look
const SURE_TURNED = 0.65; // the same as SURE, for a candidate that was turned
const SURE_ENLARGED = 0.72; // the same in an enlarged image
const TURNS = [-35, 35]; // degrees
const CANDIDATES = 400; // with a second look at most
const LONGEST = 1280; // pixels: larger images are reduced to this longer side
const LONGEST_FRAME = 320; // the same for frames of the webcam
const SHORTEST = 256; // pixels: smaller images are enlarged to this longer side
const SMALL = 64; // pixels of the copy: smaller faces get a second look for a better box
const STEP = 4; // the ratio of the copies' sizes
const PATCH = 192; // pixels: a second look's side, twice the face's
const STRIDES = [8, 16, 32]; // pixels of an image for one place of the network's outputs

const longer = (face) => Math.max(face.width, face.height);

/** The faces in a photograph, from left to right: { x, y, width, height, confidence }. */
export function findFaces(network, photo) {
  const longest = Math.max(photo.width, photo.height);
  const faces = looks(network, photo, Math.min(1, LONGEST / longest), SURE);
  return faces.length || longest > LONGEST / 2 ? faces : looks(network, photo, 2, SURE_ENLARGED);
}

/** The faces in a frame of the webcam, which is reduced further: those from a 16th of its longer side. */
export function findFacesInFrame(network, photo) {
  return looks(network, photo, Math.min(1, LONGEST_FRAME / Math.max(photo.width, photo.height)), SURE);
}

function looks(network, photo, scale, sure) {
  const candidates = firstLook(network, photo, scale);
  let left = CANDIDATES;
  const faces = candidates.map((face) => {
    const doubtful = face.confidence < SURE || face.seen < SMALL;
    return doubtful && left-- > 0 ? secondLook(network, photo, face) : face;
  });
  return withoutOverlaps(faces.filter((face) => face.confidence >= sure)).sort((a, b) => a.x - b.x || a.y - b.y);
}

/** Candidates, the likeliest first; `seen` is their longer side in pixels of the copy that they were seen in. */
function firstLook(network, photo, largest) {
  const longest = Math.max(photo.width, photo.height);
  const candidates = [];
  for (let scale = Math.max(largest, SHORTEST / longest); ; scale = Math.max(scale / STEP, SHORTEST / longest)) {
    const size = [photo.width, photo.height].map((length) => Math.max(1, round(length * scale)));
    const copy = resize(photo, size, BILINEAR, [0, 0, photo.width, photo.height], 2);
    for (const { x, y, width, height, confidence } of run(network, copy)) {
      const [left, top, across, down] = [x, y, width, height].map((length) => length / scale);
      candidates.push({ x: left, y: top, width: across, height: down, confidence, seen: Math.max(width, height) });
    }
    if (Math.max(...size) <= 2 * SHORTEST) return withoutOverlaps(candidates);
  }
}

/** The candidate as it is seen in a patch around it, or as it was if no face is seen there. */
function secondLook(network, photo, candidate) {
  const { x, y, width, height, confidence } = candidate;
  const middle = [x + width / 2, y + height / 2];
  const side = 2 * longer(candidate);
  const patch = withFullContrast(window(photo, middle, side, PATCH));
  for (const turn of confidence < SURE ? [0, ...TURNS] : [0]) {
    const seen = run(network, turn ? rotated(patch, turn) : patch).filter(
      (face) =>
        Math.abs(face.x + face.width / 2 - PATCH / 2) < PATCH / 4 &&
        Math.abs(face.y + face.height / 2 - PATCH / 2) < PATCH / 4 &&
        longer(face) > PATCH / 4 &&
        longer(face) < PATCH &&
        face.confidence >= (turn ? SURE_TURNED : SURE),
    );
    if (seen.length) {
      const best = seen.reduce((a, b) => (b.confidence > a.confidence ? b : a));
      return back(best, turn, middle, side / PATCH, confidence);
    }
  }
  return candidate;
}

/** A face of a turned patch in the coordinates of the photograph. */
function back(face, turn, middle, scale, confidence) {
  const angle = (turn * Math.PI) / 180;
  const right = face.x + face.width / 2 - PATCH / 2;
  const down = face.y + face.height / 2 - PATCH / 2;
  const width = face.width * scale;
  const height = face.height * scale;
  return {
    x: middle[0] + (right * Math.cos(angle) - down * Math.sin(angle)) * scale - width / 2,
    y: middle[1] + (right * Math.sin(angle) + down * Math.cos(angle)) * scale - height / 2,
    width,
    height,
    confidence: Math.max(confidence, face.confidence),
  };
}

/** The patch with brighter highlights and darker shadows, if its middle has little contrast. */
function withFullContrast({ width, height, data }) {
  const middle = new Uint8Array((3 * PATCH * PATCH) / 4);
  let count = 0;
  for (let y = PATCH / 4; y < PATCH - PATCH / 4; y++) {
    for (let x = PATCH / 4; x < PATCH - PATCH / 4; x++) {
      for (let channel = 0; channel < 3; channel++) middle[count++] = data[4 * (y * width + x) + channel];
    }
  }
  const low = percentile(middle, 2);
  const range = percentile(middle, 98) - low;
  if (range >= 150) return { width, height, data };
  const gain = 200 / Math.max(range, 8);
  return { width, height, data: data.map((value) => Math.round((value - low) * gain + 25)) };
}

/** A patch turned by some degrees, counter-clockwise, as Pillow does: black outside. */
function rotated({ width, height, data }, degrees) {
  const cos = Math.cos((-degrees * Math.PI) / 180);
  const sin = Math.sin((-degrees * Math.PI) / 180);
  const turned = new Uint8ClampedArray(data.length);
  for (let row = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, at += 4) {
      const right = column + 0.5 - width / 2;
      const down = row + 0.5 - height / 2;
      const x = right * cos + down * sin + width / 2;
      const y = down * cos - right * sin + height / 2;
      if (x < 0 || x >= width || y < 0 || y >= height) continue;
      const left = Math.floor(x - 0.5);
      const top = Math.floor(y - 0.5);
      const [dx, dy] = [x - 0.5 - left, y - 0.5 - top];
      const columns = [Math.max(left, 0), Math.min(left + 1, width - 1)];
      const rows = [Math.max(top, 0) * width, Math.min(top + 1, height - 1) * width];
      for (let channel = 0; channel < 3; channel++) {
        const [[a, b], [c, d]] = rows.map((start) => columns.map((place) => data[4 * (start + place) + channel]));
        turned[at + channel] = Math.floor((a + (b - a) * dx) * (1 - dy) + (c + (d - c) * dx) * dy);
      }
    }
  }
  return { width, height, data: turned };
}

/** Candidates from one run of the network. */
function run(network, { width, height, data }) {
  const [columns, rows] = [width, height].map((length) => Math.max(2, Math.ceil(length / 32)) * 32);
  const pixels = new Float32Array(3 * rows * columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0, from = 4 * y * width, to = 3 * y * columns; x < width; x++, from += 4, to += 3) {
      pixels[to] = data[from];
      pixels[to + 1] = data[from + 1];
      pixels[to + 2] = data[from + 2];
    }
  }
  const outputs = network.run(pixels, [1, rows, columns, 3]);
  return STRIDES.flatMap((stride) => candidatesOf(outputs[`stride${stride}`], stride));
}

function candidatesOf({ shape, values }, stride) {
  const [, rows, columns, channels] = shape;
  const faces = [];
  for (let place = 0; place < rows * columns; place++) {
    const at = channels * place;
    const confidence = 1 / Math.sqrt((1 + Math.exp(-values[at])) * (1 + Math.exp(-values[at + 1])));
    if (confidence < LOW) continue;
    const width = Math.exp(values[at + 4]) * stride;
    const height = Math.exp(values[at + 5]) * stride;
    const x = ((place % columns) + values[at + 2]) * stride - width / 2;
    const y = (Math.floor(place / columns) + values[at + 3]) * stride - height / 2;
    faces.push({ x, y, width, height, confidence });
  }
  return faces;
}

/** The faces, the likeliest first, that overlap no likelier one by 40 % of both, or by 70 % of the smaller. */
function withoutOverlaps(faces) {
  const kept = [];
  for (const face of faces.toSorted((a, b) => b.confidence - a.confidence)) {
    if (!kept.some((other) => overlap(face, other))) kept.push(face);
  }
  return kept;
}

function overlap(a, b) {
  const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  const common = Math.max(across, 0) * Math.max(down, 0);
  const areas = [a.width * a.height, b.width * b.height];
  return common >= 0.4 * (areas[0] + areas[1] - common) || common >= 0.7 * Math.min(...areas);
}
