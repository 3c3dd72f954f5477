// Answers: given, taken back, sent off. The next image is shown once an answer is on the disk.
import {Failed, post} from "./api.js";
import {by} from "./dom.js";
import {who} from "./people.js";
import {WORDS, answerOf, answers, imageOf, isAnswered, isAsked, know, message, quoted, say, session} from "./session.js";
import {focusHome, goTo, show} from "./view.js";

let meanwhile = []; // keys that were pressed while an answer was on its way

// Send an answer for the images that are meant.
export async function answer(said) {
  const targets = session.isGrid ? session.grid.targets : session.current ? [session.current] : [];
  if (!targets.length || !isAsked() || session.isBusy) return;
  performance.mark("answer");
  const place = session.images.indexOf(session.current);
  if (!await send(targets.map((image) => ({image: image.number, answer: said, seen: session.isGrid ? 0 : session.seen})))) return;
  message(`${targets.length > 1 ? `${targets.length} images` : place >= 0 && !session.isGrid ? `Image ${place + 1}` : targets[0].name}: ${quoted(said)}`);
  session.grid.selected.clear();
  if (session.isGrid) {
    show();
    session.choice.clear();
    focusHome();
    return typedMeanwhile();
  }
  const later = [...session.images.slice(place + 1), ...session.images.slice(0, place + 1)];
  goTo(later.find((image) => !isAnswered(image)) ?? session.images[Math.max(place, 0)]);
  show();
  focusHome();
  typedMeanwhile();
  const shown = by("frame").firstElementChild;
  await shown.decode().catch(() => {});
  requestAnimationFrame(() => performance.measure("next image", "answer"));
}

function setBusy(busy) {
  session.isBusy = busy;
  if (busy) meanwhile = [];
  document.querySelector("main").setAttribute("aria-busy", String(busy));
}

// The new answer of an image. One of an earlier round remembers the answer before, since it cannot be left without one.
function taking(image, said, number, isUndo) {
  const before = answerOf({number: image});
  const replaced = isUndo || session.images.some((own) => own.number === image) ? undefined : before.answer;
  return {...before, image, answer: said, number, replaced, who: who(), time: new Date().toISOString()};
}

export async function send(given, isUndo = false) {
  setBusy(true);
  try {
    const taken = await post("answers", {who: who(), round: session.round, answers: given});
    const against = new Map(taken.conflicts.map((own) => [own.image, own]));
    for (const {image, answer: said} of given) {
      if (against.has(image)) know(against.get(image));
      else if (answers.get(image)?.answer !== said) know(taking(image, said, taken.number, isUndo));
    }
    say("");
    session.conflicts.add(given.filter(({image}) => against.has(image)).map((own) => ({there: against.get(own.image), own})));
    return !taken.conflicts.length;
  } catch (error) {
    if (!(error instanceof Failed) && !(error instanceof TypeError)) throw error;
    say(error instanceof Failed ? `Not taken: ${error.message}` : "Not taken: the run does not answer. It may have been stopped.");
    return false;
  } finally {
    setBusy(false);
  }
}

// Take the last answer of this person back, with those that were given together with it.
export async function undo() {
  if (session.isBusy) return;
  const mine = [...answers.values()].filter((own) => own.answer !== null && own.who === who() && own.number
    && (own.replaced !== undefined || session.images.some((image) => image.number === own.image)));
  if (!mine.length) return message("There is no answer of yours in this round to take back.");
  const last = mine.reduce((one, other) => (other.number > one.number ? other : one));
  const together = mine.filter((own) => own.number === last.number);
  if (!await send(together.map((own) => ({image: own.image, answer: own.replaced ?? null, seen: own.number})), true)) return;
  const place = session.images.indexOf(imageOf(last));
  message(`Taken back: ${together.length > 1 ? `${together.length} images` : place >= 0 ? `image ${place + 1}` : last.name}, ${quoted(last.answer)}`);
  goTo(imageOf(last));
  show();
  focusHome();
  typedMeanwhile();
}

export async function sendOff() {
  try {
    await post("send", {round: session.round});
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    message(error.message);
  }
}

export function keepForLater(key) {
  meanwhile.push(key);
}

// Do what was typed before the next image was there: undo, or the beginning of a name. No label for an image that nobody saw.
function typedMeanwhile() {
  const keys = meanwhile.filter((key) => [...key].length === 1);
  meanwhile = [];
  if (keys[0]?.toLowerCase() === "u") return undo();
  if (!keys.length || Object.hasOwn(WORDS, keys[0].toLowerCase()) || /[\d .?]/.test(keys[0])) return;
  const isOpened = keys[0] === "/";
  session.choice.type(keys.slice(Number(isOpened)).join(""), isOpened);
  session.choice.filter.focus();
}
