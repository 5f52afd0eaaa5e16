// Copying text, also where the browser has no clipboard, as without https.

import { byId } from "/static/element.js";

// Copies `text` and writes `said` into the live region `status`; without a clipboard, shows the text to be copied by hand.
export async function copy(text, status, said) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = said;
  } catch {
    byId("by-hand-text").value = text;
    byId("by-hand").showModal();
    byId("by-hand-text").select();
  }
}
