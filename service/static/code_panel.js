// The same call in several languages, in tabs, with a button that copies what is shown.

import { LANGUAGES } from "/static/call_code.js";
import { callLink } from "/static/call_link.js";
import { copy } from "/static/clipboard.js";
import { byId, make } from "/static/element.js";

const KEPT = "fourstep-language";

let shown = { title: "", body: {}, wanted: {} };
let tabs = [];

// Shows the request `body` as code; `wanted` is the same as the form holds it, and `title` says what it is.
export function showCode(title, body, wanted) {
  shown = { title, body, wanted };
  for (const [id, file] of [["code-picture", body.image], ["code-mask", body.mask]]) {
    byId(id).hidden = !file;
    if (file) byId(id).href = `data:image/png;base64,${file}`;
  }
  byId("code-of").textContent = title;
  render();
}

// Brings the code into view, for who asked to see it.
export function goToCode() {
  byId("code").scrollIntoView({ block: "nearest" });
  current().focus({ preventScroll: true });
}

export function watchCode() {
  tabs = LANGUAGES.map(({ id, name }) => {
    const tab = make("button", { type: "button", role: "tab", id: `code-${id}`, "aria-controls": "code-text" }, name);
    tab.addEventListener("click", () => keep(tab));
    return tab;
  });
  byId("code-tabs").replaceChildren(...tabs);
  byId("code-tabs").addEventListener("keydown", move);
  byId("code-copy").addEventListener("click", () => {
    const name = current().textContent;
    copy(byId("code-text").textContent, byId("code-status"), `The ${name} code is copied.`);
  });
  byId("code-link").addEventListener("click", () => {
    const without = shown.wanted.picture ? ", without its picture" : "";
    copy(callLink(shown.wanted), byId("code-status"), `The link is copied: it fills this form in${without}.`);
  });
  select(tabs.find((tab) => tab.id === localStorage.getItem(KEPT)) ?? tabs[0]);
}

function current() {
  return tabs.find((tab) => tab.ariaSelected === "true");
}

function select(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
  }
  byId("code-text").setAttribute("aria-labelledby", chosen.id);
  render();
}

function keep(chosen) {
  localStorage.setItem(KEPT, chosen.id);
  select(chosen);
}

function move(event) {
  const at = tabs.indexOf(current());
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return;
  event.preventDefault(); // Home and End would scroll the page
  const next = tabs.at(to % tabs.length);
  keep(next);
  next.focus();
}

function render() {
  const { code } = LANGUAGES[tabs.indexOf(current())];
  byId("code-text").textContent = code(shown.body, location.origin, !byId("key-field").hidden);
  byId("code-status").textContent = "";
}
