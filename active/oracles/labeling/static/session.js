// What this page holds: the question, its answers, and which image is meant. One object, which all parts of the page share.
import {by} from "./dom.js";

export const WORDS = {n: "none", s: "skip"}; // by their keys

export const session = {
  about: null, // what does not change
  state: null, // the run's, as it was told last
  round: null, // of the images that are shown
  part: 0, // of the round: skipped images may be replaced by others
  images: [], // of the question
  current: null, // an image of the question, or one of an earlier round
  seen: 0, // the number of its answer when it came on the screen
  isGrid: false,
  isBusy: false, // an answer is on its way
  classes: null, choice: null, conflicts: null, grid: null, // the parts with their own state
};
export const answers = new Map(); // by the number of an image

export const answerOf = (image) => answers.get(image.number) ?? {answer: null, number: 0, who: "", time: ""};
export const isAnswered = (image) => answerOf(image).answer !== null;
export const isShown = (news) => news.round === session.round && news.part === session.part;
export const isAsked = () => session.state?.doing.kind === "asking" && session.round !== null && isShown(session.state);
export const isComplete = () => isAsked() && session.images.every(isAnswered);
export const quoted = (answer) => session.classes.called(answer);
export const guessed = () => (session.isGrid ? session.grid.current : session.current)?.guesses ?? [];

export const imageOf = ({image, name}) => session.images.find((own) => own.number === image) ?? {number: image, name, guesses: []};

// Store the answer to an image, unless a newer one is known: news and responses may overtake each other.
export function know(own) {
  if ((answers.get(own.image)?.number ?? 0) <= own.number) answers.set(own.image, own);
}

export function message(text) {
  if (by("message").textContent !== text) by("message").textContent = text;
}

export function say(text) {
  by("alert").hidden = !text;
  if (by("alert").textContent !== text) by("alert").textContent = text;
}
