// The name of the person who labels, kept in a cookie from one start of the run to the next.
import {by} from "./dom.js";

export const who = () => by("who").value.trim();

export function knowPeople() {
  const kept = document.cookie.split("; ").find((own) => own.startsWith("annotator="))?.slice("annotator=".length) ?? "";
  try {
    by("who").value = decodeURIComponent(kept);
  } catch {
    by("who").value = "";
  }
  by("who").addEventListener("change", () => {
    document.cookie = `annotator=${encodeURIComponent(who())}; SameSite=Strict; Path=/; Max-Age=31536000`;
  });
}
