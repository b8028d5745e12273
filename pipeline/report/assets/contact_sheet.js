"use strict";
// Filters, pages, and the links between a phrase and its boxes. Data become text, never markup:
// only `textContent` and attributes that hold no code are set.

const PER_PAGE = 24;
const COLOURS = 7;
const SUGGESTIONS = 300;
const SVG = "http://www.w3.org/2000/svg";

const byId = id => document.getElementById(id);
const blocks = kind => [...document.querySelectorAll(`script.${kind}`)];
const form = byId("filters");
const sheet = byId("sheet");

// Text of all cards is parsed at once; images only when a page shows them.
const cards = blocks("cards").flatMap((block, chunk) =>
  JSON.parse(block.textContent).map((card, place) => searchable({...card, chunk, place})));
const imageBlocks = blocks("images");
let shown = cards;
let page = 1;

// A card and those that are shown beside it.
function parts(card) {
  return [card, ...card.beside];
}

function searchable(card) {
  const entities = parts(card).flatMap(part => part.entities);
  for (const entity of entities) entity.words = entity.phrase.toLowerCase();
  paint(card);
  const scores = entities.flatMap(entity => entity.boxes.map(box => box.score))
    .filter(score => score !== null);
  card.lowest = scores.length ? Math.min(...scores) : null;
  card.highest = scores.length ? Math.max(...scores) : null;
  return card;
}

// Of answers about the same image, a phrase of the first has the same colour in all.
function paint(card) {
  card.entities.forEach((entity, i) => { entity.colour = i; });
  for (const part of card.beside) {
    const left = [...card.entities];
    let next = left.length;
    for (const entity of part.entities) {
      const at = left.findIndex(other => other.words === entity.words);
      entity.colour = at < 0 ? next++ : left.splice(at, 1)[0].colour;
    }
  }
}

// ---- which cards

function asked() {
  const of = name => form.elements[name].value.trim();
  const number = (name, otherwise) => of(name) === "" ? otherwise : Number(of(name));
  return {
    phrase: of("phrase").toLowerCase(), shard: of("shard").toLowerCase(),
    flag: of("flag"), task: of("task"), order: of("order"),
    min: number("min", 0), max: number("max", 1), isScored: of("min") + of("max") !== "",
  };
}

function isWanted(card, ask) {
  if (ask.task && card.task !== ask.task) return false;
  if (ask.shard && !card.shard.toLowerCase().includes(ask.shard)) return false;
  if (ask.flag === "clean" ? card.issues.length : ask.flag && !card.issues.includes(ask.flag))
    return false;
  if (!ask.phrase && !ask.isScored) return true;
  return card.entities.some(entity => entity.words.includes(ask.phrase)
    && (!ask.isScored || entity.boxes.some(box => isBetween(box.score, ask))));
}

function isBetween(score, ask) {
  return score !== null && score >= ask.min && score <= ask.max;
}

function ordered(found, order) {
  if (!order) return found;
  const sign = order === "lowest" ? 1 : -1;
  const scored = found.filter(card => card[order] !== null);
  const rest = found.filter(card => card[order] === null);
  return [...scored.sort((a, b) => sign * (a[order] - b[order])), ...rest];
}

// ---- the page

function choose() {
  const ask = asked();
  const found = cards.filter(card => parts(card).some(part => isWanted(part, ask)));
  shown = ordered(found, ask.order);
}

function search() {
  choose();
  turn(1);
}

function pageCount() {
  return Math.max(Math.ceil(shown.length / PER_PAGE), 1);
}

function turn(to) {
  page = Math.min(Math.max(Math.trunc(to) || 1, 1), pageCount());
  const parsed = new Map();
  sheet.replaceChildren(
    ...shown.slice((page - 1) * PER_PAGE, page * PER_PAGE).map(card => group(card, parsed)));
  byId("found").textContent =
    `${count(shown.length)} of ${count(cards.length)} ${sheet.dataset.noun}`;
  byId("pages").textContent = `of ${count(pageCount())}`;
  byId("page").value = page;
  byId("page").max = pageCount();
  byId("previous").disabled = page === 1;
  byId("next").disabled = page === pageCount();
  remember();
}

function count(number) {
  return number.toLocaleString("en");
}

function leaf(to) {
  turn(to);
  if (document.activeElement === document.body) sheet.focus();  // the button was switched off
  window.scrollTo(0, 0);
}

// ---- one card

function group(card, parsed) {
  const thumbnail = thumbnailOf(card, parsed);
  const figures = parts(card).map(part => figure(part, thumbnail));
  if (figures.length === 1) return figures[0];
  const made = document.createElement("section");
  made.className = "beside";
  made.append(...figures);
  return made;
}

function figure(card, thumbnail) {
  const made = byId("card").content.firstElementChild.cloneNode(true);
  const heading = made.querySelector("h2");
  if (card.title) heading.textContent = card.title;
  else heading.remove();
  const [svg, missing] = [made.querySelector("svg"), made.querySelector(".missing")];
  if (thumbnail.image) {
    missing.remove();
    draw(svg, card, thumbnail.image);
  } else {
    svg.remove();
    missing.textContent = thumbnail.problem;
  }
  made.querySelector(".caption").append(...card.pieces.map(piece => words(piece, card)));
  made.querySelector(".issues").append(...card.issues.map(issue => labelled("issue", issue)));
  made.querySelector("small").textContent =
    `${card.key} · ${card.shard} #${card.index} · ${card.task}`;
  return made;
}

function thumbnailOf(card, parsed) {
  if (!parsed.has(card.chunk))
    parsed.set(card.chunk, JSON.parse(imageBlocks[card.chunk].textContent));
  return parsed.get(card.chunk)[card.place];
}

function draw(svg, card, image) {
  const {width, height} = card;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", `${card.key}: ${card.pieces.map(piece => piece.text).join("")}`);
  set(svg.querySelector("image"), {href: image, width, height});
  const boxes = card.entities.flatMap((entity, i) => entity.boxes.map(box => ({box, entity, i})));
  const area = ({box}) => (box.x2 - box.x1) * (box.y2 - box.y1);
  // The small ones on top, where a pointer finds them.
  boxes.sort((a, b) => area(b) - area(a));
  svg.append(...boxes.map(({box, entity, i}) => frame(box, entity, i, card)));
}

function frame(box, entity, i, {width, height}) {
  const rect = document.createElementNS(SVG, "rect");
  set(rect, {
    x: box.x1 * width, y: box.y1 * height,
    width: (box.x2 - box.x1) * width, height: (box.y2 - box.y1) * height,
    class: `${colour(entity)} ${box.change}`.trim(), tabindex: -1, "data-entity": i,
  });
  const title = document.createElementNS(SVG, "title");
  title.textContent = [entity.phrase, score(box), box.change].filter(Boolean).join(" ");
  rect.append(title);
  return rect;
}

function words(piece, card) {
  if (piece.entity === null) return piece.text;
  const mark = document.createElement("mark");
  mark.textContent = piece.text;
  set(mark, {
    class: colour(card.entities[piece.entity]), tabindex: 0, "data-entity": piece.entity,
    "data-scores": card.entities[piece.entity].boxes.map(score).join(" "),
  });
  return mark;
}

function labelled(name, text) {
  const label = document.createElement("span");
  label.className = name;
  label.textContent = text;
  return label;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function colour(entity) {
  return `c${entity.colour % COLOURS}`;
}

function score(box) {
  return box.score === null ? "" : box.score.toFixed(2);
}

// ---- phrase <-> box, under the pointer or the focus

function look(target) {
  const chosen = target?.closest("[data-entity]") ?? document.activeElement.closest("[data-entity]");
  for (const other of sheet.querySelectorAll(".looking, .chosen"))
    other.classList.remove("looking", "chosen");
  if (!chosen) return;
  const around = chosen.closest("figure");
  around.classList.add("looking");
  for (const part of around.querySelectorAll("[data-entity]"))
    part.classList.toggle("chosen", part.dataset.entity === chosen.dataset.entity);
}

sheet.addEventListener("pointerover", event => look(event.target));
sheet.addEventListener("pointerleave", () => look(null));
sheet.addEventListener("focusin", event => look(event.target));
sheet.addEventListener("focusout", event => { if (!event.relatedTarget) look(null); });

// ---- what the address says after "#", so that others can link to it

function remember() {
  const said = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) said.set(name, value);
  if (page > 1) said.set("page", page);
  history.replaceState(null, "", said.size ? `#${said}` : "#");
}

function recall() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) if (field.name) field.value = said.get(field.name) ?? "";
  choose();
  turn(Number(said.get("page") ?? 1));  // and not to another one before: a reload may come between
}

// ---- what there is to choose from

function frequent(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function offer(list, values, label) {
  list.append(...values.map(([value, times]) => {
    const option = document.createElement("option");
    option.value = value;
    if (label) option.textContent = `${value} (${count(times)})`;
    return option;
  }));
}

const all = cards.flatMap(parts);
offer(byId("phrases"),
  frequent(all.flatMap(part => part.entities.map(entity => entity.words))).slice(0, SUGGESTIONS));
offer(byId("shards"), frequent(all.map(part => part.shard)).slice(0, SUGGESTIONS));
offer(form.elements.flag, frequent(all.flatMap(part => part.issues)), true);
offer(form.elements.task, frequent(all.map(part => part.task)), true);

form.addEventListener("input", search);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(search));  // once the fields are empty
byId("previous").addEventListener("click", () => leaf(page - 1));
byId("next").addEventListener("click", () => leaf(page + 1));
byId("page").addEventListener("change", event => leaf(event.target.value));
addEventListener("hashchange", recall);
addEventListener("keydown", event => {
  if (event.target.matches("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowLeft" && page > 1) leaf(page - 1);
  if (event.key === "ArrowRight" && page < pageCount()) leaf(page + 1);
});
recall();
