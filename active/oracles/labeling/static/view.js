// What is on the screen: the image or the grid, its caption, the strip, what the run is doing.
import {clock} from "./conflicts.js";
import {showRun} from "./curve.js";
import {capital, showDoing} from "./doing.js";
import {by, make} from "./dom.js";
import {ahead, large, picture} from "./pictures.js";
import {answerOf, answers, imageOf, isAnswered, isAsked, isComplete, message, quoted, session} from "./session.js";

const N_AHEAD = 4;
const usesKeyboard = matchMedia("(hover: hover) and (pointer: fine)").matches;

export function show() {
  const asked = isAsked();
  const done = session.images.filter(isAnswered).length;
  by("round").textContent = asked ? `Round ${session.round}${session.part ? `, part ${session.part + 1}` : ""}: ${done} of ${session.images.length} labeled` : capital(session.state.doing.text);
  by("bar").hidden = !asked;
  by("bar").max = Math.max(session.images.length, 1);
  by("bar").value = done;
  by("single").hidden = !asked || session.isGrid;
  by("grid").hidden = !asked || !session.isGrid;
  by("strip").hidden = !asked || session.isGrid;
  by("choice").hidden = !asked;
  by("waiting").hidden = asked;
  by("grid-button").setAttribute("aria-pressed", String(session.isGrid));
  by("grid-button").disabled = by("zoom-button").disabled = !asked;
  document.title = asked ? `${done} of ${session.images.length}, round ${session.round} · ${session.about.dataset}` : `${session.about.dataset}: ${session.state.doing.text}`;
  showRun(session.state, session.about.classes);
  if (asked) showQuestion();
  else {
    message("");
    showDoing(session.state.doing, session.about);
    if (session.state.doing.kind === "ended") by("spoken").textContent = capital(session.state.doing.text);
  }
}

function showQuestion() {
  const buttons = by("strip").querySelectorAll("button");
  session.images.forEach((image, place) => {
    const own = answerOf(image);
    buttons[place].classList.toggle("answered", own.answer !== null);
    buttons[place].setAttribute("aria-current", String(image === session.current));
    buttons[place].tabIndex = image === session.current ? 0 : -1; // one stop of Tab: the arrows move on
    const label = `Image ${place + 1}: ${own.answer === null ? "no label yet" : quoted(own.answer)}`;
    if (buttons[place].title !== label) {
      buttons[place].title = label;
      buttons[place].setAttribute("aria-label", label);
    }
  });
  if (session.isGrid) session.grid.show(session.images.filter((image) => !isAnswered(image)), session.about.classes);
  showCaption();
  if (isComplete()) {
    const wait = session.state.grace ? ` in ${session.state.grace} seconds` : "";
    message(`All ${session.images.length} are labeled: the run goes on${wait}. Enter: now. U: take the last answer back.`);
  }
  session.choice.hear(session.state);
}

function showCaption() {
  const own = session.current && (answers.get(session.current.number) ?? session.current);
  const place = session.images.indexOf(session.current);
  const parts = [make("span", {textContent: place >= 0 ? `${place + 1} of ${session.images.length}` : "earlier round: a new label replaces the old one"}),
    make("span", {textContent: session.current?.name ?? ""})];
  if (session.current?.score !== undefined) parts.push(make("span", {textContent: `score ${session.current.score.toPrecision(4)}`}));
  if (own && own.answer !== null && own.answer !== undefined) {
    parts.push(make("span", {className: "answer", textContent: quoted(own.answer) + (own.who ? `, ${own.who}` : "") + (own.time ? `, ${clock(own.time)}` : "")}));
  }
  by("caption").replaceChildren(...parts);
}

export function goTo(image) {
  session.current = image;
  session.choice.clear();
  if (!image) return;
  session.seen = answerOf(image).number;
  const shown = large(image.number);
  shown.alt = session.images.includes(image) ? `Image ${session.images.indexOf(image) + 1} of ${session.images.length}: ${image.name}` : `Earlier image: ${image.name}`;
  by("frame").replaceChildren(shown);
  shown.decode().catch(() => { if (session.current === image) message("This image cannot be shown. S skips it."); });
  ahead(around(image));
  if (session.state) showQuestion();
  const guesses = image.guesses.slice(0, 3).map(([label, share]) => `${session.about.classes[label]} ${Math.round(100 * share)} %`);
  by("spoken").textContent = `${shown.alt}. ${isAnswered(image) ? `Labeled ${quoted(answerOf(image).answer)}. ` : ""}Guesses: ${guesses.join(", ")}.`;
  by("strip").children[session.images.indexOf(image)]?.scrollIntoView({block: "nearest", inline: "nearest"});
}

// The numbers of an image, of the one before it, and of those that come next.
function around(image) {
  const place = session.images.indexOf(image);
  const next = [];
  for (let step = 1; step < session.images.length && next.length < N_AHEAD; step++) {
    const own = session.images[(place + step + session.images.length) % session.images.length];
    if (step === 1 || !isAnswered(own)) next.push(own.number);
  }
  return [image.number, ...(place > 0 ? [session.images[place - 1].number] : []), ...next];
}

export function focusHome() {
  if (session.isGrid && !session.choice.isTyping) session.grid.focus();
  else if (usesKeyboard && !by("choice").hidden) session.choice.filter.focus({preventScroll: true});
}

export function openExample(own) {
  if (session.isGrid) toggleGrid();
  answers.set(own.image, own);
  goTo(imageOf(own));
  focusHome();
}

export function step(by) {
  const place = session.images.indexOf(session.current);
  goTo(session.images[(place + by + session.images.length) % session.images.length]);
  focusHome();
}

export function openFilter() {
  session.choice.type("", true);
  session.choice.filter.focus();
  message("Filter: type a part of the class name.");
}

export function toggleGrid() {
  session.isGrid = !session.isGrid;
  if (session.isGrid) session.grid.cursor = 0;
  else if (session.grid.current) session.current = session.images.includes(session.grid.current) ? session.grid.current : session.current;
  show();
  if (!session.isGrid) goTo(session.current);
  session.choice.clear();
  focusHome();
}

export function openZoom() {
  const image = session.isGrid ? session.grid.current : session.current;
  if (!image) return;
  by("zoomed").replaceChildren(picture(image.number, "full", image.name));
  by("zoom").showModal();
  by("zoomed").focus();
}

export function showKeys() {
  by("keys").showModal();
}
