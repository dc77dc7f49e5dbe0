// The page: it takes photographs and the webcam's frames, hands them to the worker, and shows what comes back.

import { csv, json, likeliest } from "./records.js";
import { Tracks } from "./tracks.js";
import { MANY, draw, nameOf, percent, showCards } from "./view.js";
import { openWebcam } from "./webcam.js";

const SAVES = ["save-image", "save-json", "save-csv"];

const element = (id) => document.getElementById(id);
// A core is left to the page: with as many threads as cores, all of them wait for the one that shares its core.
const threads = Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1));
const worker = new Worker("worker.js", { name: `${threads}` });
const waiting = new Map(); // the answers that are waited for, by number

let names = [];
let latest = null; // what is shown: { file, faces, image }
let count = 0;
let webcam = null;
let opening = 0; // grows with each request to open or stop the webcam
let announced = "";

function say(text, isError = false) {
  if (text === announced) return; // a screen reader would repeat it
  announced = text;
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

worker.onmessage = ({ data }) => {
  if (data.failed) return say(`The networks could not be loaded (${data.failed}): reload the page.`, true);
  if (data.ready) {
    names = data.facts.emotions;
    document.documentElement.dataset.threads = data.threads;
    for (const id of ["file", "webcam"]) element(id).disabled = false;
    return say("Ready.");
  }
  waiting.get(data.id)(data);
  waiting.delete(data.id);
};
worker.onerror = (event) => say(`The networks could not be loaded (${event.message}): reload the page.`, true);

/** Ask the worker for the faces of { file } or { frame }. */
function ask(request) {
  const id = ++count;
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    worker.postMessage({ id, ...request }, request.frame ? [request.frame.data.buffer] : []);
  });
}

function sentence(faces) {
  if (!faces.length) return "No face found.";
  const found = faces.length === 1 ? "One face found" : `${faces.length} faces found`;
  const named = faces.map(({ emotions }) => nameOf(names, emotions));
  if (faces.length > MANY) {
    const counts = [...names, "not sure"].map((name) => [name, named.filter((other) => other === name).length]);
    counts.sort(([, first], [, second]) => second - first);
    return `${found}: ${counts.filter(([, number]) => number).map((pair) => pair.join(" ")).join(", ")}.`;
  }
  const readings = faces.map(({ emotions }, i) => {
    return named[i] === "not sure" ? named[i] : `${named[i]} ${percent(likeliest(names, emotions).probability)}`;
  });
  return `${found}: ${readings.join(", ")}.`;
}

/** Give the memory of the last photograph back. */
const release = () => latest?.image.close?.();

function show(file, { image, width, ms }, faces) {
  release();
  latest = { file, faces, image };
  element("stage").classList.remove("empty");
  const labels = draw(element("canvas"), image, width, faces, names);
  element("canvas").dataset.labels = labels.join("; ");
  element("canvas").ariaLabel = faces.length ? `${file} with boxes around ${faces.length} faces` : `${file} without a face`;
  element("no-faces").hidden = faces.length > 0;
  element("no-faces").textContent = "No face found.";
  showCards(element("faces"), faces, names);
  document.querySelector("main").classList.toggle("many", faces.length > MANY);
  for (const id of SAVES) element(id).disabled = false;
  document.documentElement.dataset.ms = ms.toFixed(1);
}

/** Show no image: the last one must not pass for one that cannot be read. */
function clear() {
  release();
  latest = null;
  const canvas = Object.assign(element("canvas"), { width: 300, height: 150 }); // this clears it too
  canvas.ariaLabel = "No photograph";
  element("stage").classList.add("empty");
  element("faces").replaceChildren();
  document.querySelector("main").classList.remove("many");
  element("no-faces").hidden = true;
  for (const id of SAVES) element(id).disabled = true;
}

async function readPhoto(file) {
  stopWebcam();
  say(`Reading ${file.name} …`);
  const newest = count + 1;
  const answer = await ask({ file });
  if (count !== newest) return answer.image?.close(); // another photograph was given meanwhile
  if (answer.error) {
    clear();
    const reason = answer.error === "unreadable" ? "choose a JPEG, PNG, WebP, GIF or AVIF file" : answer.error;
    return say(`${file.name} cannot be read as an image: ${reason}.`, true);
  }
  show(file.name, answer, answer.faces);
  say(sentence(answer.faces));
}

function stopWebcam() {
  opening++;
  webcam?.stop();
  webcam = null;
  element("webcam").ariaPressed = "false";
}

async function startWebcam() {
  const request = ++opening;
  say("Waiting for the webcam …");
  element("webcam").disabled = true; // a second click would open it twice
  let opened;
  try {
    opened = await openWebcam();
  } catch (error) {
    if (request !== opening) return;
    const missing = error.name === "NotFoundError";
    const advice = "The webcam cannot be used: allow it in the browser, and close other programs that use it.";
    return say(missing ? "No camera was found: connect one, and try again." : advice, true);
  } finally {
    element("webcam").disabled = false;
  }
  if (request !== opening) return opened.stop(); // a photograph was given meanwhile
  webcam = opened;
  element("webcam").ariaPressed = "true";
  const tracks = new Tracks();
  while (webcam === opened) {
    const frame = await opened.frame();
    if (webcam !== opened) return;
    if (!frame) {
      stopWebcam();
      return say("The webcam stopped.", true);
    }
    const answer = await ask({ frame });
    if (webcam !== opened) return;
    if (answer.error) {
      stopWebcam();
      return say(`The webcam's image could not be read: ${answer.error}`, true);
    }
    const faces = tracks.update(performance.now() / 1000, answer.faces);
    show("webcam", { ...answer, image: opened.image }, faces);
    say(faces.length ? `Webcam: ${faces.length === 1 ? "one face" : `${faces.length} faces`} found.` : "Webcam: no face found.");
  }
}

function save(content, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = `${latest.file.replace(/\.\w+$/, "")}_faces.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const savedAs = {
  "save-image": () => element("canvas").toBlob((content) => save(content, "png")),
  "save-json": () => save(new Blob([json(names, latest.file, latest.faces)], { type: "application/json" }), "json"),
  "save-csv": () => save(new Blob([csv(names, latest.file, latest.faces)], { type: "text/csv" }), "csv"),
};
for (const [id, action] of Object.entries(savedAs)) element(id).onclick = action;

element("webcam").onclick = () => {
  if (!webcam) return startWebcam();
  stopWebcam();
  say("The webcam is off.");
};
element("file").onchange = ({ target }) => {
  if (target.files.length) readPhoto(target.files[0]);
  target.value = ""; // the same file can be chosen again
};

/** The first file of a drop or a paste is read. */
function take(event, { files }) {
  if (!files.length || element("file").disabled) return;
  event.preventDefault();
  readPhoto(files[0]);
}
document.onpaste = (event) => take(event, event.clipboardData);
document.ondragover = (event) => {
  event.preventDefault();
  element("stage").classList.add("over");
};
document.ondragleave = () => element("stage").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault(); // the browser would leave the page for the file
  element("stage").classList.remove("over");
  take(event, event.dataTransfer);
};
