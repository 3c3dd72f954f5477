// What the run does while nobody is asked, and how to go on once it has ended.
import {by} from "./dom.js";

export const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

export function showDoing({kind, text, done, total, unit}, {output}) {
  const bar = by("waiting-bar");
  const hasEnded = kind === "ended";
  const isFinished = hasEnded && text.includes("finished");
  bar.hidden = hasEnded;
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
  by("waiting-text").textContent = capital(total ? `${text}: ${done} of ${total} ${unit}${total === 1 ? "" : "s"}` : text);
  by("commands").hidden = !isFinished;
  by("commands").textContent = `python scripts/predict.py ${output} --sort-into sorted\npython scripts/export.py ${output} classifier`;
  by("waiting-more").textContent = isFinished ? "Every image sorted, and the classifier as one folder:" : hasEnded ? "" : "The next images appear here by themselves.";
  by("mending").hidden = !isFinished;
}
