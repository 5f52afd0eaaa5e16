// The playground: sends the form to /generate and shows what comes back.

const element = (id) => document.getElementById(id);
const form = element("form");
const seed = element("seed");

async function showModel() {
  try {
    const answer = await fetch("/models");
    const { models } = await answer.json();
    const served = models.find((model) => model.workers.length > 0);
    if (served) {
      element("model").textContent = `${served.name} · ${served.steps} evaluations per image`;
      return;
    }
  } catch {
    // not reachable yet: asked again below
  }
  element("model").textContent = "Waiting for a worker…";
  setTimeout(showModel, 1000);
}

function request() {
  const body = { prompt: element("prompt").value, num_images: Number(element("count").value) };
  if (seed.value !== "") body.seed = Number(seed.value);
  return body;
}

async function generate() {
  const answer = await fetch("/generate", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request()),
  });
  if (!answer.headers.get("Content-Type")?.includes("json")) {
    throw { title: `The server answered ${answer.status}` };
  }
  const body = await answer.json();
  if (!answer.ok) throw body;
  return body;
}

function card(image) {
  const picture = document.createElement("img");
  picture.src = `data:image/${image.format};base64,${image.b64}`;
  picture.width = image.width;
  picture.height = image.height;
  picture.alt = `${element("prompt").value}, seed ${image.seed}`;
  const caption = document.createElement("figcaption");
  caption.textContent = `seed ${image.seed}`;
  const figure = document.createElement("figure");
  figure.append(picture, caption);
  const item = document.createElement("li");
  item.append(figure);
  return item;
}

function showImages(body, seconds) {
  element("images").replaceChildren(...body.images.map(card));
  element("status").textContent = `${body.images.length} image(s) in ${seconds.toFixed(2)} s`;
  if (element("lock").checked) seed.value = body.images[0].seed;
}

function showError(problem) {
  const box = element("error");
  const title = document.createElement("strong");
  title.textContent = problem.title ?? "The server does not answer";
  const details = document.createElement("ul");
  const lines = problem.errors?.map((error) => `${error.field}: ${error.message}`) ?? [problem.detail];
  for (const line of lines.filter(Boolean)) {
    const item = document.createElement("li");
    item.textContent = line;
    details.append(item);
  }
  box.replaceChildren(title, details);
  box.hidden = false;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const began = performance.now();
  element("error").hidden = true;
  element("generate").disabled = true;
  element("status").textContent = "Generating…";
  try {
    showImages(await generate(), (performance.now() - began) / 1000);
  } catch (problem) {
    element("status").textContent = "";
    showError(problem);
  } finally {
    element("generate").disabled = false;
  }
});

element("lock").addEventListener("change", (event) => {
  const shown = document.querySelector("figcaption");
  if (!event.target.checked) seed.value = "";
  else if (seed.value === "" && shown) seed.value = shown.textContent.replace("seed ", "");
});

// Enter sends, Shift+Enter makes a new line.
element("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

showModel();
