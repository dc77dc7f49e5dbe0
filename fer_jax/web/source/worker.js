// The worker: reads the faces of one image at a time, so that the page itself never waits.

import { SIDE, cut } from "./crop.js";
import { findFaces, findFacesInFrame } from "./detect.js";
import { Network } from "./network.js";
import { Pixels, copy, decode, photographOf } from "./photo.js";
import { round } from "./resample.js";
import { load } from "./runtime.js";

const CHUNK = 16; // faces whose maps are in memory at once

const fetchBytes = async (name) => {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response.arrayBuffer();
};

async function start() {
  const [{ wasm, threads }, ...files] = await Promise.all([load(), fetchBytes("yunet.bin"), fetchBytes("base.bin")]);
  const [detector, reader] = files.map((bytes) => new Network(wasm, bytes));
  return { detector, reader, threads };
}

const ready = start();
ready.then(
  ({ reader, threads }) => postMessage({ ready: true, threads, facts: reader.facts }),
  (error) => postMessage({ failed: `${error.message ?? error}` }),
);

function mirrored(crop) {
  return crop.map((_, at) => crop[at - (at % SIDE) + SIDE - 1 - (at % SIDE)]);
}

/** The probabilities of each crop: the mean of the crop and its mirror image, which are the same if symmetric. */
function probabilities(reader, crops) {
  const rows = [];
  for (let start = 0; start < crops.length; start += CHUNK) {
    const part = crops.slice(start, start + CHUNK);
    const views = reader.facts.symmetric ? part : part.flatMap((crop) => [crop, mirrored(crop)]);
    const numbers = new Float32Array(views.length * SIDE * SIDE);
    views.forEach((view, i) => numbers.set(view, i * SIDE * SIDE));
    const { values } = reader.run(numbers, [views.length, SIDE, SIDE, 1]).probability;
    const [classes, each] = [values.length / views.length, views.length / part.length];
    part.forEach((_, i) => {
      const [own, other] = [each * i, each * (i + 1) - 1].map((row) => values.subarray(row * classes, (row + 1) * classes));
      rows.push(Array.from(own, (value, j) => (value + other[j]) / 2));
    });
  }
  return rows;
}

/** The faces in a photograph, from left to right: { box, found, emotions, crop }. */
function read({ detector, reader }, photo, find) {
  const faces = find(detector, photo).map(({ x, y, width, height, confidence }) => ({
    box: [x, y, width, height].map(round),
    found: confidence,
  }));
  const crops = faces.map(({ box: [x, y, width, height] }) => cut(photo, { x, y, width, height }));
  return probabilities(reader, crops).map((emotions, i) => ({ ...faces[i], emotions, crop: crops[i] }));
}

/** The faces of an image file, and a copy to show. */
async function readFile(networks, file) {
  const bitmap = await decode(file).catch(() => null);
  if (!bitmap) return { error: "unreadable" };
  const { width, height } = bitmap;
  const faces = read(networks, photographOf(bitmap), findFaces);
  const image = await copy(bitmap);
  bitmap.close();
  return { faces, image, width, height };
}

const readFrame = (networks, frame) => ({
  faces: read(networks, new Pixels(frame), findFacesInFrame),
  width: frame.width,
  height: frame.height,
});

self.onmessage = async ({ data: { id, file, frame } }) => {
  const networks = await ready;
  const begin = performance.now();
  try {
    const answer = file ? await readFile(networks, file) : readFrame(networks, frame);
    postMessage({ id, ...answer, ms: performance.now() - begin }, answer.image ? [answer.image] : []);
  } catch (error) {
    postMessage({ id, error: `${error.message ?? error}` });
  }
};
