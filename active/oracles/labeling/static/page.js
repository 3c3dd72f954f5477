// The page: what is asked, what was answered, and what each key does. The run decides; the page shows.
import {Failed, get, post} from "./api.js";
import {Choice} from "./choice.js";
import {Classes} from "./classes.js";
import {Conflicts, clock} from "./conflicts.js";
import {showRun} from "./curve.js";
import {capital, showDoing} from "./doing.js";
import {by, make} from "./dom.js";
import {Grid} from "./grid.js";
import {knowPeople, who} from "./people.js";
import {ahead, large, picture, thumbnail} from "./pictures.js";

const N_AHEAD = 4;
const RETRY_MS = 2000;
const WORDS = {n: "none", s: "skip"};
const usesKeyboard = matchMedia("(hover: hover) and (pointer: fine)").matches;

let about, classes, state, grid, choice, conflicts;
let round = null; // of the images that are shown
let images = []; // of the question
const answers = new Map(); // by the number of an image
let current = null; // an image of the question, or one of an earlier round
let seen = 0; // the number of its answer when it came on the screen
let isGrid = false;
let isBusy = false; // an answer is on its way

const answerOf = (image) => answers.get(image.number) ?? {answer: null, number: 0, who: "", time: ""};
const isAnswered = (image) => answerOf(image).answer !== null;
const isAsked = () => state?.doing.kind === "asking" && round !== null && state.round === round;
const isComplete = () => isAsked() && images.every(isAnswered);
const quoted = (answer) => classes.called(answer);
const guessed = () => (isGrid ? grid.current : current)?.guesses ?? [];

// ---- news ----------------------------------------------------------------------------------------------------------------

async function follow() {
  let since = -1;
  for (;;) {
    try {
      const news = await get(`state?since=${since}`);
      say("");
      since = news.number;
      await take(news);
      if (news.doing.kind === "ended") return;
    } catch (error) {
      if (!(error instanceof Failed) && !(error instanceof TypeError)) throw error;
      say(error.status === 403 ? "This page belongs to an earlier start of the run: open the address that the run has printed last."
        : "The run does not answer: it has ended or was stopped. The same command goes on where it was, and prints a new address.");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

async function take(news) {
  state = news;
  if (news.round !== null && news.round !== round) await openQuestion();
  const before = current && answerOf(current);
  news.answers.forEach(know);
  show();
  const now = current && answerOf(current);
  if (now && !isGrid && !isBusy && isAsked() && now.answer !== null && ![before.number, seen].includes(now.number)) {
    message(`${now.who || "Somebody"} has just labeled this image: ${quoted(now.answer)}.`);
  }
}

// Take what stands for an image, unless something newer is known: news and responses overtake each other.
function know(own) {
  if ((answers.get(own.image)?.number ?? 0) <= own.number) answers.set(own.image, own);
}

async function openQuestion() {
  const question = await get("question");
  if (question.round === null) return;
  [round, images, current] = [question.round, question.images, null];
  answers.clear();
  (await get("state?since=-1")).answers.forEach(know);
  by("strip").replaceChildren(...images.map((image, place) => make("li", {}, make("button", {
    type: "button", onclick: () => goTo(image)}, thumbnail(image.number, `Image ${place + 1}`)))));
  goTo(images.find((image) => !isAnswered(image)) ?? images.at(-1));
  if (!by("who").matches(":focus")) focusHome();
}

// ---- what is shown -------------------------------------------------------------------------------------------------------

function show() {
  const asked = isAsked();
  const done = images.filter(isAnswered).length;
  by("round").textContent = asked ? `Round ${round}: ${done} of ${images.length} labeled` : capital(state.doing.text);
  by("bar").hidden = !asked;
  by("bar").max = Math.max(images.length, 1);
  by("bar").value = done;
  by("single").hidden = !asked || isGrid;
  by("grid").hidden = !asked || !isGrid;
  by("strip").hidden = !asked || isGrid;
  by("choice").hidden = !asked;
  by("waiting").hidden = asked;
  by("grid-button").setAttribute("aria-pressed", String(isGrid));
  by("grid-button").disabled = by("zoom-button").disabled = !asked;
  document.title = asked ? `${done} of ${images.length}, round ${round} · ${about.dataset}` : `${about.dataset}: ${state.doing.text}`;
  showRun(state, about.classes);
  if (asked) showQuestion();
  else {
    message("");
    showDoing(state.doing, about.output);
  }
}

function showQuestion() {
  const buttons = by("strip").querySelectorAll("button");
  images.forEach((image, place) => {
    const own = answerOf(image);
    buttons[place].classList.toggle("answered", own.answer !== null);
    buttons[place].setAttribute("aria-current", String(image === current));
    const label = `Image ${place + 1}: ${own.answer === null ? "no label yet" : quoted(own.answer)}`;
    if (buttons[place].title !== label) {
      buttons[place].title = label;
      buttons[place].setAttribute("aria-label", label);
    }
  });
  if (isGrid) grid.show(images.filter((image) => !isAnswered(image)), about.classes);
  showCaption();
  if (isComplete()) {
    const wait = state.grace ? ` in ${state.grace} seconds` : "";
    message(`All ${images.length} are labeled: the run goes on${wait}. Enter: now. U: take the last answer back.`);
  }
  choice.hear(state);
}

function showCaption() {
  const own = current && (answers.get(current.number) ?? current);
  const place = images.indexOf(current);
  const parts = [make("span", {textContent: place >= 0 ? `${place + 1} of ${images.length}` : "earlier round: a new label replaces the old one"}),
    make("span", {textContent: current?.name ?? ""})];
  if (own && own.answer !== null && own.answer !== undefined) {
    parts.push(make("span", {className: "answer", textContent: quoted(own.answer) + (own.who ? `, ${own.who}` : "") + (own.time ? `, ${clock(own.time)}` : "")}));
  }
  by("caption").replaceChildren(...parts);
}

function goTo(image) {
  current = image;
  choice.clear();
  if (!image) return;
  seen = answerOf(image).number;
  const shown = large(image.number);
  shown.alt = images.includes(image) ? `Image ${images.indexOf(image) + 1} of ${images.length}: ${image.name}` : `Earlier image: ${image.name}`;
  shown.onerror = () => message("This image cannot be shown. S skips it.");
  by("frame").replaceChildren(shown);
  ahead(around(image));
  if (state) showQuestion();
  const guesses = image.guesses.slice(0, 3).map(([label, share]) => `${about.classes[label]} ${Math.round(100 * share)} %`);
  by("spoken").textContent = `${shown.alt}. ${isAnswered(image) ? `Labeled ${quoted(answerOf(image).answer)}. ` : ""}Guesses: ${guesses.join(", ")}.`;
  by("strip").children[images.indexOf(image)]?.scrollIntoView({block: "nearest", inline: "nearest"});
}

// The numbers of an image, of the one before it, and of those that come next.
function around(image) {
  const place = images.indexOf(image);
  const next = [];
  for (let step = 1; step < images.length && next.length < N_AHEAD; step++) {
    const own = images[(place + step + images.length) % images.length];
    if (step === 1 || !isAnswered(own)) next.push(own.number);
  }
  return [image.number, ...(place > 0 ? [images[place - 1].number] : []), ...next];
}

function message(text) {
  if (by("message").textContent !== text) by("message").textContent = text;
}

function say(text) {
  by("alert").hidden = !text;
  if (by("alert").textContent !== text) by("alert").textContent = text;
}

function focusHome() {
  if (isGrid && !choice.isTyping) grid.focus();
  else if (usesKeyboard && !by("choice").hidden) choice.filter.focus({preventScroll: true});
}

function openExample(own) {
  if (isGrid) toggleGrid();
  answers.set(own.image, own);
  goTo(images.find((image) => image.number === own.image) ?? {number: own.image, name: own.name, guesses: []});
  focusHome();
}

// ---- answers -------------------------------------------------------------------------------------------------------------

// Send an answer for the images that are meant; the next image is shown once it is on the disk.
async function answer(said) {
  const targets = isGrid ? grid.targets : current ? [current] : [];
  if (!targets.length || !isAsked() || isBusy) return;
  performance.mark("answer");
  const place = images.indexOf(current);
  if (!await send(targets.map((image) => ({image: image.number, answer: said, seen: isGrid ? 0 : seen})))) return;
  message(`${targets.length > 1 ? `${targets.length} images` : place >= 0 && !isGrid ? `Image ${place + 1}` : targets[0].name}: ${quoted(said)}`);
  grid.selected.clear();
  if (isGrid) {
    show();
    choice.clear();
    focusHome();
    return typedMeanwhile();
  }
  const later = [...images.slice(place + 1), ...images.slice(0, place + 1)];
  goTo(later.find((image) => !isAnswered(image)) ?? images[Math.max(place, 0)]);
  show();
  focusHome();
  typedMeanwhile();
  const shown = by("frame").firstElementChild;
  await shown.decode().catch(() => {});
  requestAnimationFrame(() => performance.measure("next image", "answer"));
}

function setBusy(busy) {
  isBusy = busy;
  if (busy) meanwhile = [];
  document.querySelector("main").setAttribute("aria-busy", String(busy));
}

async function send(given) {
  setBusy(true);
  try {
    const taken = await post("answers", {who: who(), round, answers: given});
    const against = new Map(taken.conflicts.map((own) => [own.image, own]));
    for (const {image, answer: said} of given) {
      if (against.has(image)) know(against.get(image));
      else if (answers.get(image)?.answer !== said) know({image, answer: said, number: taken.number, who: who(), time: new Date().toISOString()});
    }
    say("");
    conflicts.add(given.filter(({image}) => against.has(image)).map((own) => ({there: against.get(own.image), own})));
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
async function undo() {
  if (isBusy) return;
  const mine = [...answers.values()].filter((own) => own.answer !== null && own.who === who() && own.number
    && images.some((image) => image.number === own.image));
  if (!mine.length) return message("There is no answer of yours in this round to take back.");
  const last = mine.reduce((one, other) => (other.number > one.number ? other : one));
  const together = mine.filter((own) => own.number === last.number);
  if (!await send(together.map((own) => ({image: own.image, answer: null, seen: own.number})))) return;
  message(`Taken back: ${together.length > 1 ? `${together.length} images` : `image ${images.findIndex((image) => image.number === last.image) + 1}`}, ${quoted(last.answer)}`);
  goTo(images.find((image) => image.number === last.image));
  show();
  focusHome();
  typedMeanwhile();
}

async function sendOff() {
  try {
    await post("send", {round});
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    message(error.message);
  }
}

// ---- keys ----------------------------------------------------------------------------------------------------------------

function pressed(event) {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.target === by("who")) {
    if (event.key === "Enter") focusHome();
    return;
  }
  const isOnButton = event.target.closest?.("button, summary") && [" ", "Enter"].includes(event.key);
  if (isOnButton || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (isGrid && event.key.toLowerCase() === "a" && !choice.isTyping) act(event, () => grid.selectAlike());
    return;
  }
  if (isBusy) return act(event, () => meanwhile.push(event.key));
  const action = (choice.isTyping ? null : command(event)) ?? picked(event);
  if (action) act(event, action);
}

let meanwhile = []; // keys that were pressed while an answer was on its way

// Do what was typed before the next image was there: undo, or the beginning of a name. No label for an image that nobody saw.
function typedMeanwhile() {
  const keys = meanwhile.filter((key) => [...key].length === 1);
  meanwhile = [];
  if (keys[0]?.toLowerCase() === "u") return undo();
  if (!keys.length || Object.hasOwn(WORDS, keys[0].toLowerCase()) || /[\d .?]/.test(keys[0])) return;
  const isOpened = keys[0] === "/";
  choice.type(keys.slice(Number(isOpened)).join(""), isOpened);
  choice.filter.focus();
}

function act(event, action) {
  event.preventDefault();
  action();
}

// What a key does while the filter is empty.
function command(event) {
  const key = event.key;
  if (key === "?") return showKeys;
  if (!isAsked()) return null;
  if (key.startsWith("Arrow") && (isGrid || key === "ArrowLeft" || key === "ArrowRight")) {
    return () => (isGrid ? grid.move(key, event.shiftKey) : step(key === "ArrowLeft" ? -1 : 1));
  }
  if (/^[1-9]$/.test(key)) {
    const guess = guessed()[Number(key) - 1];
    return guess ? () => answer(guess[0]) : () => message(`There is no guess ${key}.`);
  }
  const low = key.toLowerCase();
  if (WORDS[low]) return () => answer(WORDS[low]);
  const actions = {u: undo, 0: () => answer("unsure"), "/": openFilter, ".": toggleGrid, " ": isGrid ? () => grid.toggle() : openZoom};
  if (isComplete() && key === "Enter" && images.includes(current)) return sendOff;
  return Object.hasOwn(actions, low) ? actions[low] : null;
}

// What a key does in the list of classes; a letter begins a filter.
function picked(event) {
  if (!isAsked()) return null;
  const steps = {ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8};
  if (Object.hasOwn(steps, event.key)) return () => choice.goTo(choice.place + steps[event.key]);
  if (event.key === "Enter") return () => chosen(event.shiftKey);
  if (event.key === "Escape") return () => { choice.clear(); focusHome(); };
  if ([...event.key].length === 1 && event.target !== choice.filter) choice.filter.focus(); // so that the letter goes there
  return null;
}

function chosen(isUnsure) {
  const label = choice.label;
  if (label === undefined) return message("No class has this in its name. Esc clears the filter.");
  return answer(isUnsure ? `unsure ${label}` : label);
}

function step(by) {
  const place = images.indexOf(current);
  goTo(images[(place + by + images.length) % images.length]);
  focusHome();
}

function openFilter() {
  choice.type("", true);
  choice.filter.focus();
  message("Filter: type a part of the class name.");
}

function toggleGrid() {
  isGrid = !isGrid;
  if (isGrid) grid.cursor = 0;
  else if (grid.current) current = images.includes(grid.current) ? grid.current : current;
  show();
  if (!isGrid) goTo(current);
  choice.clear();
  focusHome();
}

function openZoom() {
  const image = isGrid ? grid.current : current;
  if (!image) return;
  by("zoomed").replaceChildren(picture(image.number, "full", image.name));
  by("zoom").showModal();
  by("zoomed").focus();
}

function showKeys() {
  by("keys").showModal();
}

// ---- start ---------------------------------------------------------------------------------------------------------------

async function start() {
  history.replaceState(null, "", location.pathname); // the token is in the cookie now
  knowPeople();
  about = await get("about");
  classes = new Classes(about.classes);
  choice = new Choice(classes, {guesses: guessed, take: answer, open: openExample});
  conflicts = new Conflicts({quoted, send, done: () => { goTo(images.find((image) => !isAnswered(image)) ?? current); show(); focusHome(); }});
  grid = new Grid(() => { if (isGrid && !choice.isTyping) choice.show(); });
  by("title").textContent = about.dataset;
  by("grid-button").addEventListener("click", toggleGrid);
  by("zoom-button").addEventListener("click", openZoom);
  by("keys-button").addEventListener("click", showKeys);
  by("undo").addEventListener("click", undo);
  by("zoom").addEventListener("keydown", (event) => { if (event.key === " ") act(event, () => by("zoom").close()); });
  for (const id of ["zoom", "keys"]) by(id).addEventListener("close", focusHome);
  for (const button of by("words").querySelectorAll("[data-word]")) button.addEventListener("click", () => answer(button.dataset.word));
  document.addEventListener("keydown", pressed);
  await follow();
}

start().catch((error) => say(`The page could not start: ${error.message}`));
