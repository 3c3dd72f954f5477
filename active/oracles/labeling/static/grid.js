// The grid: images without an answer, grouped by first guess, to label many at once.
import {by, make} from "./dom.js";
import {thumbnail} from "./pictures.js";

export class Grid {
  constructor(onChange) {
    this.element = by("grid");
    this.images = [];
    this.selected = new Set();
    this.cursor = 0;
    this.anchor = 0;
    this.onChange = onChange;
    this.tiles = new Map();
    this.element.addEventListener("click", (event) => this.clicked(event));
  }

  get current() {
    return this.images[this.cursor];
  }

  // The images that an answer is for: those that are selected, else the one under the cursor.
  get targets() {
    const chosen = this.images.filter((image) => this.selected.has(image.number));
    return chosen.length || !this.current ? chosen : [this.current];
  }

  show(images, names) {
    const before = this.current?.number;
    this.images = [...images].sort((one, other) => one.guesses[0][0] - other.guesses[0][0] || other.guesses[0][1] - one.guesses[0][1]);
    const numbers = new Set(this.images.map((image) => image.number));
    for (const number of this.selected) if (!numbers.has(number)) this.selected.delete(number);
    for (const number of this.tiles.keys()) if (!numbers.has(number)) this.tiles.delete(number);
    const place = this.images.findIndex((image) => image.number === before);
    this.cursor = place >= 0 ? place : Math.max(0, Math.min(this.cursor, this.images.length - 1));
    const tiles = this.images.map((image) => this.tile(image, names));
    if (tiles.length !== this.element.childElementCount || tiles.some((tile, at) => this.element.children[at] !== tile)) this.element.replaceChildren(...tiles);
    this.mark(document.activeElement === document.body || this.element.contains(document.activeElement));
  }

  tile(image, names) {
    if (!this.tiles.has(image.number)) {
      const [label, share] = image.guesses[0];
      this.tiles.set(image.number, make("div", {className: "tile", role: "option", tabIndex: -1, "aria-label": `${image.name}, guess ${names[label]}`},
        thumbnail(image.number, ""), make("span", {textContent: `${names[label]} ${Math.round(100 * share)} %`})));
    }
    return this.tiles.get(image.number);
  }

  mark(focuses) {
    this.images.forEach((image, place) => {
      const tile = this.tiles.get(image.number);
      tile.setAttribute("aria-selected", String(this.selected.has(image.number)));
      tile.classList.toggle("cursor", place === this.cursor);
      tile.tabIndex = place === this.cursor ? 0 : -1;
    });
    if (focuses) this.focus();
    if (this.told !== this.current?.number) {
      this.told = this.current?.number;
      this.onChange();
    }
  }

  focus() {
    const tile = this.current && this.tiles.get(this.current.number);
    tile?.focus({preventScroll: true});
    tile?.scrollIntoView({block: "nearest"});
  }

  get columns() {
    return getComputedStyle(this.element).gridTemplateColumns.split(" ").length;
  }

  move(key, selects) {
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns}[key];
    const next = Math.max(0, Math.min(this.images.length - 1, this.cursor + step));
    if (selects) this.select(this.cursor, next);
    this.cursor = next;
    if (!selects) this.anchor = next;
    this.mark(true);
  }

  select(from, to) {
    for (let place = Math.min(from, to); place <= Math.max(from, to); place++) this.selected.add(this.images[place].number);
  }

  toggle() {
    const {number} = this.current ?? {};
    if (number === undefined) return;
    if (!this.selected.delete(number)) this.selected.add(number);
    this.anchor = this.cursor;
    this.mark(true);
  }

  selectAlike() {
    const label = this.current?.guesses[0][0];
    for (const image of this.images) if (image.guesses[0][0] === label) this.selected.add(image.number);
    this.mark(true);
  }

  clicked(event) {
    const place = [...this.element.children].indexOf(event.target.closest(".tile"));
    if (place < 0) return;
    if (event.shiftKey) this.select(this.anchor, place);
    this.cursor = place;
    if (event.shiftKey) this.mark(true);
    else this.toggle();
  }
}
