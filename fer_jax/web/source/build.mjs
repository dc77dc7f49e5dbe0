// Bundles the page's scripts and copies its other files: node build.mjs FOLDER

import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const source = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2];
const tfjs = join(source, "node_modules/@tensorflow/tfjs-backend-wasm/wasm-out");
const copy = async (from, to) => writeFile(to, await readFile(from)); // without the modes of the package's files
const shared = { bundle: true, minify: true, outdir: target, target: ["chrome110", "firefox115", "safari16.4"] };

await build({ ...shared, entryPoints: [join(source, "page.js")], format: "esm" });
await build({ ...shared, entryPoints: [join(source, "worker.js")], format: "iife" });
for (const name of ["index.html", "page.css", "icon.svg", "licences.txt"]) await copy(join(source, name), join(target, name));

await mkdir(join(target, "tfjs"), { recursive: true });
const parts = ["tfjs-backend-wasm.js", "tfjs-backend-wasm-simd.wasm", "tfjs-backend-wasm-threaded-simd.js", "tfjs-backend-wasm-threaded-simd.wasm"];
for (const name of parts) await copy(join(tfjs, name), join(target, "tfjs", name));
// The package holds the script of its threads as a string, for a blob; the page's security policy wants a file.
// Its line breaks stand inside of strings.
const worker = "tfjs-backend-wasm-threaded-simd.worker.js";
const { wasmWorkerContents } = createRequire(import.meta.url)(join(tfjs, worker));
await writeFile(join(target, "tfjs", worker), wasmWorkerContents.replaceAll("\n", "\\n"));
