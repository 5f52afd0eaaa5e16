// What the form holds as the body of POST /generate: only what differs from the API's defaults.

// `model` may be missing while none is ready; it is named in the body where `named`, since others are served too.
export function requestBody({ prompt, num_images, seed, diverse, size, format, picture }, model, named) {
  return {
    prompt,
    ...(num_images > 1 && { num_images }),
    ...(seed !== null && { seed }),
    ...(diverse && num_images > 1 && { select: { diverse: true } }),
    ...(named && model && { model: model.name }),
    ...sides(size, model),
    ...(format && format !== "png" && { format }),
    ...(picture && { strength: picture.strength, image: picture.image, ...(picture.mask && { mask: picture.mask }) }),
  };
}

// Nothing for the native size, which is the model's first.
function sides(size, model) {
  if (!size || !model || size === sizeName(model.sizes[0])) return {};
  const [width, height] = size.split("x").map(Number);
  return { width, height };
}

// The models' sizes are pairs of height and width.
export function sizeName([height, width]) {
  return `${width}x${height}`;
}
