// The latest runs, kept in this browser: what was asked, and thumbnails of what came.

const KEY = "fourstep-history";
const MAX_RUNS = 24;
const THUMBNAILS = 4;
const THUMBNAIL_PX = 64;
// A run from a larger picture, as base64, is not kept: the others would have to make room for it.
const LARGEST_PICTURE = 200_000;

export function pastRuns() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return []; // not ours, or no storage
  }
}

// Keeps `asked` (what the form held) with thumbnails of `pictures` (loaded img elements), the newest first.
export function remember(asked, pictures) {
  if (asked.picture && asked.picture.image.length > LARGEST_PICTURE) return;
  const thumbnails = pictures.slice(0, THUMBNAILS).map(thumbnail);
  const others = pastRuns().filter((run) => JSON.stringify(run.asked) !== JSON.stringify(asked));
  store([{ asked, thumbnails }, ...others].slice(0, MAX_RUNS));
}

export function forget() {
  localStorage.removeItem(KEY);
}

// Drops the oldest run until the browser takes it.
function store(runs) {
  for (let kept = runs; kept.length; kept = kept.slice(0, -1)) {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
      return;
    } catch {
      continue;
    }
  }
}

function thumbnail(picture) {
  const canvas = document.createElement("canvas");
  canvas.width = THUMBNAIL_PX;
  canvas.height = THUMBNAIL_PX;
  canvas.getContext("2d").drawImage(picture, 0, 0, THUMBNAIL_PX, THUMBNAIL_PX);
  return canvas.toDataURL("image/webp", 0.8);
}
