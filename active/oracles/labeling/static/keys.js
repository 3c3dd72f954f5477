// What each key does.
import {answer, keepForLater, sendOff, undo} from "./answering.js";
import {by} from "./dom.js";
import {WORDS, guessed, isAsked, isComplete, message, session} from "./session.js";
import {focusHome, openFilter, openZoom, show, showKeys, step, toggleGrid} from "./view.js";

export function pressed(event) {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.target === by("who")) {
    if (event.key === "Enter") focusHome();
    return;
  }
  const isOnButton = event.target.closest?.("button, summary") && [" ", "Enter"].includes(event.key);
  if (isOnButton || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (session.isGrid && event.key.toLowerCase() === "a" && !session.choice.isTyping) act(event, () => session.grid.selectAlike());
    return;
  }
  const isHeld = event.repeat && !session.choice.isTyping && ([...event.key].length === 1 || event.key === "Enter");
  if (isHeld) return event.preventDefault(); // one label per key press
  if (session.isBusy) return act(event, () => keepForLater(event.key));
  const action = (session.choice.isTyping ? null : command(event)) ?? picked(event);
  if (action) act(event, action);
}

export function act(event, action) {
  event.preventDefault();
  action();
}

// What a key does while the filter is empty.
function command(event) {
  const key = event.key;
  if (key === "?") return showKeys;
  if (!isAsked()) return null;
  if (key.startsWith("Arrow") && (session.isGrid || key === "ArrowLeft" || key === "ArrowRight")) {
    return () => (session.isGrid ? session.grid.move(key, event.shiftKey) : step(key === "ArrowLeft" ? -1 : 1));
  }
  if (/^[1-9]$/.test(key)) {
    const guess = guessed()[Number(key) - 1];
    return guess ? () => answer(guess[0]) : () => message(`There is no guess ${key}.`);
  }
  const low = key.toLowerCase();
  if (WORDS[low]) return () => answer(WORDS[low]);
  const actions = {u: undo, 0: () => answer("unsure"), "/": openFilter, ".": toggleGrid, " ": session.isGrid ? () => session.grid.toggle() : openZoom};
  if (isComplete() && key === "Enter" && session.images.includes(session.current)) return sendOff;
  return Object.hasOwn(actions, low) ? actions[low] : null;
}

// What a key does in the list of classes; a letter begins a filter.
function picked(event) {
  if (!isAsked()) return null;
  const steps = {ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8};
  if (Object.hasOwn(steps, event.key)) return () => session.choice.goTo(session.choice.place + steps[event.key]);
  if (event.key === "Enter") return () => chosen(event.shiftKey);
  if (event.key === "Escape") return () => { session.choice.clear(); message(""); show(); focusHome(); };
  if ([...event.key].length === 1 && event.target !== session.choice.filter) session.choice.filter.focus(); // so that the letter goes there
  return null;
}

function chosen(isUnsure) {
  const label = session.choice.label;
  if (label === undefined) return message("No class has this in its name. Esc clears the filter.");
  return answer(isUnsure && typeof label === "number" ? `unsure ${label}` : label);
}
