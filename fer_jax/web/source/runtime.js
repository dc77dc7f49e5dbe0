// The wasm module of TensorFlow.js: with threads where the page may share memory, else with one.

const FOLDER = "tfjs/";
// The arguments of its two functions that take shapes.
const ADD = ["number", "array", "number", "number", "array", "number", "number", "number"];
const MIRROR_PAD = ["number", "array", "number", "number", "array", "array", "number", "number"];

/** Load the module, and its number of threads. */
export async function load() {
  const threads = self.crossOriginIsolated ? Number(self.name) || 1 : 1; // the page names its worker by their number
  const name = threads > 1 ? "tfjs-backend-wasm-threaded-simd" : "tfjs-backend-wasm";
  importScripts(`${FOLDER}${name}.js`);
  const make = threads > 1 ? self.WasmBackendModuleThreadedSimd : self.WasmBackendModule;
  const wasm = await make({
    locateFile: (file) => FOLDER + file.replace("tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm"),
    mainScriptUrlOrBlob: new URL(`${FOLDER}${name}.js`, location).href,
  });
  wasm._init_with_threads_count(threads);
  wasm.add = wasm.cwrap("Add", null, ADD);
  wasm.mirrorPad = wasm.cwrap("MirrorPad", null, MIRROR_PAD);
  return { wasm, threads };
}
