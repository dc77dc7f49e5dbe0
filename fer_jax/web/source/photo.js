// The pixels of a photograph or of a frame of the webcam, upright and opaque, as in fer_jax/data/images.py.

const GREY = "rgb(128 128 128)"; // behind transparent areas
const PIXELS = 2 ** 24; // of images that are kept as bytes; larger ones stay in the decoder's memory and are read by parts
const SHOWN = 1600; // pixels: the longer side of the copy that the page shows

/** Decode an image file; the browser turns it upright by its EXIF tag. Colour profiles are ignored, as Pillow does. */
export const decode = (file) => createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });

export class Photo {
  #canvas = new OffscreenCanvas(1, 1);
  #pixels;

  constructor(bitmap) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    if (this.width * this.height <= PIXELS) this.#pixels = this.#draw(0, 0, this.width, this.height);
  }

  /** The pixels of a part: { width, height, data }, RGBA. */
  read(left, top, right, bottom) {
    const pixels = this.#pixels;
    if (!pixels) return this.#draw(left, top, right, bottom);
    const [width, height] = [right - left, bottom - top];
    if (width === this.width && height === this.height) return pixels;
    const data = new Uint8ClampedArray(4 * width * height);
    for (let y = 0; y < height; y++) {
      const start = 4 * ((top + y) * this.width + left);
      data.set(pixels.data.subarray(start, start + 4 * width), 4 * y * width);
    }
    return { width, height, data };
  }

  #draw(left, top, right, bottom) {
    const [width, height] = [right - left, bottom - top];
    Object.assign(this.#canvas, { width, height });
    const context = this.#canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = GREY;
    context.fillRect(0, 0, width, height);
    context.drawImage(this.bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  /** A copy to show. */
  async copy() {
    const scale = Math.min(1, SHOWN / Math.max(this.width, this.height));
    const [resizeWidth, resizeHeight] = [this.width, this.height].map((length) => Math.max(1, Math.round(length * scale)));
    return createImageBitmap(this.bitmap, { resizeWidth, resizeHeight, resizeQuality: "medium" });
  }
}
