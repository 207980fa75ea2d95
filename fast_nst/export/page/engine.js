// Runs the networks with onnxruntime-web, in a worker, so that the page stays responsive.
// Takes messages {id, command, …} and answers {id, result}, {id, error} or, while it paints, {id, progress}.

const models = []; // {graphs: {name: bytes}, weights: bytes, overlap, span, styles: how many; 0 if it takes no style}
const sessions = new Map();
let ort;
let engine = "wasm";
let newest = 0; // id of the latest "paint" message
let queue = Promise.resolve(); // commands run one by one: a session cannot run twice at once

const commands = { start, model, paint };

onmessage = ({ data }) => {
  if (data.command === "paint") newest = data.id;
  queue = queue.then(async () => {
    try {
      postMessage({ id: data.id, result: await commands[data.command](data) });
    } catch (error) {
      postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  });
};

function model({ index, graphs, weights, overlap, span, styles }) {
  models[index] = { graphs, weights, overlap, span, styles };
}

// Choose the engine. WebGPU must give the same result as WebAssembly on a small picture: drivers have bugs.
async function start({ script, wasm, wanted }) {
  // Without a server, the page's worker may import only URLs that it made itself.
  ort = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.logLevel = "error";
  if (wanted !== "wasm" && (await hasGpu(wanted)) && (await gpuIsRight())) engine = "webgpu";
  return engine;
}

async function hasGpu(wanted) {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  // A fallback adapter is software, slower than WebAssembly.
  return Boolean(adapter) && (wanted === "webgpu" || !adapter.info?.isFallbackAdapter);
}

async function gpuIsRight() {
  const width = 64;
  const pixels = new Uint8ClampedArray(4 * width * width).map((_, i) => (i * 37 + (i >> 8) * 11) % 256);
  const style = models[0].styles ? new Float32Array(models[0].styles).fill(1 / models[0].styles) : null;
  const image = { pixels, width, height: width };
  try {
    const [a, b] = [await run(0, "whole", "wasm", image, style), await run(0, "whole", "webgpu", image, style)];
    return a.every((value, i) => Math.abs(value - b[i]) < 0.02); // false for NaN, too
  } catch {
    return false;
  }
}

async function session(index, graph, provider) {
  const key = `${index} ${graph} ${provider}`;
  if (!sessions.has(key)) {
    const { graphs, weights } = models[index];
    const made = await ort.InferenceSession.create(graphs[graph], {
      executionProviders: [provider === "webgpu" ? { name: "webgpu", preferredLayout: "NCHW" } : "wasm"],
      externalData: [{ path: "weights", data: weights }],
    });
    sessions.set(key, made);
  }
  return sessions.get(key);
}

// Run a graph on an RGBA image and return its first output as numbers.
async function run(index, graph, provider, image, style, statistics = null) {
  const { width, height } = image;
  const feeds = { content: new ort.Tensor("float32", toPlanes(image), [1, 3, height, width]) };
  if (style) feeds.style = new ort.Tensor("float32", style, [1, style.length]);
  if (statistics) feeds.statistics = new ort.Tensor("float32", statistics, [1, statistics.length]);
  const running = await session(index, graph, provider);
  const outputs = await running.run(feeds);
  return outputs[running.outputNames[0]].data;
}

function toPlanes({ pixels, width, height }) {
  const count = width * height;
  const planes = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) planes[c * count + i] = pixels[4 * i + c] / 255;
  }
  return planes;
}

// Paint `image`, {pixels: RGBA, width, height}; return {pixels: RGBA of the same size, engine}. small: a reduced copy
// if the image is to be painted in tiles, else null. provider: "wasm", or null for the chosen engine.
async function paint({ id, index, image, small, style, provider }) {
  try {
    return { pixels: await paintWith(provider ?? engine, id, index, image, small, style), engine: provider ?? engine };
  } catch (error) {
    if (id !== newest || provider || engine !== "webgpu") throw error;
    engine = "wasm"; // the graphics card failed or has no memory left
    return { pixels: await paintWith(engine, id, index, image, small, style), engine };
  }
}

async function paintWith(provider, id, index, image, small, style) {
  if (id !== newest) throw new Error("superseded");
  const { width, height } = image;
  const painted = new Uint8ClampedArray(4 * width * height).fill(255);
  if (!small) {
    const planes = await run(index, "whole", provider, image, style);
    copy(planes, width, height, painted, width, 0, 0, [0, 0, width, height]);
    return painted;
  }
  const tiled = "tiles" in models[index].graphs; // without instance norms, "whole" paints the tiles
  const statistics = tiled ? await run(index, "measure", provider, small, style) : null;
  const tiles = plan(width, height, models[index]);
  for (const [done, { x, y, w, h, keep }] of tiles.entries()) {
    postMessage({ id, progress: (done + 1) / (tiles.length + 1) });
    await new Promise((resolve) => setTimeout(resolve)); // lets messages in
    if (id !== newest) throw new Error("superseded");
    const tile = { pixels: crop(image, x, y, w, h), width: w, height: h };
    const planes = await run(index, tiled ? "tiles" : "whole", provider, tile, style, statistics);
    copy(planes, w, h, painted, width, x, y, keep);
  }
  return painted;
}

// Return the tiles of an image. Each has a start, x and y, a multiple of `span`, because the noise in the network
// repeats after that many pixels; a size, w and h; and the part to keep, [left, top, right, bottom], which the tile's
// edge does not affect.
function plan(width, height, { overlap, span }) {
  const spans = (side) => {
    const found = [];
    for (let start = 0; start === 0 || start + overlap < side; start += span) {
      const length = Math.min(span + 2 * overlap + (side % 4), side - start); // networks pad odd sides differently
      found.push([start, length, start ? overlap : 0, Math.min(span + overlap, length)]);
    }
    return found;
  };
  return spans(height).flatMap(([y, h, top, bottom]) =>
    spans(width).map(([x, w, left, right]) => ({ x, y, w, h, keep: [left, top, right, bottom] })),
  );
}

function crop({ pixels, width }, x, y, w, h) {
  const part = new Uint8ClampedArray(4 * w * h);
  for (let row = 0; row < h; row++) {
    const start = 4 * ((y + row) * width + x);
    part.set(pixels.subarray(start, start + 4 * w), 4 * w * row);
  }
  return part;
}

// Copy the part `keep` of a painted tile to its place in the picture.
function copy(planes, w, h, painted, width, x, y, [left, top, right, bottom]) {
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const to = 4 * ((y + row) * width + x + column);
      const from = row * w + column;
      for (let c = 0; c < 3; c++) painted[to + c] = 255 * planes[c * w * h + from]; // rounds, and clips to 0 to 255
    }
  }
}
