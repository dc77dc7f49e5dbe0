// What the page shows of an image's faces: boxes in the image, and a card with eight bars for each face.

import { likeliest } from "./records.js";

export const MANY = 3; // more faces than these are counted in the sentence, and have their cards under the image
export const SURE = 0.6; // an expression is named from this probability on; docs/browser.md has the accuracy

/** The name of the face's expression, or "not sure". */
export function nameOf(names, emotions) {
  const { emotion, probability } = likeliest(names, emotions);
  return probability >= SURE ? emotion : "not sure";
}

export const percent = (probability) => `${Math.round(100 * probability)} %`;

/** Draw an image with the boxes of its faces, and return their labels: numbers alone where names would overlap. */
export function draw(canvas, image, width, faces, names) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    Object.assign(canvas, { width: image.width, height: image.height });
  }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, image.width, image.height);
  context.drawImage(image, 0, 0);
  const scale = image.width / width;
  const line = Math.max(2, Math.max(image.width, image.height) / 300);
  const colours = getComputedStyle(document.documentElement);
  const unit = image.width / (canvas.clientWidth || image.width); // image pixels for a pixel of the page
  const labels = faces.map(({ box, emotions, track }, i) => {
    const [x, y, across] = box.map((length) => length * scale);
    const size = Math.max(12 * unit, Math.min(9 * line, across / 6));
    return { number: `${track ?? i + 1}`, name: nameOf(names, emotions), x, y, size };
  });
  const withNames = labels.map((label) => place(context, `${label.number} ${label.name}`, label));
  const crowded = withNames.some((one, i) => withNames.slice(0, i).some((other) => overlap(one, other)));
  faces.forEach(({ box }, i) => {
    const [x, y, across, down] = box.map((length) => length * scale);
    const { name } = labels[i];
    context.lineWidth = 2 * line;
    context.strokeStyle = "#000000";
    context.strokeRect(x, y, across, down);
    context.lineWidth = line;
    context.strokeStyle = name === "not sure" ? "#ffffff" : colours.getPropertyValue(`--${name}`);
    context.strokeRect(x, y, across, down);
  });
  const shown = crowded ? labels.map((label) => place(context, label.number, label)) : withNames;
  shown.forEach((label) => write(context, label));
  return shown.map(({ text }) => text);
}

/** The place of a label: above its box, or inside its top where the image ends. */
function place(context, text, { x, y, size }) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  const [width, height] = [context.measureText(text).width + size * 0.6, size * 1.4];
  const left = Math.max(0, Math.min(x, context.canvas.width - width));
  return { text, size, left, top: y >= height ? y - height : Math.max(y, 0), width, height };
}

function overlap(one, other) {
  return (
    Math.max(one.left, other.left) < Math.min(one.left + one.width, other.left + other.width) &&
    Math.max(one.top, other.top) < Math.min(one.top + one.height, other.top + other.height)
  );
}

function write(context, { text, size, left, top, width, height }) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillStyle = "rgb(0 0 0 / 75%)";
  context.fillRect(left, top, width, height);
  context.fillStyle = "#ffffff";
  context.fillText(text, left + size * 0.3, top + height / 2);
}

const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Update the cards of a list; a card stays while its face does, so that the bars move. */
export function showCards(list, faces, names) {
  const cards = new Map([...list.children].map((card) => [card.dataset.face, card]));
  const shown = faces.map(({ emotions, track }, i) => {
    const number = `${track ?? i + 1}`;
    const card = cards.get(number) ?? newCard(number, names);
    card.querySelector(".name").textContent = nameOf(names, emotions);
    card.querySelectorAll("li").forEach((row, j) => {
      row.querySelector("i").style.transform = `scaleX(${emotions[j].toFixed(4)})`;
      row.querySelector(".value").textContent = percent(emotions[j]);
    });
    return card;
  });
  if (shown.length !== list.children.length || shown.some((card, i) => card !== list.children[i])) list.replaceChildren(...shown);
}

function newCard(number, names) {
  const card = make("li");
  card.dataset.face = number;
  const title = make("h3");
  title.append(make("span", "", `Face ${number}:`), make("span", "name"));
  const rows = make("ul");
  for (const name of names) {
    const row = make("li");
    const bar = make("span", "bar");
    bar.ariaHidden = "true";
    bar.append(make("i"));
    bar.firstChild.style.background = `var(--${name})`;
    row.append(make("span", "", name), bar, make("span", "value"));
    rows.append(row);
  }
  card.append(title, rows);
  return card;
}
