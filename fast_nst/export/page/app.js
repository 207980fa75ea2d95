// The page: what the user sees and does. engine.js runs the networks, in a worker.

const $ = (id) => document.getElementById(id);
const MODELS = JSON.parse($("models").textContent); // see _data_files in page.py
const STYLES = MODELS.flatMap(({ styles }, index) => styles.map((name, k) => ({ name, index, k })));
const SMALLEST = Math.max(...MODELS.map((model) => model.smallest));
const SIDES = [512, 1024, 2048, 4096];
const THUMBNAIL = 96;
const ENGINES = { webgpu: "the graphics card (WebGPU)", wasm: "the processor (WebAssembly)" };
// WebKit on iOS crashes after a few hundred runs on the graphics card.
const IOS = /iPad|iPhone/.test(navigator.userAgent) || (navigator.platform === "MacIntel" && navigator.maxTouchPoints > 1);

let engine; // "webgpu" or "wasm"
let photo; // an ImageBitmap
let photoName = "photo";
let content; // ImageData: the photograph at the chosen size
let output; // Uint8ClampedArray, RGBA: what the network made of it
let latest = 0; // number of the latest painting requested
let thumbnailsOf; // the photograph that the styles' thumbnails show
let camera; // a <video> while the camera runs

// ---- Files inside the page, or next to it

async function bytes(name) {
  const inside = $(`data-${name}`);
  const data = inside
    ? Uint8Array.from(atob(inside.textContent), (letter) => letter.charCodeAt(0))
    : new Uint8Array(await (await fetch(`${name}.gz`)).arrayBuffer());
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data; // already unpacked by the server
  const unpacked = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}


// ---- The worker

const waiting = new Map();
let worker;
let count = 0;

function call(command, data = {}) {
  count += 1;
  worker.postMessage({ id: count, command, ...data });
  const id = count;
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

function receive({ data: { id, progress, result, error } }) {
  if (progress !== undefined) {
    $("progress").value = progress;
    return;
  }
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
}

const sent = new Map();

function sendModel(index) {
  if (!sent.has(index)) sent.set(index, readModel(index));
  return sent.get(index);
}

async function readModel(index) {
  const { name, graphs, overlap, span, conditional, styles } = MODELS[index];
  const entries = graphs.map(async (graph) => [graph, await bytes(`${name}.${graph}`)]);
  const weights = await bytes(`${name}.weights`);
  const data = { index, graphs: Object.fromEntries(await Promise.all(entries)), weights, overlap, span };
  await call("model", { ...data, styles: conditional ? styles.length : 0 });
}

async function start() {
  worker = new Worker(URL.createObjectURL(new Blob([await bytes("engine.js")], { type: "text/javascript" })));
  worker.onmessage = receive;
  worker.onerror = (event) => say(`The engine could not start: ${event.message}`, true);
  await sendModel(0);
  const wanted = new URLSearchParams(location.search).get("engine");
  engine = await call("start", { script: await bytes("ort.mjs"), wasm: await bytes("ort.wasm"), wanted });
  $("engine").textContent = `Runs on ${ENGINES[engine]}.`;
  $("choose").disabled = $("camera").disabled = false;
  say("");
  document.body.dataset.state = "ready";
}

// ---- Painting

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
  if (isError) document.body.dataset.state = "error";
}

const chosen = () => STYLES[Number(document.querySelector("input[name=style]:checked").value)];

// Return the style weights of a conditional network, whose sum is the strength; null for other networks.
function styleWeights({ index, k }) {
  const { conditional, styles } = MODELS[index];
  if (!conditional) return null;
  const weights = new Float32Array(styles.length);
  const second = $("second").value;
  const share = second === "" ? 0 : $("share").value / 100;
  weights[k] += (1 - share) * ($("strength").value / 100);
  if (second !== "") weights[Number(second)] += share * ($("strength").value / 100);
  return weights;
}

function draw(canvas, source, width, height) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // behind transparent pixels
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

const toImage = ({ data, width, height }) => ({ pixels: data, width, height });

// Return a copy of about `whole` pixels; null if the image has no more and so is painted at once.
function reduced(source, { width, height }, whole) {
  if (width * height <= whole) return null;
  const scale = Math.sqrt(whole / (width * height));
  return toImage(draw(document.createElement("canvas"), source, Math.round(scale * width), Math.round(scale * height)));
}

async function paint(style, source, image, provider = null) {
  await sendModel(style.index);
  const request = { index: style.index, image: toImage(image), small: reduced(source, image, MODELS[style.index].whole) };
  return call("paint", { ...request, style: styleWeights(style), provider });
}

async function repaint() {
  if (!photo || camera) return;
  const job = ++latest;
  document.body.dataset.state = "painting";
  $("progress").hidden = false;
  $("progress").removeAttribute("value");
  say("Painting …");
  const started = performance.now();
  try {
    const result = await paint(chosen(), photo, content);
    if (job !== latest) return;
    output = result.pixels;
    show();
    $("engine").textContent = `Runs on ${ENGINES[result.engine]}.`;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    say(`${content.width} × ${content.height} pixels, painted in ${seconds} s on ${ENGINES[result.engine]}`);
    document.body.dataset.state = "done";
    await drawThumbnails(job);
  } catch (error) {
    if (job !== latest) return;
    console.error(error);
    say("This size does not fit into the memory of this device. Choose a smaller one.", true);
  } finally {
    if (job === latest) $("progress").hidden = true;
  }
}

// Draw the output at the chosen strength, with its own or the photograph's colors.
function show() {
  const strength = MODELS[chosen().index].conditional ? 1 : $("strength").value / 100;
  const keep = $("keep").checked;
  const { data, width, height } = content;
  const mixed = new ImageData(width, height);
  for (let i = 0; i < data.length; i += 4) {
    // The difference in luma (BT.601), for keeping the photograph's colors.
    const lighter =
      0.299 * (output[i] - data[i]) + 0.587 * (output[i + 1] - data[i + 1]) + 0.114 * (output[i + 2] - data[i + 2]);
    for (let c = i; c < i + 3; c++) {
      const painted = keep ? Math.min(255, Math.max(0, data[c] + lighter)) : output[c];
      mixed.data[c] = data[c] + strength * (painted - data[c]);
    }
    mixed.data[i + 3] = 255;
  }
  Object.assign($("after"), { width, height });
  $("after").getContext("2d").putImageData(mixed, 0, 0);
}

async function drawThumbnails(job) {
  if (STYLES.length === 1 || thumbnailsOf === photo) return;
  const side = Math.min(photo.width, photo.height);
  const square = await createImageBitmap(photo, (photo.width - side) / 2, (photo.height - side) / 2, side, side);
  for (const [position, style] of STYLES.entries()) {
    const canvas = document.querySelectorAll("#styles canvas")[position];
    const image = draw(document.createElement("canvas"), square, THUMBNAIL, THUMBNAIL);
    const weights = new Float32Array(MODELS[style.index].styles.length);
    weights[style.k] = 1;
    await sendModel(style.index);
    if (job !== latest) return;
    const request = { index: style.index, image: toImage(image), small: null, provider: null };
    const conditional = MODELS[style.index].conditional;
    const { pixels } = await call("paint", { ...request, style: conditional ? weights : null });
    Object.assign(canvas, { width: THUMBNAIL, height: THUMBNAIL });
    canvas.getContext("2d").putImageData(new ImageData(pixels, THUMBNAIL), 0, 0);
  }
  thumbnailsOf = photo;
}

// ---- Photographs

function fit({ width, height }, longer) {
  const scale = Math.min(1, longer / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

async function open(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say(`${file.name ?? "This file"} is not a picture that this browser can read.`, true);
  }
  photoName = (file.name ?? "photo").replace(/\.[^.]*$/, "");
  return openBitmap(bitmap);
}

function openBitmap(bitmap) {
  if (Math.min(bitmap.width, bitmap.height) < SMALLEST) {
    return say(`The picture is too small; its sides must be at least ${SMALLEST} pixels.`, true);
  }
  stopCamera();
  photo = bitmap;
  $("size").replaceChildren();
  const longer = Math.max(photo.width, photo.height);
  const shorter = Math.min(photo.width, photo.height);
  const sides = SIDES.filter((side) => side < longer && (side * shorter) / longer >= SMALLEST);
  for (const side of [...sides, longer]) {
    const [width, height] = fit(photo, side);
    $("size").add(new Option(`${width} × ${height}${side === longer ? " (full size)" : ""}`, side));
  }
  const usual = engine === "webgpu" ? 2048 : 1024;
  $("size").value = [...sides, longer].findLast((side) => side <= usual) ?? longer;
  return resize();
}

function resize() {
  $("welcome").hidden = true;
  $("frame").hidden = $("controls").hidden = false;
  content = draw($("before"), photo, ...fit(photo, Number($("size").value)));
  output = content.data; // until it is painted
  show();
  return repaint();
}

// ---- The camera

async function startCamera() {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true });
  try {
    const wanted = { facingMode: { ideal: "environment" }, width: { ideal: 1920 } };
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
    await video.play();
  } catch (error) {
    return say(`The camera cannot be used: ${error.message}`, true);
  }
  camera = video;
  latest += 1; // drops a painting in progress
  $("welcome").hidden = $("progress").hidden = $("sizes").hidden = true;
  $("frame").hidden = $("controls").hidden = false;
  $("live").textContent = "Stop the camera";
  $("save").textContent = "Take a picture";
  return paintFrames();
}

function stopCamera() {
  camera?.srcObject.getTracks().forEach((track) => track.stop());
  camera = undefined;
  $("sizes").hidden = false;
  $("live").textContent = "Camera";
  $("save").textContent = "Download";
}

// Paint what the camera sees, at a size that runs smoothly on this device.
async function paintFrames() {
  let side = 256;
  document.body.dataset.state = "live";
  while (camera) {
    const started = performance.now();
    const seen = { width: camera.videoWidth, height: camera.videoHeight };
    const frame = draw($("before"), camera, ...fit(seen, side));
    try {
      const result = await paint(chosen(), camera, frame, IOS ? "wasm" : null);
      if (!camera) break;
      [content, output] = [frame, result.pixels];
      show();
    } catch (error) {
      stopCamera();
      say(`The camera's picture cannot be painted: ${error.message}`, true);
      return;
    }
    const seconds = (performance.now() - started) / 1000;
    say(`${frame.width} × ${frame.height} pixels, ${(1 / seconds).toFixed(1)} frames per second`);
    if (seconds > 0.2 && side > 128) side = Math.max(128, side - 32);
    if (seconds < 0.07 && side < 640) side += 32;
    await new Promise((resolve) => setTimeout(resolve)); // lets the page react
  }
}

// ---- What the user does

function listStyles() {
  $("styles").hidden = STYLES.length === 1;
  for (const [position, { name }] of STYLES.entries()) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "style", value: position });
    input.checked = position === 0;
    const canvas = Object.assign(document.createElement("canvas"), { width: THUMBNAIL, height: THUMBNAIL });
    canvas.setAttribute("aria-hidden", "true");
    label.append(input, canvas, Object.assign(document.createElement("span"), { textContent: name }));
    $("styles").querySelector("div").append(label);
  }
}

// Show the controls that the chosen network has.
function adapt() {
  const { index, k } = chosen();
  const { conditional, styles } = MODELS[index];
  $("mixing").hidden = styles.length < 2;
  $("strength").max = conditional ? 200 : 100;
  const before = $("second").value;
  $("second").replaceChildren(new Option("No other style", ""));
  styles.forEach((name, other) => other !== k && $("second").add(new Option(name, other)));
  $("second").value = [...$("second").options].some((option) => option.value === before) ? before : "";
  label();
}

function label() {
  $("share").disabled = $("second").value === "";
  for (const id of ["strength", "share"]) document.querySelector(`output[for=${id}]`).value = `${$(id).value} %`;
}

function save() {
  if (camera) {
    createImageBitmap(camera).then(openBitmap);
    return;
  }
  $("after").toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(blob),
      download: `${photoName}_${chosen().name.replaceAll(" ", "_")}.png`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

function listen() {
  for (const id of ["choose", "again"]) $(id).onclick = () => $("file").click();
  $("file").onchange = () => {
    if ($("file").files.length) open($("file").files[0]);
    $("file").value = ""; // so that the same file can be chosen again
  };
  for (const id of ["camera", "live"]) {
    $(id).hidden = !navigator.mediaDevices;
    $(id).onclick = () => (camera ? (stopCamera(), photo && resize()) : startCamera());
  }
  $("save").onclick = save;
  $("size").onchange = resize;
  $("controls").onsubmit = (event) => event.preventDefault();
  $("styles").onchange = $("second").onchange = () => (adapt(), repaint());
  $("divider").oninput = () => $("frame").style.setProperty("--at", `${$("divider").value}%`);
  $("share").oninput = label;
  $("share").onchange = repaint;
  $("keep").onchange = () => camera || show();
  $("strength").oninput = () => {
    label();
    if (!camera && !MODELS[chosen().index].conditional) requestAnimationFrame(show);
  };
  $("strength").onchange = () => MODELS[chosen().index].conditional && repaint();
  document.onpaste = ({ clipboardData }) => engine && clipboardData.files.length && open(clipboardData.files[0]);
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && engine && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
    });
  }
}

listStyles();
adapt();
listen();
start().catch((error) => say(`This browser cannot run the page: ${error.message}`, true));
