// One picture enlarged, in a dialog: with what made it, and what can be done with it.

import { copy } from "/static/clipboard.js";
import { byId } from "/static/element.js";

// Share of the window that a picture may fill beside its text (wide windows) or above it.
const WIDE = { width: 0.6, height: 0.8 };
const NARROW = { width: 0.86, height: 0.55 };
const NARROW_PX = 720;

let cards = () => [];
let shown = null;

// `madeCards` are the cards with pictures, in order; the others are called with the card that is shown.
export function watchViewer(madeCards, { onCode, onSeed, onBegin }) {
  cards = madeCards;
  byId("viewer").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) go(step);
  });
  byId("viewer").addEventListener("click", (event) => {
    if (event.target === byId("viewer")) close(); // the ground beside it
  });
  byId("viewer-next").addEventListener("click", () => go(1));
  byId("viewer-previous").addEventListener("click", () => go(-1));
  byId("viewer-close").addEventListener("click", close);
  byId("viewer-link").addEventListener("click", copyLink);
  byId("viewer-code").addEventListener("click", () => leaveFor(onCode));
  byId("viewer-seed").addEventListener("click", () => leaveFor(onSeed));
  byId("viewer-begin").addEventListener("click", () => leaveFor(onBegin));
  byId("pixels").addEventListener("change", resize);
  addEventListener("resize", () => byId("viewer").open && resize());
}

export function enlarge(card) {
  show(card);
  byId("viewer").showModal();
}

function show(card) {
  shown = card;
  const { image, model, picture } = card;
  const all = cards();
  byId("viewer-title").textContent = `Seed ${image.seed}`;
  byId("viewer-prompt").textContent = card.wanted.prompt;
  byId("viewer-place").textContent = `${all.indexOf(card) + 1} of ${all.length}`;
  byId("viewer-made").textContent = `${model.name}, ${model.evaluations} evaluations`;
  byId("viewer-status").textContent = "";
  byId("viewer-begin").hidden = !model.noise_levels?.length;
  for (const id of ["viewer-next", "viewer-previous"]) byId(id).hidden = all.length < 2;
  byId("viewer-picture").src = card.path;
  byId("viewer-picture").alt = picture.alt;
  byId("viewer-download").href = card.path;
  byId("viewer-download").download = card.fileName;
  resize();
}

// Small pictures at a whole multiple of their size, so that all their pixels are equally large; large ones fitted in.
function resize() {
  const { width, height, format } = shown.image;
  const share = innerWidth < NARROW_PX ? NARROW : WIDE;
  const fitting = Math.min((share.width * innerWidth) / width, (share.height * innerHeight) / height);
  const scale = fitting > 1 ? Math.floor(fitting) : fitting;
  const picture = byId("viewer-picture");
  picture.style.width = `${Math.round(width * scale)}px`;
  picture.style.height = `${Math.round(height * scale)}px`;
  picture.classList.toggle("pixels", byId("pixels").checked);
  byId("pixels-field").hidden = scale < 2;
  const shownAt = scale > 1 ? `, shown ${scale} times as large` : scale < 1 ? `, shown at ${Math.round(100 * scale)}%` : "";
  byId("viewer-size").textContent = `${width} × ${height} ${format.toUpperCase()}${shownAt}`;
}

function go(step) {
  const all = cards();
  show(all[(all.indexOf(shown) + step + all.length) % all.length]);
}

function close() {
  byId("viewer").close();
}

function leaveFor(next) {
  close();
  next(shown);
}

function copyLink() {
  const seconds = shown.model.settings.result_ttl_s;
  const kept = seconds ? ` It works for ${lasting(seconds)} after the picture was made.` : "";
  copy(new URL(shown.path, location.href).href, byId("viewer-status"), `The link is copied.${kept}`);
}

function lasting(seconds) {
  const [unit, length] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, of]) => seconds >= of) ?? ["second", 1];
  const count = Math.round(seconds / length);
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}
