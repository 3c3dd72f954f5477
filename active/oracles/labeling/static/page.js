// The page: what is asked, what was answered, and what each key does. The run decides; the page shows.
import {Failed, get, post} from "./api.js";
import {Classes} from "./classes.js";
import {showRun} from "./curve.js";
import {by, make} from "./dom.js";
import {Grid} from "./grid.js";
import {ahead, large, picture, thumbnail} from "./pictures.js";

const N_AHEAD = 4;
const RETRY_MS = 2000;
const WORDS = {n: "none", s: "skip"};
const usesKeyboard = matchMedia("(hover: hover) and (pointer: fine)").matches;

let about, classes, state, grid;
let round = null; // of the images that are shown
let images = []; // of the question
const answers = new Map(); // by the number of an image
const examples = new Map(); // by class: images that are labeled, and how many there were
let current = null; // an image of the question, or one of an earlier round
let seen = 0; // the number of its answer when it came on the screen
let listed = []; // labels that the list of classes shows
let highlighted = 0; // place in it
let isOpened = false; // the filter, by "/"
let isGrid = false;
let isBusy = false; // an answer is on its way
const conflicts = [];

const filter = by("filter");
const answerOf = (image) => answers.get(image.number) ?? {answer: null, number: 0, who: "", time: ""};
const isAnswered = (image) => answerOf(image).answer !== null;
const isAsked = () => state?.doing.kind === "asking" && round !== null && state.round === round;
const isComplete = () => isAsked() && images.every(isAnswered);
const isTyping = () => filter.value !== "" || isOpened;
const quoted = (answer) => classes.called(answer);
const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
const clock = (time) => (time ? new Date(time).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}) : "");

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
  if (now && now !== before && now.answer !== null && now.number !== seen && !isBusy && isAsked()) {
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
  by("round").textContent = asked ? `Round ${round + 1} of ${state.n_rounds}: ${done} of ${images.length} labeled` : capital(state.doing.text);
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
  document.title = asked ? `${done} of ${images.length}, round ${round + 1} · ${about.dataset}` : `${about.dataset}: ${state.doing.text}`;
  showRun(state, about.classes);
  if (asked) showQuestion();
  else showWaiting();
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
  showExamples();
}

function showWaiting() {
  const {kind, text, done, total, unit} = state.doing;
  const bar = by("waiting-bar");
  bar.hidden = kind === "ended";
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
  by("waiting-text").textContent = capital(total ? `${text}: ${done} of ${total} ${unit}${total === 1 ? "" : "s"}` : text);
  by("commands").hidden = !(kind === "ended" && text.includes("finished"));
  by("commands").textContent = `python scripts/predict.py ${about.output}\npython scripts/export.py ${about.output} classifier`;
  by("waiting-more").textContent = kind === "ended" ? (by("commands").hidden ? "" : "Every image sorted, and the classifier as one folder:")
    : "The next images appear here by themselves.";
  if (kind === "ended") message("");
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
  clearFilter();
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
  if (isGrid && !isTyping()) grid.focus();
  else if (usesKeyboard && !by("choice").hidden) filter.focus({preventScroll: true});
}

// ---- classes -------------------------------------------------------------------------------------------------------------

function guessed() {
  return (isGrid ? grid.current : current)?.guesses ?? [];
}

function clearFilter() {
  filter.value = "";
  isOpened = false;
  showClasses();
}

function showClasses() {
  const guesses = guessed();
  const shares = new Map(guesses);
  const [found, total] = classes.found(filter.value, guesses);
  listed = found;
  highlighted = 0;
  by("classes").replaceChildren(...listed.map((label, place) => {
    const hasKey = !isTyping() && place < Math.min(9, guesses.length);
    return make("li", {id: `class-${place}`, role: "option", className: hasKey ? "" : "no-key", onclick: () => answer(label)},
      ...(hasKey ? [make("kbd", {textContent: place + 1})] : []), make("span", {className: "name", textContent: about.classes[label]}),
      make("span", {className: "share", textContent: shares.has(label) ? `${Math.round(100 * shares.get(label))} %` : ""}));
  }));
  by("more").textContent = total > listed.length ? `${total - listed.length} more: type to find them` : total ? "" : "No class has this in its name.";
  highlight(0);
}

function highlight(place) {
  const options = by("classes").children;
  highlighted = Math.max(0, Math.min(options.length - 1, place));
  for (const [at, option] of [...options].entries()) option.setAttribute("aria-selected", String(at === highlighted));
  if (options.length) filter.setAttribute("aria-activedescendant", `class-${highlighted}`);
  else filter.removeAttribute("aria-activedescendant");
  options[highlighted]?.scrollIntoView({block: "nearest"});
  showExamples();
}

let examplesTimer = 0;

// Show images that are labeled as the class under the cursor, so that people stay consistent.
function showExamples() {
  const label = listed[highlighted];
  if (label === undefined || !state) return;
  by("examples-title").textContent = `Labeled so far: ${about.classes[label]} (${state.counts[label]})`;
  const known = examples.get(label);
  showTiles(known?.found ?? []);
  if (known?.version === state.number) return;
  clearTimeout(examplesTimer);
  examplesTimer = setTimeout(async () => {
    const version = state.number;
    const found = await get(`labeled?answer=${label}`).catch(() => []);
    examples.set(label, {found, version});
    if (listed[highlighted] === label) showTiles(found);
  }, 120);
}

function showTiles(found) {
  const list = by("examples");
  const key = found.map((own) => own.image).join();
  if (list.dataset.key === key && list.childElementCount) return;
  list.dataset.key = key;
  list.replaceChildren(...(found.length ? found.map((own) => make("li", {}, make("button", {
    type: "button", title: own.name, "aria-label": `${own.name}: show it to correct its label`, onclick: () => openExample(own)},
  thumbnail(own.image, "")))) : [make("li", {}, make("p", {textContent: "none"}))]));
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
    clearFilter();
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
    const who = by("who").value.trim();
    const taken = await post("answers", {who, round, answers: given});
    const against = new Map(taken.conflicts.map((own) => [own.image, own]));
    for (const {image, answer: said} of given) {
      if (against.has(image)) know(against.get(image));
      else if (answers.get(image)?.answer !== said) know({image, answer: said, number: taken.number, who, time: new Date().toISOString()});
    }
    conflicts.push(...given.filter(({image}) => against.has(image)).map((own) => ({there: against.get(own.image), own})));
    say("");
    nextConflict();
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
  const who = by("who").value.trim();
  const mine = [...answers.values()].filter((own) => own.answer !== null && own.who === who && own.number
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

function nextConflict() {
  const dialog = by("conflict");
  if (dialog.open || !conflicts.length) return;
  const {there, own} = conflicts[0];
  const theirs = `${there.who || "Somebody"} has said “${quoted(there.answer)}”${there.time ? ` at ${clock(there.time)}` : ""}`;
  by("conflict-image").replaceChildren(picture(there.image, "small", there.name));
  by("conflict-text").textContent = own.answer === null ? `${theirs}, after what you want to take back.` : `${theirs}; you say “${quoted(own.answer)}”.`;
  by("keep").textContent = `Keep “${quoted(there.answer)}”`;
  by("replace").textContent = own.answer === null ? "Take it back" : `Replace it by “${quoted(own.answer)}”`;
  dialog.showModal();
}

async function settle(replaces) {
  const {there, own} = conflicts.shift();
  by("conflict").close();
  if (replaces && !await send([{...own, seen: there.number}])) return;
  if (conflicts.length) return nextConflict();
  goTo(images.find((image) => !isAnswered(image)) ?? current);
  show();
  focusHome();
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
    if (isGrid && event.key.toLowerCase() === "a" && !isTyping()) act(event, () => grid.selectAlike());
    return;
  }
  if (isBusy) return act(event, () => meanwhile.push(event.key));
  const action = (isTyping() ? null : command(event)) ?? choice(event);
  if (action) act(event, action);
}

let meanwhile = []; // keys that were pressed while an answer was on its way

// Do what was typed before the next image was there: undo, or the beginning of a name. No label for an image that nobody saw.
function typedMeanwhile() {
  const keys = meanwhile.filter((key) => [...key].length === 1);
  meanwhile = [];
  if (keys[0]?.toLowerCase() === "u") return undo();
  if (!keys.length || Object.hasOwn(WORDS, keys[0].toLowerCase()) || /[\d .?]/.test(keys[0])) return;
  if (keys[0] === "/") isOpened = Boolean(keys.shift());
  filter.value = keys.join("");
  showClasses();
  filter.focus();
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
function choice(event) {
  if (!isAsked()) return null;
  const steps = {ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8};
  if (Object.hasOwn(steps, event.key)) return () => highlight(highlighted + steps[event.key]);
  if (event.key === "Enter") return () => chosen(event.shiftKey);
  if (event.key === "Escape") return () => { clearFilter(); focusHome(); };
  if ([...event.key].length === 1 && event.target !== filter) filter.focus(); // so that the letter goes there
  return null;
}

function chosen(isUnsure) {
  const label = listed[highlighted];
  if (label === undefined) return message("No class has this in its name. Esc clears the filter.");
  return answer(isUnsure ? `unsure ${label}` : label);
}

function step(by) {
  const place = images.indexOf(current);
  goTo(images[(place + by + images.length) % images.length]);
  focusHome();
}

function openFilter() {
  isOpened = true;
  showClasses();
  filter.focus();
  message("Filter: type a part of the class name.");
}

function toggleGrid() {
  isGrid = !isGrid;
  if (isGrid) grid.cursor = 0;
  else if (grid.current) current = images.includes(grid.current) ? grid.current : current;
  show();
  if (!isGrid) goTo(current);
  clearFilter();
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

const cookieOf = (name) => document.cookie.split("; ").find((own) => own.startsWith(`${name}=`))?.slice(name.length + 1) ?? "";

function nameOf(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function remember() {
  document.cookie = `annotator=${encodeURIComponent(by("who").value.trim())}; SameSite=Strict; Path=/; Max-Age=31536000`;
}

async function start() {
  history.replaceState(null, "", location.pathname); // the token is in the cookie now
  by("who").value = nameOf(cookieOf("annotator"));
  about = await get("about");
  classes = new Classes(about.classes);
  grid = new Grid(() => { if (isGrid && !isTyping()) showClasses(); });
  by("title").textContent = about.dataset;
  by("who").addEventListener("change", remember);
  filter.addEventListener("input", showClasses);
  filter.addEventListener("blur", () => { isOpened = false; });
  by("grid-button").addEventListener("click", toggleGrid);
  by("zoom-button").addEventListener("click", openZoom);
  by("keys-button").addEventListener("click", showKeys);
  by("undo").addEventListener("click", undo);
  by("keep").addEventListener("click", () => settle(false));
  by("replace").addEventListener("click", () => settle(true));
  by("conflict").addEventListener("cancel", (event) => { event.preventDefault(); settle(false); });
  by("zoom").addEventListener("keydown", (event) => { if (event.key === " ") act(event, () => by("zoom").close()); });
  for (const id of ["zoom", "keys"]) by(id).addEventListener("close", focusHome);
  for (const button of by("words").querySelectorAll("[data-word]")) button.addEventListener("click", () => answer(button.dataset.word));
  document.addEventListener("keydown", pressed);
  await follow();
}

start().catch((error) => say(`The page could not start: ${error.message}`));
