// The page: it follows the run, and shows each question. The run decides; the page shows.
import {answer, send, undo} from "./answering.js";
import {Failed, get} from "./api.js";
import {Choice} from "./choice.js";
import {Classes} from "./classes.js";
import {Conflicts} from "./conflicts.js";
import {by, make} from "./dom.js";
import {Grid} from "./grid.js";
import {act, pressed} from "./keys.js";
import {knowPeople} from "./people.js";
import {thumbnail} from "./pictures.js";
import {answerOf, answers, guessed, isAnswered, isAsked, isShown, know, message, quoted, say, session} from "./session.js";
import {focusHome, goTo, openExample, openZoom, show, showKeys, toggleGrid} from "./view.js";

const RETRY_MS = 2000;

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
  session.state = news;
  const isNew = news.round !== null && !isShown(news);
  if (isNew) await openQuestion();
  const before = session.current && answerOf(session.current);
  news.answers.forEach(know);
  show();
  if (isNew && !by("who").matches(":focus")) focusHome(); // it can be focused only now
  const now = session.current && answerOf(session.current);
  if (now && !session.isGrid && !session.isBusy && isAsked() && now.answer !== null && ![before.number, session.seen].includes(now.number)) {
    message(`${now.who || "Somebody"} has just labeled this image: ${quoted(now.answer)}.`);
  }
}

// Show the question that is open now, with the answers that it has.
async function openQuestion() {
  const question = await get("question");
  if (question.round === null) return;
  const given = (await get("state?since=-1")).answers;
  [session.round, session.part, session.images, session.current] = [question.round, question.part, question.images, null];
  answers.clear();
  given.forEach(know);
  by("strip").replaceChildren(...session.images.map((image, place) => make("li", {}, make("button", {
    type: "button", onclick: () => goTo(image)}, thumbnail(image.number, `Image ${place + 1}`)))));
  goTo(session.images.find((image) => !isAnswered(image)) ?? session.images.at(-1));
}

async function start() {
  history.replaceState(null, "", location.pathname); // the token is in the cookie now
  knowPeople();
  session.about = await get("about");
  session.classes = new Classes(session.about.classes);
  session.choice = new Choice(session.classes, {guesses: guessed, take: answer, open: openExample});
  session.conflicts = new Conflicts({quoted, send, done: () => { goTo(session.images.find((image) => !isAnswered(image)) ?? session.current); show(); focusHome(); }});
  session.grid = new Grid(() => { if (session.isGrid && !session.choice.isTyping) session.choice.show(); });
  by("title").textContent = session.about.dataset;
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
