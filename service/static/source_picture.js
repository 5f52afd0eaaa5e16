// The picture that a run begins from: chosen, dropped or taken from a run, with a mask that is drawn over it.

import { byId } from "/static/element.js";

// A larger picture is scaled down: no model here makes more of it, and what is sent stays small.
const LONGEST_SIDE = 1024;
const BRUSH = 1 / 14; // of the longer side
const PREFIX = "data:image/png;base64,";

let given = null; // its files as base64: { image, mask }, where mask is null until something is drawn
let onChange = () => {};

// What the form holds of it, null without a picture, or where the chosen models take none.
export function heldPicture() {
  if (!given || byId("picture-field").hidden) return null;
  return { ...given, strength: Number(byId("strength").value) };
}

// Shows a picture that was held before; null for none.
export function fillPicture(picture) {
  given = picture && { image: picture.image, mask: picture.mask };
  if (picture) {
    setStrength(picture.strength);
    show(picture);
  }
  byId("picture").hidden = !picture;
  byId("picture-none").hidden = Boolean(picture);
}

// Takes a picture, a Blob, from then on; tells when it is none.
export async function takePicture(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    byId("picture-status").textContent = "This is no picture that the browser can read.";
    return;
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = byId("picture-canvas");
  resize(canvas, Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  fillPicture({ image: base64(canvas), mask: null, strength: Number(byId("strength").value) });
  onChange();
}

// Offers pictures to models that take them, with marks at the noise levels of the first.
export function offerPicture(models) {
  byId("picture-field").hidden = !models.length || !models.every((model) => model.noise_levels?.length);
  const levels = models[0]?.noise_levels ?? [];
  byId("levels").replaceChildren(...levels.map((level) => new Option("", level)));
}

// Calls `changed` when another picture, mask or strength is held.
export function watchPicture(changed) {
  onChange = changed;
  byId("picture-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) takePicture(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
  const field = byId("picture-field");
  for (const name of ["dragover", "dragleave", "drop"]) {
    field.addEventListener(name, (event) => {
      event.preventDefault();
      field.classList.toggle("over", name === "dragover");
    });
  }
  field.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (file) takePicture(file);
  });
  byId("strength").addEventListener("input", ({ target }) => {
    target.dataset.chosen = "";
    setStrength(target.value);
  });
  byId("mask-clear").addEventListener("click", () => {
    clear();
    given.mask = null;
    onChange();
  });
  byId("picture-remove").addEventListener("click", () => {
    fillPicture(null);
    byId("picture-file").focus();
    onChange();
  });
  watchBrush(byId("mask-canvas"));
}

function watchBrush(canvas) {
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    stroke(last, next);
    last = next;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (!last) return;
      last = null;
      given.mask = base64(outline());
      if (byId("strength").dataset.chosen === undefined) setStrength(1); // as the API's default with a mask
      onChange();
    });
  }

  function place({ offsetX, offsetY }) {
    return [(offsetX * canvas.width) / canvas.clientWidth, (offsetY * canvas.height) / canvas.clientHeight];
  }
}

function stroke(from, to) {
  const canvas = byId("mask-canvas");
  const context = canvas.getContext("2d");
  context.lineCap = "round";
  context.lineWidth = Math.max(canvas.width, canvas.height) * BRUSH * 2;
  context.strokeStyle = "#e5309a";
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  byId("mask-clear").hidden = false;
}

// The mask as the API takes it: white where something was drawn, on black.
function outline() {
  const drawn = byId("mask-canvas");
  const canvas = document.createElement("canvas");
  resize(canvas, drawn.width, drawn.height);
  const context = canvas.getContext("2d");
  context.drawImage(drawn, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "black";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

async function show({ image, mask }) {
  const picture = await loaded(image);
  const canvas = byId("picture-canvas");
  resize(canvas, picture.naturalWidth, picture.naturalHeight);
  canvas.getContext("2d").drawImage(picture, 0, 0);
  clear();
  byId("picture-status").textContent = "";
  if (mask) showMask(await loaded(mask));
}

function showMask(picture) {
  const canvas = byId("mask-canvas");
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([229, 48, 154, pixels.data[i]], i);
  context.putImageData(pixels, 0, 0);
  byId("mask-clear").hidden = false;
}

function clear() {
  const { width, height } = byId("picture-canvas");
  resize(byId("mask-canvas"), width, height); // which also empties it
  byId("mask-clear").hidden = true;
}

function setStrength(value) {
  byId("strength").value = value;
  byId("strength-value").textContent = Number(value).toFixed(2);
}

function loaded(data) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = PREFIX + data;
  });
}

function resize(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
}

function base64(canvas) {
  return canvas.toDataURL("image/png").slice(PREFIX.length);
}
