// The identity of faces over the frames of the webcam, and probabilities smoothed over time: fer_jax/faces/tracks.py.

const OVERLAP = 0.2; // the smallest intersection over union of two boxes of one face
const GAP = 1; // seconds: a face that was away for longer is a new one
const SMOOTH = 0.5; // seconds

export class Tracks {
  #tracks = [];
  #count = 0;
  #latest = 0; // the time of the last frame

  /** The faces of the next frame, each with the number `track` and smoothed probabilities. */
  update(time, faces) {
    const oldest = Math.min(time - GAP, this.#latest); // a face of the last frame stays on a slow computer too
    this.#tracks = this.#tracks.filter((track) => track.time >= oldest);
    this.#latest = time;
    const pairs = faces.flatMap((face) => this.#tracks.map((track) => ({ face, track, common: overlap(face.box, track.box) })));
    const matches = new Map();
    const taken = new Set();
    for (const { face, track, common } of pairs.sort((a, b) => b.common - a.common)) {
      if (common < OVERLAP || matches.has(face) || taken.has(track)) continue;
      matches.set(face, track);
      taken.add(track);
    }
    return faces.map((face) => {
      const track = matches.get(face) ?? this.#begin();
      const old = track.emotions ? Math.exp((track.time - time) / SMOOTH) : 0;
      const emotions = face.emotions.map((value, i) => (old ? old * track.emotions[i] : 0) + (1 - old) * value);
      Object.assign(track, { time, emotions, box: face.box });
      return { ...face, emotions, track: track.number };
    });
  }

  #begin() {
    const track = { number: ++this.#count };
    this.#tracks.push(track);
    return track;
  }
}

function overlap([x, y, width, height], [left, top, across, down]) {
  const common =
    Math.max(0, Math.min(x + width, left + across) - Math.max(x, left)) *
    Math.max(0, Math.min(y + height, top + down) - Math.max(y, top));
  return common / (width * height + across * down - common);
}
