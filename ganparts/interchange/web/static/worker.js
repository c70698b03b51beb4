"use strict";
// Runs the model, away from the page, which so stays responsive. It is given all files, and asks no server.
let ort, session, numbers;

const answer = (message, handed = []) => postMessage(message, handed);

async function begin({ way, script, binary, model, ...rest }) {
  numbers = rest;
  ort = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = binary;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: [way], logSeverityLevel: 3 });
  await check(numbers.check);
}

// Paints a picture of which the page knows what PyTorch makes of it.
async function check({ side, every, values }) {
  const rgba = new Uint8ClampedArray(4 * side * side);
  for (let y = 0, at = 0; y < side; y++)
    for (let x = 0; x < side; x++, at += 4)
      for (let channel = 0; channel < 3; channel++)
        rgba[at + channel] = (7 * x + 13 * y + 29 * channel + 5 * Math.floor((x * y) / 8)) % 256;
  const painted = await paint(rgba, side, side);
  const expected = Uint8Array.from(atob(values), (letter) => letter.charCodeAt(0));
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    const at = i * every, area = side * side;
    difference += Math.abs(painted[4 * (at % area) + Math.floor(at / area)] - expected[i]);
  }
  if (!(difference / expected.length < 1)) throw new Error("what it computes differs from PyTorch");
}

// A row or column of a picture, where it is padded at its end: by reflection, or where it is too small, by its border.
const source = (at, size, reflect) => (at < size ? at : reflect ? 2 * size - 2 - at : size - 1);

async function paint(rgba, width, height) {
  const { multiple, least } = numbers;
  const [across, down] = [width, height].map((side) => Math.ceil(Math.max(side, least) / multiple) * multiple);
  const reflect = across - width < width && down - height < height;
  const area = across * down, images = new Float32Array(3 * area);
  for (let y = 0; y < down; y++) {
    const row = source(y, height, reflect) * width;
    for (let x = 0; x < across; x++) {
      const from = 4 * (row + source(x, width, reflect)), to = y * across + x;
      for (let channel = 0; channel < 3; channel++) images[channel * area + to] = rgba[from + channel] / 127.5 - 1;
    }
  }
  const input = new ort.Tensor("float32", images, [1, 3, down, across]);
  const { translated } = await session.run({ images: input });
  const result = new Uint8ClampedArray(4 * width * height); // rounds and clamps
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 4) {
      const from = y * across + x;
      for (let channel = 0; channel < 3; channel++)
        result[at + channel] = (translated.data[channel * area + from] + 1) * 127.5;
      result[at + 3] = 255;
    }
  translated.dispose();
  return result;
}

onmessage = async ({ data }) => {
  try {
    if (data.model) {
      await begin(data);
      answer({ ready: true, threads: ort.env.wasm.numThreads });
    } else {
      const start = performance.now();
      const painted = await paint(data.pixels, data.width, data.height);
      answer({ painted, seconds: (performance.now() - start) / 1000 }, [painted.buffer]);
    }
  } catch (error) {
    answer({ failed: String(error?.message ?? error).split("\n")[0] });
  }
};
