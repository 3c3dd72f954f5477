// The list of classes with its filter, and below it images that are labeled as the class under the cursor.
import {get} from "./api.js";
import {by, make} from "./dom.js";
import {thumbnail} from "./pictures.js";

const N_KEYS = 9;
const WAIT_MS = 120; // before examples are requested: moving quickly through the list needs none

export class Choice {
  // `guesses` returns those for the image that is meant; `take` is told a label, `open` an example.
  constructor(classes, {guesses, take, open}) {
    Object.assign(this, {classes, guesses, take, open});
    this.filter = by("filter");
    this.isOpened = false; // by "/", so that any letter is text
    this.listed = [];
    this.place = 0;
    this.examples = new Map();
    this.filter.addEventListener("input", () => this.show());
    this.filter.addEventListener("blur", () => { this.isOpened = false; });
  }

  get isTyping() {
    return this.filter.value !== "" || this.isOpened;
  }

  // The label under the cursor; undefined where no class is found.
  get label() {
    return this.listed[this.place];
  }

  clear() {
    this.type("", false);
  }

  type(text, isOpened) {
    this.filter.value = text;
    this.isOpened = isOpened;
    this.show();
  }

  show() {
    const guesses = this.guesses();
    const shares = new Map(guesses);
    const [found, total] = this.classes.found(this.filter.value, guesses);
    this.listed = found;
    by("classes").replaceChildren(...found.map((label, place) => {
      const hasKey = !this.isTyping && place < Math.min(N_KEYS, guesses.length);
      return make("li", {id: `class-${place}`, role: "option", className: hasKey ? "" : "no-key", onclick: () => this.take(label)},
        ...(hasKey ? [make("kbd", {textContent: place + 1})] : []), make("span", {className: "name", textContent: this.classes.called(label)}),
        make("span", {className: "share", textContent: shares.has(label) ? `${Math.round(100 * shares.get(label))} %` : ""}));
    }));
    by("more").textContent = total > found.length ? `${total - found.length} more: type to find them` : total ? "" : "No class has this in its name.";
    this.goTo(0);
  }

  goTo(place) {
    const options = by("classes").children;
    this.place = Math.max(0, Math.min(options.length - 1, place));
    for (const [at, option] of [...options].entries()) option.setAttribute("aria-selected", String(at === this.place));
    if (options.length) this.filter.setAttribute("aria-activedescendant", `class-${this.place}`);
    else this.filter.removeAttribute("aria-activedescendant");
    options[this.place]?.scrollIntoView({block: "nearest"});
    this.showExamples();
  }

  // Take the newest state of the run: there may be other examples now.
  hear(state) {
    this.state = state;
    this.showExamples();
  }

  showExamples() {
    const label = this.label;
    if (label === undefined || !this.state) return;
    by("examples-title").textContent = `Labeled so far: ${this.classes.called(label)}`;
    const known = this.examples.get(label);
    this.showTiles(known?.found ?? []);
    if (known?.version === this.state.number) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const version = this.state.number;
      const found = await get(`labeled?answer=${label}`).catch(() => []);
      this.examples.set(label, {found, version});
      if (this.label === label) this.showTiles(found);
    }, WAIT_MS);
  }

  showTiles(found) {
    const list = by("examples");
    const key = found.map((own) => own.image).join();
    if (list.dataset.key === key && list.childElementCount) return;
    list.dataset.key = key;
    list.replaceChildren(...(found.length ? found.map((own) => make("li", {}, make("button", {
      type: "button", title: own.name, "aria-label": `${own.name}: show it to correct its label`, onclick: () => this.open(own)},
    thumbnail(own.image, "")))) : [make("li", {}, make("p", {textContent: "none"}))]));
  }
}
