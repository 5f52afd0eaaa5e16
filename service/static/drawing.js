// Whether pictures are being drawn: meanwhile, buttons that would draw others look disabled and do nothing.

let drawing = false;

export function isDrawing() {
  return drawing;
}

export function setDrawing(on) {
  drawing = on;
  for (const button of document.querySelectorAll("[data-draws]")) button.setAttribute("aria-disabled", drawing);
}

// Makes `button` call `draw` when it is pressed; it keeps the focus while it is disabled.
export function drawsWhenPressed(button, draw) {
  button.dataset.draws = "";
  button.setAttribute("aria-disabled", drawing);
  button.addEventListener("click", () => drawing || draw());
}
