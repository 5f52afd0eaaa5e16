// One picture on the page: a waiting frame, then its previews, then the picture with its seed.

import { make } from "/static/element.js";

// Small artwork is shown this many times larger at most.
const MAX_ENLARGED = 4;

export class PictureCard {
  // `onAgain` and `onCurl` are called with the picture once there is one.
  constructor(prompt, model, { onAgain, onCurl }) {
    const [height, width] = model.sizes[0];
    this.prompt = prompt;
    this.handlers = { onAgain, onCurl };
    this.picture = make("img", { alt: "", hidden: "" });
    this.progress = make("span", { class: "progress", "aria-hidden": "true" });
    this.frame = make("div", { class: "frame waiting" }, this.picture, this.progress);
    this.caption = make("figcaption", {}, "…");
    this.actions = make("div", { class: "picture-actions" });
    this.frame.style.aspectRatio = `${width} / ${height}`;
    const figure = make("figure", {}, this.frame, this.caption, this.actions);
    figure.style.maxWidth = `${MAX_ENLARGED * width}px`;
    this.element = make("li", {}, figure);
  }

  preview({ b64, format, step, steps }) {
    this.#show(`data:image/${format};base64,${b64}`);
    this.progress.textContent = `${step} / ${steps}`;
  }

  async finish(image) {
    this.progress.remove();
    this.picture.width = image.width;
    this.picture.height = image.height;
    this.picture.alt = `${this.prompt}, seed ${image.seed}`;
    this.#show(new URL(image.url).pathname);
    this.frame.classList.remove("waiting");
    this.caption.textContent = `seed ${image.seed}`;
    this.actions.replaceChildren(
      this.#button("Again", `Again with seed ${image.seed}`, () => this.handlers.onAgain(image)),
      this.#button("curl", `Copy as curl, seed ${image.seed}`, () => this.handlers.onCurl(image)),
    );
    await this.picture.decode();
  }

  giveUp() {
    if (!this.frame.classList.contains("waiting")) return;
    this.frame.classList.replace("waiting", "missing");
    this.progress.remove();
    this.caption.textContent = "not made";
  }

  #show(source) {
    this.picture.src = source;
    this.picture.hidden = false;
  }

  #button(text, name, onClick) {
    const button = make("button", { type: "button", class: "quiet small", "aria-label": name }, text);
    button.addEventListener("click", onClick);
    return button;
  }
}
