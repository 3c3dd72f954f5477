// Answers that came too late: somebody has said something else of the image in the meantime. The person decides.
import {by} from "./dom.js";
import {picture} from "./pictures.js";

export const clock = (time) => (time ? new Date(time).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}) : "");

export class Conflicts {
  // `quoted` names an answer, `send` sends one and tells whether it was taken, `done` is called after the last conflict.
  constructor({quoted, send, done}) {
    Object.assign(this, {quoted, send, done});
    this.dialog = by("conflict");
    this.waiting = [];
    by("keep").addEventListener("click", () => this.settle(false));
    by("replace").addEventListener("click", () => this.settle(true));
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.settle(false); });
  }

  add(conflicts) {
    this.waiting.push(...conflicts);
    this.next();
  }

  next() {
    if (this.dialog.open || !this.waiting.length) return;
    const {there, own} = this.waiting[0];
    const theirs = `${there.who || "Somebody"} has said “${this.quoted(there.answer)}”${there.time ? ` at ${clock(there.time)}` : ""}`;
    by("conflict-image").replaceChildren(picture(there.image, "small", there.name));
    by("conflict-text").textContent = own.answer === null ? `${theirs}, after what you want to take back.` : `${theirs}; you say “${this.quoted(own.answer)}”.`;
    by("keep").textContent = `Keep “${this.quoted(there.answer)}”`;
    by("replace").textContent = own.answer === null ? "Take it back" : `Replace it by “${this.quoted(own.answer)}”`;
    this.dialog.showModal();
  }

  async settle(replaces) {
    const {there, own} = this.waiting.shift();
    this.dialog.close();
    if (replaces && !await this.send([{...own, seen: there.number}])) return;
    if (this.waiting.length) return this.next();
    this.done();
  }
}
