// The slices of a study: fetched as JPEG, decoded beside the page, drawn on a 2D canvas.
const viewer = document.getElementById("viewer"), find = (name) => viewer.querySelector(name);
const stage = find(".stage"), canvas = find("canvas"), context = canvas.getContext("2d", { alpha: false });
const slider = find("#slice"), windowSelect = find("#window"), seriesSelect = find("#series");
const words = viewer.dataset, MAX_BITMAPS = 160, AT_ONCE = 4;
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };
let stacks = [], places = {}, stack = null, shown = 0, drawn = "", turn = 0, files, bitmaps, running;

async function load(index) { // a null file: the slice cannot be decoded
  const mine = turn;
  running.add(index);
  try {
    const answer = await fetch(`${stack.base}/${windowSelect.value}/${index}.jpg`);
    const file = answer.ok ? await answer.blob() : answer.status === 422 ? null : await Promise.reject(answer);
    if (mine !== turn) return;
    files.set(index, file);
    if (Math.abs(index - shown) < 24) await decode(index);
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 1500)); // the server is away: not for ever
  }
  if (mine === turn) { running.delete(index); prefetch(); }
}

async function decode(index) {
  if (bitmaps.has(index) || !files.get(index)) return draw();
  const mine = turn, bitmap = await createImageBitmap(files.get(index));
  if (mine !== turn || bitmaps.has(index)) return bitmap.close();
  bitmaps.set(index, bitmap);
  if (bitmaps.size > MAX_BITMAPS) {
    const far = [...bitmaps.keys()].reduce((a, b) => (Math.abs(a - shown) > Math.abs(b - shown) ? a : b));
    bitmaps.get(far).close();
    bitmaps.delete(far);
  }
  if (index === shown) draw();
}

function prefetch() { // from the slice that is looked at outwards
  for (let step = 0; step < stack.slices; step++)
    for (const index of step ? [shown + step, shown - step] : [shown]) {
      if (running.size >= AT_ONCE) return;
      if (index >= 0 && index < stack.slices && !files.has(index) && !running.has(index)) load(index);
    }
}

function draw() {
  const bitmap = bitmaps.get(shown), name = bitmap ? `${turn}/${shown}` : "";
  find(".trouble").textContent = bitmap ? "" : files.get(shown) === null ? words.wordsLost : words.wordsLoading;
  if (bitmap && drawn !== name) {
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    words.frames = Number(words.frames || 0) + 1;
  }
  if (!bitmap) context.fillRect(0, 0, canvas.width, canvas.height); // never the wrong slice under a number
  drawn = name;
}

function show(index) {
  shown = Math.max(0, Math.min(stack.slices - 1, index));
  const place = `${shown + 1} ${words.wordsOf} ${stack.slices}`, position = stack.positions[shown];
  slider.value = shown + 1;
  slider.setAttribute("aria-valuetext", [place, position].filter(Boolean).join(", "));
  canvas.setAttribute("aria-label", `${words.wordsSlice} ${place}`);
  find(".place").textContent = [`${shown + 1} / ${stack.slices}`, position].filter(Boolean).join(" · ");
  draw();
  for (const step of [0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6, 8, -8]) if (files.get(shown + step)) decode(shown + step);
  prefetch();
}

function begin(slice) { // another series or window: what is under way is forgotten
  turn++;
  if (bitmaps) bitmaps.forEach((bitmap) => bitmap.close());
  [files, bitmaps, running] = [new Map(), new Map(), new Set()];
  show(slice);
}

function choose(number, slice) {
  stack = stacks[number];
  seriesSelect.value = number;
  windowSelect.replaceChildren(...stack.windows.map(([name, label]) => new Option(label, name)));
  [canvas.width, canvas.height, slider.max] = [stack.width, stack.height, stack.slices];
  [find(".left").textContent, find(".right").textContent] = [stack.left, stack.right];
  begin(slice);
}

function listen() {
  let rest = 0, from = null;
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    rest += event.deltaMode ? event.deltaY : event.deltaY / 40;
    if (Math.abs(rest) >= 1) show(shown + Math.trunc(rest));
    rest %= 1;
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const option = windowSelect.options[Number(event.key) - 1];
    if (event.key in STEPS) { event.preventDefault(); show(shown + STEPS[event.key]); }
    else if (option) { windowSelect.value = option.value; begin(shown); }
  });
  stage.addEventListener("pointerdown", (event) => { from = [event.clientY, shown]; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => from && show(from[1] + Math.round((event.clientY - from[0]) / Math.max(3, stage.clientHeight / stack.slices))));
  stage.addEventListener("lostpointercapture", () => { from = null; });
  slider.addEventListener("input", () => show(Number(slider.value) - 1));
  windowSelect.addEventListener("change", () => begin(shown));
  seriesSelect.addEventListener("change", () => choose(seriesSelect.value, 0));
  document.addEventListener("click", (event) => {
    const key = event.target.closest("[data-slice]"), place = key && places[key.dataset.slice];
    if (!place) return;
    event.preventDefault();
    if (stack === stacks[place[0]]) show(place[1]); else choose(...place);
    viewer.scrollIntoView({ block: "nearest" });
    stage.focus({ preventScroll: true });
  });
}

fetch(words.stack).then((answer) => answer.json()).then((described) => {
  ({ stacks, places } = described);
  seriesSelect.replaceChildren(...stacks.map((one, number) => new Option(one.label, number)));
  find("#series-label").hidden = stacks.length < 2;
  const key = document.querySelector("[data-slice]");
  choose(...((key && places[key.dataset.slice]) || [0, Math.floor(stacks[0].slices / 2)]));
  listen();
}).catch(() => { find(".trouble").textContent = words.wordsNone; });
