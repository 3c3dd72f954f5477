// Class names: what a typed text finds among them, and how an answer is displayed.

const N_SHOWN = 50;
const WORDS = ["none", "unsure", "skip"];

export function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").replace(/[_\s]+/g, " ").toLowerCase();
}

export class Classes {
  constructor(names) {
    this.names = names;
    this.folded = names.map(folded);
  }

  // Labels that a text finds: names that begin with it, then those of which a word does, then those that hold it. Equals are in
  // the order of the guesses, then of the classes. Behind "!" stand the words, as in a sheet. The second value says how many
  // there are in all.
  found(text, guesses) {
    const wanted = folded(text.trim());
    if (wanted.startsWith("!")) return ((words) => [words, words.length])(WORDS.filter((word) => word.startsWith(wanted.slice(1))));
    const order = [...new Set([...guesses.map(([label]) => label), ...this.names.keys()])];
    if (!wanted) return [order.slice(0, N_SHOWN), order.length];
    const ranks = [[], [], []];
    for (const label of order) {
      const place = this.folded[label].indexOf(wanted);
      if (place < 0) continue;
      ranks[place === 0 ? 0 : this.folded[label].includes(` ${wanted}`) ? 1 : 2].push(label);
    }
    const all = ranks.flat();
    return [all.slice(0, N_SHOWN), all.length];
  }

  // Answers are in the form of records: a label, or "skip", "none", "unsure", "unsure 3".
  called(answer) {
    if (typeof answer === "number") return this.names[answer];
    const [word, label] = String(answer).split(" ");
    const said = {skip: "skipped", none: "none of these", unsure: "unsure"}[word];
    return label === undefined ? said : `${said}, perhaps ${this.names[Number(label)]}`;
  }
}
