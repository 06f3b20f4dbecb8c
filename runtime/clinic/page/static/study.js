// A question about the scan and its answer as it is written; and who was told of the result.
const box = document.getElementById("ask"), words = box.dataset, form = box.querySelector("form"), text = form.elements.text;
const state = box.querySelector(".asked-state"), stop = document.getElementById("stop"), study = document.body.dataset.study;
const headers = { "X-CSRF-Token": document.body.dataset.token, "Content-Type": "application/json" };
const send = (address, content) => fetch(address, { method: "POST", headers, body: JSON.stringify(content) });
const problem = async (answer) => (await answer.json().catch(() => ({ error: {} }))).error.message || words.wordsFailed;
let news = null, address = "", part = null;

function add(kind, content) { // as text, never as HTML: the model may write anything
  if (!part || part.className !== kind || kind === "notice") {
    part = box.querySelector(".conversation").appendChild(document.createElement("p"));
    [part.className, part.dir] = [kind, "auto"];
  }
  part.append(content);
}

function end(message) {
  if (news) news.close();
  [news, part, stop.hidden, form.querySelector("button").disabled] = [null, null, true, false];
  state.textContent = message;
}

async function ask() {
  add("asked", text.value);
  state.textContent = words.wordsWait;
  form.querySelector("button").disabled = true;
  const answer = await send(`/api/studies/${study}/questions`, { text: text.value });
  if (!answer.ok) return end(await problem(answer));
  const { id } = await answer.json();
  [text.value, stop.hidden, address] = ["", false, `/api/questions/${id}`];
  news = new EventSource(`${address}/events`);
  for (const kind of ["notice", "thought", "piece"])
    news.addEventListener(kind, (event) => add(kind, JSON.parse(event.data).text));
  news.addEventListener("end", (event) => end(JSON.parse(event.data).reason === "stop" ? words.wordsEnd : words.wordsCut));
  news.addEventListener("failed", (event) => end(JSON.parse(event.data).text));
  news.addEventListener("error", () => { if (news && news.readyState === EventSource.CLOSED) end(words.wordsCut); });
}

form.addEventListener("submit", (event) => { event.preventDefault(); if (!news) ask().catch(() => end(words.wordsFailed)); });
text.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); form.requestSubmit(); } });
stop.addEventListener("click", () => { fetch(address, { method: "DELETE", headers }); end(words.wordsCut); });

const told = document.getElementById("told");
if (told) told.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { result_number: number, ...rest } = Object.fromEntries(new FormData(told));
  const answer = await send(`/api/studies/${study}/acknowledgements`, { result_number: Number(number), ...rest }).catch(() => null);
  if (answer && answer.ok) location.reload();
  else document.getElementById("told-state").textContent = answer ? await problem(answer) : told.dataset.wordsFailed;
});
