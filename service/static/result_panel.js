// The pictures of one model in one run: its name and cost, the time it took, and a card for each picture.

import { make } from "/static/element.js";
import { course, start } from "/static/job.js";
import { PictureCard } from "/static/picture_card.js";
import { Problem } from "/static/api.js";

export class ResultPanel {
  constructor(model, prompt, count, handlers) {
    this.model = model;
    this.facts = make("p", { class: "facts" }, "waiting");
    this.cards = Array.from({ length: count }, () => new PictureCard(prompt, model, handlers));
    const list = make("ul", { class: "cards" }, ...this.cards.map((card) => card.element));
    const title = make("h2", {}, model.name);
    this.warnings = make("p", { class: "warnings" });
    const parts = [title, this.facts, this.warnings, list];
    this.element = make("section", { class: "panel", "aria-label": `Pictures of ${model.name}` }, ...parts);
  }

  // Makes the images of `request` and shows their course; `onStart` is told the job's id. Throws a Problem.
  async run(request, onStart) {
    const began = performance.now();
    this.#tell("drawing…");
    try {
      const job = await start(request);
      this.started = true;
      onStart(job.id);
      const { images, state } = await this.#follow(job.id);
      this.seconds = (performance.now() - began) / 1000;
      this.diversity = state.diversity;
      this.warnings.textContent = (state.warnings ?? []).map(({ field, message }) => `${field}: ${message}`).join("\n");
      this.#tell(`${this.seconds.toFixed(2)} s`);
      return images;
    } catch (problem) {
      this.giveUp();
      throw problem;
    }
  }

  // Leaves what was made; a panel whose job was refused, or never sent, goes.
  giveUp() {
    if (!this.started) this.element.remove();
    this.#tell("stopped");
    for (const card of this.cards) card.giveUp();
  }

  tellFasterThan(other) {
    this.#tell(`${this.seconds.toFixed(2)} s`, `${(other.seconds / this.seconds).toFixed(1)}× faster`);
  }

  get pictures() {
    return this.cards.map((card) => card.picture);
  }

  async #follow(jobId) {
    const images = [];
    const shown = [];
    for await (const { name, data } of course(jobId)) {
      if (name === "preview") this.cards[data.index].preview(data);
      if (name === "image") {
        images.push({ ...data, model: this.model.name });
        shown.push(this.cards[data.index].finish(images.at(-1)));
      }
      if (name === "completed") {
        await Promise.all(shown);
        return { images: images.sort((a, b) => a.index - b.index), state: data };
      }
      if (["failed", "cancelled", "expired"].includes(name)) throw unfinished(name, data);
    }
  }

  #tell(...parts) {
    const evaluations = `${this.model.evaluations} evaluations`;
    const score = this.diversity ? [`diversity ${this.diversity.score.toFixed(2)}`] : [];
    this.facts.replaceChildren([evaluations, ...parts, ...score].join(" · "));
  }
}

export function counted(pictures) {
  return pictures === 1 ? "1 picture" : `${pictures} pictures`;
}

export const CANCELLED = "Cancelled";

const TITLES = {
  failed: "A picture could not be made",
  cancelled: CANCELLED,
  expired: "The server was too busy to draw this in time",
};

function unfinished(name, state) {
  return new Problem({ title: TITLES[name], detail: state.failures[0]?.detail });
}
