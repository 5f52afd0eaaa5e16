// The field for an API key, which is kept until the tab is closed.

import { apiKey } from "/static/api.js";
import { byId } from "/static/element.js";

// Calls `changed` when another key was typed.
export function watchKey(changed) {
  byId("key").value = apiKey.get();
  byId("key").addEventListener("change", (event) => {
    apiKey.set(event.target.value.trim());
    changed();
  });
}
