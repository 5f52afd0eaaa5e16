// The pictures of one model in one run: its name and cost, the time it took, and a card for each picture.

import { make } from "/static/element.js";
import { course, start, unfinished } from "/static/job.js";
import { PictureCard } from "/static/picture_card.js";

export class ResultPanel {
  constructor(model, wanted, handlers) {
    this.model = model;
    this.facts = make("p", { class: "facts" }, "waiting");
    this.cards = Array.from({ length: wanted.num_images }, () => new PictureCard(wanted, model, handlers));
    const list = make("ul", { class: "cards" }, ...this.cards.map((card) => card.element));
    const title = make("h2", {}, model.name);
    this.warnings = make("p", { class: "warnings" });
    const parts = [title, this.facts, this.warnings, list];
    this.element = make("section", { class: "panel", "aria-label": `Pictures of ${model.name}` }, ...parts);
  }

  // Makes the images of `request` and shows their course; calls `onStart` once the server has taken it. Throws a Problem.
  async run(request, signal, onStart) {
    const began = performance.now();
    this.#tell("drawing…");
    const { images, state } = await drawInto(this.cards, request, signal, onStart);
    this.seconds = (performance.now() - began) / 1000;
    this.diversity = state.diversity;
    this.warnings.textContent = (state.warnings ?? []).map(({ field, message }) => `${field}: ${message}`).join("\n");
    this.#tell(`${this.seconds.toFixed(2)} s`);
    return images;
  }

  // Leaves what was made; a panel without any picture goes.
  giveUp() {
    this.#tell("stopped");
    for (const card of this.cards) card.giveUp();
    if (this.made.length === 0) this.element.remove();
  }

  tellFasterThan(other) {
    this.#tell(`${this.seconds.toFixed(2)} s`, `${(other.seconds / this.seconds).toFixed(1)}× faster`);
  }

  // The cards that have a picture.
  get made() {
    return this.cards.filter((card) => card.image);
  }

  #tell(...parts) {
    const evaluations = `${this.model.evaluations} evaluations`;
    const score = this.diversity ? [`diversity ${this.diversity.score.toFixed(2)}`] : [];
    this.facts.replaceChildren([evaluations, ...parts, ...score].join(" · "));
  }
}

// Has `request` drawn into `cards`; resolves to the images in order and the job's final state. Throws a Problem.
export async function drawInto(cards, request, signal, onStart = () => {}) {
  const job = await start(request, signal);
  onStart();
  const images = [];
  const shown = [];
  for await (const event of course(job.id)) {
    const { name, data } = event;
    if (unfinished(event)) throw unfinished(event);
    if (name === "preview") cards[data.index].preview(data);
    if (name === "image") {
      images.push(data);
      shown.push(cards[data.index].finish(data));
    }
    if (name === "completed") {
      await Promise.all(shown);
      return { images: images.sort((a, b) => a.index - b.index), state: data };
    }
  }
}

export function counted(pictures) {
  return pictures === 1 ? "1 picture" : `${pictures} pictures`;
}
