// One picture on the page: a waiting frame, then its previews, then the picture with its seed.

import { drawsWhenPressed } from "/static/drawing.js";
import { make } from "/static/element.js";

// Small artwork is shown this many times larger at most.
const MAX_ENLARGED = 4;
const NAME_CHARS = 40;

export class PictureCard {
  // `wanted` is what the form held; `onAgain` and `onEnlarge` are called with this card, once it has a picture.
  constructor(wanted, model, { onAgain, onEnlarge }) {
    const [width, height] = wanted.size ? wanted.size.split("x") : [...model.sizes[0]].reverse();
    this.wanted = wanted;
    this.model = model;
    this.image = null;
    this.onAgain = onAgain;
    this.picture = make("img", { alt: "", hidden: "" });
    this.progress = make("span", { class: "progress", "aria-hidden": "true" });
    this.opener = make("button", { type: "button", class: "frame waiting", disabled: "" }, this.picture, this.progress);
    this.opener.addEventListener("click", () => onEnlarge(this));
    this.caption = make("figcaption", {}, "…");
    this.actions = make("div", { class: "picture-actions" });
    this.opener.style.aspectRatio = `${width} / ${height}`;
    const figure = make("figure", {}, this.opener, this.caption, this.actions);
    figure.style.maxWidth = `${MAX_ENLARGED * width}px`;
    this.element = make("li", {}, figure);
  }

  // Waits for another picture, over the one that is there.
  wait() {
    this.opener.classList.add("waiting");
  }

  preview({ b64, format, step, steps }) {
    this.#show(`data:image/${format};base64,${b64}`);
    this.progress.textContent = `${step} / ${steps}`;
  }

  async finish(image) {
    this.image = image;
    this.picture.width = image.width;
    this.picture.height = image.height;
    this.picture.alt = `${this.wanted.prompt}, seed ${image.seed}`;
    this.caption.textContent = `seed ${image.seed}`;
    this.opener.disabled = false;
    this.opener.title = "Enlarge";
    this.opener.setAttribute("aria-haspopup", "dialog");
    if (!this.actions.hasChildNodes()) this.#offerActions();
    this.#settle();
    await this.picture.decode();
  }

  // Goes back to the picture that was there; a card that never had one goes.
  giveUp() {
    if (this.image) this.#settle();
    else this.element.remove();
  }

  // Where the picture lies on this server.
  get path() {
    return new URL(this.image.url).pathname;
  }

  get fileName() {
    const words = this.wanted.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
    return `${[...words.join("-")].slice(0, NAME_CHARS).join("")}-${this.image.seed}.${this.image.format}`;
  }

  #offerActions() {
    const again = make("button", { type: "button", class: "quiet small", "aria-label": `Again with seed ${this.image.seed}` }, "Again");
    drawsWhenPressed(again, () => this.onAgain(this));
    this.download = make("a", { class: "button quiet small", "aria-label": `Download seed ${this.image.seed}` }, "Download");
    this.actions.replaceChildren(again, this.download);
  }

  #settle() {
    this.#show(this.path);
    this.download.href = this.path;
    this.download.download = this.fileName;
    this.progress.textContent = "";
    this.opener.classList.remove("waiting");
  }

  #show(source) {
    this.picture.src = source;
    this.picture.hidden = false;
  }
}
