"use strict";
// Texts only ever become text nodes: none is read as HTML.
const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const MEMORY = 2 ** 31; // bytes of feature maps that a browser is asked for; WebAssembly has 4 GiB in all
const SMALLEST = 2 ** 16; // pixels; a photo is not made smaller than this where memory runs out
const asked = new URLSearchParams(location.search).get("with"); // "wasm" or "webgpu", to choose how it computes

let photo = null; // { picture, name }
let most = Math.floor(MEMORY / settings.bytesPerPixel); // pixels at once
let chosen = 0; // counts files
let run = 0; // counts photos and choices of size: only the last one is shown
let worker = null; // { way, thread, working } once its model is loaded

class Plain extends Error {} // whose message is for the visitor

// ---- files

const files = new Map(); // promises; kept for a worker that must start again

function load(file, folders, loaded) {
  if (!files.has(file.name))
    files.set(file.name, download(file, folders, loaded).catch((error) => {
      files.delete(file.name); // so that it can be tried again
      throw error;
    }));
  return files.get(file.name);
}

async function download({ name, integrity }, folders, loaded) {
  for (const folder of folders) {
    try {
      const cache = folder ? "default" : "no-cache"; // the model may have been exported again under its name
      const response = await fetch(new URL(folder + name, document.baseURI), { credentials: "omit", cache,
        ...(integrity && !globalThis.crypto?.subtle ? { integrity } : {}) }); // elsewhere checked below, to show progress
      if (!response.ok) throw new Error(response.statusText);
      const parts = [], reader = response.body.getReader();
      for (let part; !(part = await reader.read()).done; parts.push(part.value)) loaded(part.value.length);
      const content = await new Blob(parts).arrayBuffer();
      if (integrity && globalThis.crypto?.subtle) {
        const hash = new Uint8Array(await crypto.subtle.digest("SHA-384", content));
        if (integrity !== `sha384-${btoa(String.fromCharCode(...hash))}`) throw new Error("another file");
      }
      return content;
    } catch (error) {
      console.warn(`${folder}${name}: ${error.message}`);
    }
  }
  throw new Plain(`The file ${name} could not be loaded: check the connection, and choose the photo again.`);
}

async function loadAll(way) {
  const [script, binary] = settings.runtime.files[way], total = script.bytes + binary.bytes + settings.model.bytes;
  let done = 0, over = false;
  const loaded = (bytes) => {
    done += bytes;
    if (!over) // when one file has failed, the others may still arrive
      say(`Loading the painter, once: ${(Math.min(done, total) / 1e6).toFixed(0)} of ${(total / 1e6).toFixed(0)} MB`, done / total);
  };
  loaded(0);
  const { folders } = settings.runtime;
  const all = [load(script, folders, loaded), load(binary, folders, loaded), load(settings.model, [""], loaded)];
  const [program, wasm, model] = await Promise.all(all).finally(() => (over = true));
  return { script: program, binary: wasm, model };
}

// ---- the worker

async function ways() {
  if (asked === "wasm" || asked === "webgpu") return [asked];
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter && !adapter.info?.isFallbackAdapter ? ["webgpu", "wasm"] : ["wasm"];
}

async function start(mine) {
  if (typeof WebAssembly !== "object") throw new Plain("This browser has no WebAssembly: open the page in a current one.");
  let reason;
  for (const way of worker ? [worker.way] : await ways()) {
    const content = await loadAll(way);
    if (mine !== run) return null;
    say("Preparing the painter");
    const answer = await fetch("worker.js", { cache: "no-cache" });
    if (!answer.ok) throw new Plain("The file worker.js could not be loaded: check the connection, and choose the photo again.");
    const code = await answer.blob();
    const thread = new Worker(URL.createObjectURL(code), { type: "module" }); // it may do what this page may, no more
    try {
      const { multiple, least, check } = settings;
      const { threads } = await ask(thread, { way, ...content, multiple, least, check });
      return { way, thread, threads };
    } catch (error) {
      reason = error;
      console.warn(`${way}: ${error.message}`);
      thread.terminate();
    }
  }
  throw new Plain(`The model cannot run in this browser (${reason.message.slice(0, 200)}): try another one.`);
}

function ask(thread, message) {
  return new Promise((resolve, reject) => {
    thread.onmessage = ({ data }) => ("failed" in data ? reject(new Error(data.failed)) : resolve(data));
    thread.onerror = (event) => reject(new Error(event.message || "the worker stopped"));
    thread.postMessage(message);
  });
}

// ---- painting

async function paint() {
  const mine = ++run;
  if (worker?.working) { // on a photo that nobody waits for any more
    worker.thread?.terminate();
    worker.thread = null;
  }
  document.body.classList.add("blank", "busy");
  $("error").hidden = true;
  $("note").textContent = "";
  URL.revokeObjectURL($("download").href);
  $("download").removeAttribute("href");
  try {
    for (;;) {
      const { width, height, pixels } = shrink();
      if (!worker?.thread) {
        const started = await start(mine);
        if (mine !== run) return void started?.thread.terminate();
        worker = started;
      }
      const stop = count(width * height);
      worker.working = true;
      try {
        const { painted, seconds } = await ask(worker.thread, { pixels, width, height });
        if (mine !== run) return;
        worker.working = false;
        worker.speed = (width * height) / seconds;
        await show(mine, painted, width, height, seconds);
        return;
      } catch (error) { // most likely memory: again, with half the pixels, in a worker that has all of its memory
        if (mine !== run) return;
        console.warn(error.message);
        worker.thread.terminate();
        worker.thread = null;
        if (width * height <= SMALLEST) throw new Plain(`The photo could not be painted (${error.message.slice(0, 200)}): reload the page, or try another browser.`);
        most = Math.floor((width * height) / 2);
        offerSizes(most);
      } finally {
        stop();
      }
    }
  } catch (error) {
    if (mine !== run) return;
    document.body.classList.remove("busy");
    fail(error instanceof Plain ? error.message : `Something went wrong (${error.message}): reload the page.`);
  }
}

// The photo at the size that is chosen, on the canvas and as bytes.
function shrink() {
  const { picture } = photo, limit = Math.min(Number($("size").value), most);
  const scale = Math.min(1, Math.sqrt(limit / (picture.width * picture.height)));
  const canvas = $("before");
  canvas.width = Math.max(1, Math.floor(picture.width * scale + 1e-6));
  canvas.height = Math.max(1, Math.floor(picture.height * scale + 1e-6));
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const { width, height } = canvas;
  $("view").style.setProperty("--aspect", `${width} / ${height}`);
  $("view").style.setProperty("--widest", `min(${Math.max(width, 480)}px, ${(70 * width) / height}vh)`);
  $("drop").hidden = true;
  $("result").hidden = false;
  return { width, height, pixels: context.getImageData(0, 0, width, height).data };
}

async function show(mine, painted, width, height, seconds) {
  const canvas = $("after"), { picture, name } = photo;
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(painted, width, height), 0, 0);
  const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (mine !== run) return;
  $("download").href = URL.createObjectURL(file);
  $("download").download = `${name}_${settings.name}.png`.replace(/[^\w.-]+/g, "_");
  const smaller = width < picture.width || height < picture.height;
  $("note").textContent = (smaller ? `The photo was made smaller, from ${size(picture)} to ${size({ width, height })} pixels. ` : "") +
    `Painted in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s ${worker.way === "webgpu" ? "on the graphics card (WebGPU)"
      : "on the processor (WebAssembly)"}.`;
  $("work").hidden = true;
  document.body.classList.remove("blank", "busy");
  split(100, false);
  requestAnimationFrame(() => requestAnimationFrame(() => split(50, false)));
}

const size = ({ width, height }) => `${width} × ${height}`;

// Tells how long it takes, from the last painting's speed; returns what ends that.
function count(pixels) {
  const begun = performance.now(), expected = worker.speed && (1.05 * pixels) / worker.speed;
  const tell = () => {
    const seconds = (performance.now() - begun) / 1000;
    const left = expected - seconds > 1 ? `, about ${Math.ceil(expected - seconds)} s left` : "";
    say(`Painting: ${Math.floor(seconds)} s${left}`, left ? seconds / expected : undefined);
  };
  tell();
  const timer = setInterval(tell, 500);
  return () => clearInterval(timer);
}

function say(text, share) {
  $("work").hidden = false;
  $("doing").textContent = text;
  if (share === undefined) $("progress").removeAttribute("value");
  else $("progress").value = Math.min(share, 1);
}

function fail(text) {
  $("work").hidden = true;
  $("error").textContent = text;
  $("error").hidden = false;
}

// ---- choosing

async function choose(file) {
  if (!file) return;
  if (location.protocol === "file:")
    return fail("Browsers let no page from the disk load its model: in this folder run “python -m http.server”, and open http://localhost:8000.");
  const mine = ++chosen;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    if (mine === chosen) fail(`${file.name || "What was pasted"} cannot be read as a picture: choose a JPEG, PNG or WebP.`);
    return;
  }
  if (mine !== chosen) return picture.close(); // another was chosen meanwhile
  photo?.picture.close();
  photo = { picture, name: (file.name || "photo").replace(/\.[^.]*$/, "").slice(0, 60) };
  offerSizes();
  await paint();
}

function offerSizes(wish = settings.pixels) {
  const { picture } = photo, whole = picture.width * picture.height, select = $("size");
  const sizes = [...new Set([0.25e6, settings.pixels, 4e6, 16e6])].filter((pixels) => pixels < 0.8 * Math.min(whole, most));
  sizes.push(Math.min(whole, most));
  sizes.sort((a, b) => a - b);
  const label = (pixels) => {
    const millions = Number((pixels / 1e6).toPrecision(2));
    return pixels === whole ? "whole photo" : `up to ${millions} megapixel${millions === 1 ? "" : "s"}`;
  };
  select.replaceChildren(...sizes.map((pixels) => new Option(label(pixels), pixels)));
  select.value = sizes.filter((pixels) => pixels <= wish).at(-1) ?? sizes[0];
  $("sizes").hidden = sizes.length < 2;
}

function split(percent, held = true) {
  $("view").classList.toggle("held", held);
  $("view").style.setProperty("--at", `${percent}%`);
  $("split").value = percent;
}

$("file").addEventListener("change", () => {
  choose($("file").files[0]);
  $("file").value = ""; // so that the same photo can be chosen again
});
$("size").addEventListener("change", paint);
$("split").addEventListener("input", () => split($("split").value));
let inside = 0; // elements that a dragged file is over
addEventListener("dragenter", () => ($("over").hidden = ++inside === 0));
addEventListener("dragleave", () => ($("over").hidden = --inside <= 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("over").hidden = true;
  choose(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
