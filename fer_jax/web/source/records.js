// Faces as a JSON record and as rows of a CSV table, in the form of `fer-jax predict`.

/** The likeliest emotion and its probability. */
export function likeliest(names, emotions) {
  const probability = Math.max(...emotions);
  return { emotion: names[emotions.indexOf(probability)], probability };
}

export function json(names, file, faces) {
  const records = faces.map(({ track, box, found, emotions }) => ({
    ...(track && { track }),
    box,
    found,
    ...likeliest(names, emotions),
    emotions: Object.fromEntries(names.map((name, i) => [name, emotions[i]])),
  }));
  return `[\n${JSON.stringify({ file, time_s: null, faces: records })}\n]\n`;
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

export function csv(names, file, faces) {
  const columns = ["file", "time_s", "face", "track", "x", "y", "width", "height", "found", "emotion", "probability"];
  const rows = faces.map(({ track, box, found, emotions }, i) => {
    const { emotion, probability } = likeliest(names, emotions);
    const numbers = [probability, ...emotions].map((value) => value.toFixed(6));
    return [quoted(file), "", i, track ?? "", ...box, found.toFixed(4), emotion, ...numbers];
  });
  return [[...columns, ...names], ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}
