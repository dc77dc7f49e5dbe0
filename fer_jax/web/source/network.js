// A small interpreter of converted networks (see convert.py), on the kernels of TensorFlow.js's wasm backend.

const RELU = 1; // as in FusableActivation of tfjs-backend-wasm
const LINEAR = 0;
const FLOAT32 = 0; // as in its CppDType
const REFLECT = 0; // as in its MirrorPaddingMode

let nextId = 1; // 0 stands for "no tensor"

/** A tensor in the memory of the wasm module; its axes are batch, row, column, channel. */
class Tensor {
  constructor(wasm, shape) {
    this.wasm = wasm;
    this.shape = shape;
    this.id = nextId++;
    this.size = shape.reduce((product, length) => product * length, 1);
    this.start = wasm._malloc(4 * this.size) >>> 0;
    wasm._register_tensor(this.id, this.size, this.start);
  }

  /** A view that is valid until the next tensor is made: the memory may move when it grows. */
  get values() {
    return new Float32Array(this.wasm.HEAPU8.buffer, this.start, this.size);
  }

  free() {
    this.wasm._dispose_data(this.id);
    this.wasm._free(this.start);
  }
}

const OPERATIONS = {
  conv(wasm, { filter, bias, kernel, stride, pad, channels, depthwise, relu }, x) {
    const [batch, height, width] = x.shape;
    const [top, right, bottom, left] = pad;
    const rows = Math.floor((height + top + bottom - kernel[0]) / stride[0]) + 1;
    const columns = Math.floor((width + left + right - kernel[1]) / stride[1]) + 1;
    const y = new Tensor(wasm, [batch, rows, columns, channels[1]]);
    const run = depthwise ? wasm._FusedDepthwiseConv2D : wasm._FusedConv2D;
    run(x.id, batch, height, width, filter.id, ...kernel, bias.id, ...pad, 0, 1, 1, ...stride, ...channels,
      relu ? RELU : LINEAR, 0, 0, y.id);
    return y;
  },

  maximum(wasm, { kernel, stride, pad }, x) {
    const [batch, height, width, channels] = x.shape;
    const [top, right, bottom, left] = pad;
    const rows = Math.floor((height + top + bottom - kernel[0]) / stride[0]) + 1;
    const columns = Math.floor((width + left + right - kernel[1]) / stride[1]) + 1;
    const y = new Tensor(wasm, [batch, rows, columns, channels]);
    wasm._MaxPool(x.id, batch, height, width, ...kernel, ...pad, 1, 1, ...stride, channels, channels, y.id);
    return y;
  },

  add(wasm, _, a, b) {
    const y = new Tensor(wasm, a.shape);
    const shape = new Uint8Array(new Int32Array([a.size]).buffer);
    wasm.add(a.id, shape, 1, b.id, shape, 1, FLOAT32, y.id);
    return y;
  },

  enlarge(wasm, { factor }, x) {
    const [batch, height, width, channels] = x.shape;
    const y = new Tensor(wasm, [batch, factor * height, factor * width, channels]);
    wasm._ResizeNearestNeighbor(x.id, batch, height, width, channels, factor * height, factor * width, 0, 0, y.id);
    return y;
  },

  concatenate(wasm, _, ...parts) {
    const sizes = parts.map((part) => part.shape[3]);
    const channels = sizes.reduce((sum, size) => sum + size);
    const y = new Tensor(wasm, [...parts[0].shape.slice(0, 3), channels]);
    const target = y.values;
    let first = 0;
    parts.forEach((part, i) => {
      const source = part.values;
      for (let from = 0, to = first; from < source.length; from += sizes[i], to += channels) {
        for (let channel = 0; channel < sizes[i]; channel++) target[to + channel] = source[from + channel];
      }
      first += sizes[i];
    });
    return y;
  },

  mirror(wasm, _, x) {
    const [batch, height, width, channels] = x.shape;
    const y = new Tensor(wasm, [batch, height + 2, width + 2, channels]);
    const [shape, border] = [x.shape, [0, 1, 1, 0]].map((numbers) => new Uint8Array(new Int32Array(numbers).buffer));
    wasm.mirrorPad(x.id, shape, 4, FLOAT32, border, border, REFLECT, y.id);
    return y;
  },

  scale(wasm, { factor, summand }, x) {
    const y = new Tensor(wasm, x.shape);
    const source = x.values;
    y.values.forEach((_, i, target) => (target[i] = source[i] * factor + summand));
    return y;
  },

  /** Each block of pixels becomes one pixel with the channels of all. */
  fold(wasm, { block }, x) {
    const [batch, height, width, channels] = x.shape;
    const y = new Tensor(wasm, [batch, height / block, width / block, block * block * channels]);
    const source = x.values;
    const target = y.values;
    let from = 0;
    for (let row = 0; row < batch * height; row++) {
      for (let column = 0; column < width; column++) {
        const place = Math.floor(row / block) * (width / block) + Math.floor(column / block);
        const part = (row % block) * block + (column % block);
        for (let to = (place * block * block + part) * channels, i = 0; i < channels; i++) target[to + i] = source[from++];
      }
    }
    return y;
  },

  channels(wasm, { first, last }, x) {
    const channels = x.shape[3];
    const y = new Tensor(wasm, [...x.shape.slice(0, 3), last - first]);
    const source = x.values;
    y.values.forEach((_, i, target) => {
      const pixel = Math.floor(i / (last - first));
      target[i] = source[pixel * channels + first + (i % (last - first))];
    });
    return y;
  },

  mean(wasm, _, x) {
    const [batch, height, width, channels] = x.shape;
    const y = new Tensor(wasm, [batch, 1, 1, channels]);
    const source = x.values;
    const target = y.values.fill(0);
    source.forEach((value, i) => {
      target[Math.floor(i / (height * width * channels)) * channels + (i % channels)] += value / (height * width);
    });
    return y;
  },

  softmax(wasm, _, x) {
    const y = new Tensor(wasm, x.shape);
    const channels = x.shape[3];
    for (let start = 0; start < x.size; start += channels) {
      const logits = x.values.subarray(start, start + channels);
      const largest = Math.max(...logits);
      const powers = logits.map((logit) => Math.exp(logit - largest));
      const sum = powers.reduce((a, b) => a + b);
      y.values.set(powers.map((power) => power / sum), start);
    }
    return y;
  },
};

/** The weights of half precision as floats. */
function fromHalf(halves) {
  // The bits of a half, moved to their places in a float, are 2^112 times too small: exponents are counted from 15, not 127.
  const magnitudes = new Float32Array(Uint32Array.from(halves, (half) => (half & 0x7fff) << 13).buffer);
  return magnitudes.map((magnitude, i) => magnitude * (halves[i] & 0x8000 ? -(2 ** 112) : 2 ** 112));
}

/** A network: the operations in order, and its weights in the memory of the wasm module. */
export class Network {
  constructor(wasm, bytes) {
    const length = new DataView(bytes).getUint32(0, true);
    const { operations, weights, outputs, facts } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    this.wasm = wasm;
    this.facts = facts;
    this.outputs = outputs;
    const tensors = weights.map(({ start, count, half }) => {
      const tensor = new Tensor(wasm, [count]);
      const offset = 4 + length + start;
      tensor.values.set(half ? fromHalf(new Uint16Array(bytes, offset, count)) : new Float32Array(bytes, offset, count));
      return tensor;
    });
    const lastUse = new Map();
    operations.forEach(({ inputs }, i) => inputs.forEach((name) => lastUse.set(name, i)));
    this.steps = operations.map((operation, i) => ({
      ...operation,
      filter: tensors[operation.filter],
      bias: tensors[operation.bias],
      finished: operation.inputs.filter((name) => lastUse.get(name) === i && !outputs.includes(name)),
    }));
  }

  /** The outputs by name, each { shape, values }, of numbers of the given shape: batch, row, column, channel. */
  run(numbers, shape) {
    const image = new Tensor(this.wasm, shape);
    image.values.set(numbers);
    const tensors = new Map([["image", image]]);
    for (const step of this.steps) {
      const inputs = step.inputs.map((name) => tensors.get(name));
      tensors.set(step.output, OPERATIONS[step.name](this.wasm, step, ...inputs));
      for (const name of new Set(step.finished)) tensors.get(name).free();
    }
    return Object.fromEntries(
      this.outputs.map((name) => {
        const tensor = tensors.get(name);
        const values = tensor.values.slice();
        tensor.free();
        return [name, { shape: tensor.shape, values }];
      }),
    );
  }
}
