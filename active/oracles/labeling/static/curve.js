// The run's numbers: counts, and accuracy over labels paid for, by test images and by the audit.
import {by, make, makeSvg} from "./dom.js";

const WIDTH = 300, HEIGHT = 170, LEFT = 42, BOTTOM = 24, TOP = 8, RIGHT = 8;

export function showRun(state, names) {
  by("facts").textContent = `${state.n_paid} label${state.n_paid === 1 ? "" : "s"} paid for` + (state.n_rounds ? `, in ${state.curve.length} of ${state.n_rounds} rounds` : "");
  by("audit").textContent = state.audit ? `${state.audit}.` : "";
  by("advice").textContent = state.advice ? `${state.advice[0].toUpperCase()}${state.advice.slice(1)}.` : "";
  showCounts(state.counts, names);
  showCurve(state);
}

function showCounts(counts, names) {
  const list = by("counts");
  if (list.childElementCount !== names.length) {
    list.replaceChildren(...names.map((name) => make("li", {}, make("span", {textContent: name}), make("span"))));
  }
  counts.forEach((count, label) => {
    const cell = list.children[label].lastElementChild;
    if (cell.textContent !== String(count)) cell.textContent = count;
  });
}

function showCurve({curve, zero_shot: zeroShot}) {
  const tested = curve.filter((round) => round.accuracy !== null);
  const audited = curve.filter((round) => round.audit);
  if (!tested.length && !audited.length && zeroShot === null) {
    const why = curve.length ? "No test images: ACTIVE.AUDIT 50 would tell how good it is." : "No round is done yet.";
    by("curve").replaceChildren(make("p", {textContent: why}));
    return;
  }
  const values = [...tested.map((round) => round.accuracy), ...audited.flatMap(({audit}) => [audit.low, audit.high]),
    ...(zeroShot === null ? [] : [zeroShot])];
  const low = Math.max(0, Math.floor(10 * Math.min(...values) - 0.2) / 10);
  const high = Math.min(1, Math.ceil(10 * Math.max(...values) + 0.2) / 10);
  const most = Math.max(1, ...curve.map((round) => round.n_paid));
  const x = (paid) => LEFT + (WIDTH - LEFT - RIGHT) * paid / most;
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (high - share) / (high - low);
  by("curve").replaceChildren(makeSvg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": inWords(tested, audited, zeroShot)},
    ...axes(low, high, most, y), ...(zeroShot === null ? [] : [makeSvg("line", {class: "zero", x1: LEFT, x2: WIDTH - RIGHT, y1: y(zeroShot), y2: y(zeroShot)})]),
    ...line(tested, x, y), ...intervals(audited, x, y)));
}

function axes(low, high, most, y) {
  const text = (at, content, anchor) => makeSvg("text", {...at, "text-anchor": anchor}, content);
  return [makeSvg("path", {class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`}),
    text({x: LEFT - 4, y: y(high) + 8}, `${Math.round(100 * high)} %`, "end"), text({x: LEFT - 4, y: y(low)}, `${Math.round(100 * low)} %`, "end"),
    text({x: LEFT, y: HEIGHT - 8}, "0", "middle"), text({x: WIDTH - RIGHT, y: HEIGHT - 8}, `${most} labels`, "end")];
}

function line(tested, x, y) {
  const points = tested.map((round) => [x(round.n_paid), y(round.accuracy)]);
  return points.length ? [makeSvg("polyline", {class: "accuracy", points: points.map((point) => point.join(",")).join(" ")}),
    ...points.map(([cx, cy]) => makeSvg("circle", {class: "accuracy", cx, cy, r: 3}))] : [];
}

function intervals(audited, x, y) {
  return audited.flatMap(({n_paid: paid, audit}) => [
    makeSvg("path", {class: "audit", d: `M${x(paid)} ${y(audit.low)}V${y(audit.high)}m-4 0h8M${x(paid) - 4} ${y(audit.low)}h8`}),
    makeSvg("circle", {class: "audit", cx: x(paid), cy: y(audit.accuracy), r: 3})]);
}

function inWords(tested, audited, zeroShot) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  return ["Accuracy over labels.", ...(zeroShot === null ? [] : [`Zero-shot: ${percent(zeroShot)}.`]),
    ...tested.map((round) => `${round.n_paid} labels: ${percent(round.accuracy)} on test images.`),
    ...audited.map(({n_paid: paid, audit}) => `${paid} labels: ${percent(audit.accuracy)} by the audit, between ${percent(audit.low)} and ${percent(audit.high)}.`),
  ].join(" ");
}
