// The pixels of a photograph or of a frame of the webcam, upright and opaque, as in fer_jax/data/images.py.
// Both classes have a width, a height and read(left, top, right, bottom), which returns { width, height, data }, RGBA.

const GREY = "rgb(128 128 128)"; // behind transparent areas
const PIXELS = 2 ** 24; // of images that are kept as bytes
const SHOWN = 1600; // pixels: the longer side of the copy that the page shows

const canvas = new OffscreenCanvas(1, 1); // one for all: the memory of a canvas is given back late
const context = canvas.getContext("2d", { willReadFrequently: true });

/** Decode an image file; the browser turns it upright by its EXIF tag. Colour profiles are ignored, as Pillow does. */
export const decode = (file) => createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });

/** A decoded image as a photograph. */
export function photographOf(bitmap) {
  const photograph = new Photograph(bitmap);
  const { width, height } = bitmap;
  return width * height <= PIXELS ? new Pixels(photograph.read(0, 0, width, height)) : photograph;
}

/** A large photograph: it stays in the decoder's memory and is read by parts. */
class Photograph {
  constructor(bitmap) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
  }

  read(left, top, right, bottom) {
    const [width, height] = [right - left, bottom - top];
    Object.assign(canvas, { width, height });
    context.fillStyle = GREY;
    context.fillRect(0, 0, width, height);
    context.drawImage(this.bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }
}

/** An image of bytes. */
export class Pixels {
  constructor({ width, height, data }) {
    Object.assign(this, { width, height, data });
  }

  read(left, top, right, bottom) {
    const [width, height] = [right - left, bottom - top];
    if (width === this.width && height === this.height) return this;
    const data = new Uint8ClampedArray(4 * width * height);
    for (let y = 0; y < height; y++) {
      const start = 4 * ((top + y) * this.width + left);
      data.set(this.data.subarray(start, start + 4 * width), 4 * y * width);
    }
    return { width, height, data };
  }
}

/** A copy to show. */
export async function copy(bitmap) {
  const scale = Math.min(1, SHOWN / Math.max(bitmap.width, bitmap.height));
  const [resizeWidth, resizeHeight] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  return createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "medium" });
}
