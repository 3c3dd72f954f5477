// Images, fetched ahead. An image element that is kept is shown at once, whatever the browser's cache does.
import {make} from "./dom.js";

const TINY = 100; // pixels below which an image is enlarged without smoothing
const kept = new Map();

export function picture(number, size, alt) {
  const image = make("img", {alt, decoding: "async"});
  image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) < TINY));
  image.src = `images/${number}?size=${size}`;
  return image;
}

export function thumbnail(number, alt) {
  const image = make("img", {alt, loading: "lazy", decoding: "async"});
  image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) < TINY));
  image.src = `images/${number}?size=small`;
  return image;
}

export function large(number) {
  if (!kept.has(number)) kept.set(number, picture(number, "large", ""));
  return kept.get(number);
}

// Keep only these images, and fetch those that are not here yet.
export function ahead(numbers) {
  for (const number of [...kept.keys()]) if (!numbers.includes(number)) kept.delete(number);
  for (const number of numbers) large(number).decode().catch(() => {});
}
