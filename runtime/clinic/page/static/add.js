// A dropped folder, sent file by file, four at a time; no name of a file leaves the browser.
const drop = document.getElementById("drop"), words = drop.dataset, progress = document.getElementById("progress");
const headers = { "X-CSRF-Token": document.body.dataset.token }, AT_ONCE = 4, TRIES = 60;
const say = (message) => { document.getElementById("upload-state").textContent = message; };

const send = (address, method, body, more) => fetch(address, { method, body, headers: { ...headers, ...more } });

async function place(address, file) { // goes on where it stopped once the connection is back
  for (let tried = 0; tried < TRIES; tried++) {
    const held = tried ? await fetch(address).then((answer) => (answer.ok ? answer.json() : null), () => null) : { received_bytes: 0 };
    if (held && held.is_complete) return;
    const from = held ? held.received_bytes : 0, range = { "Content-Range": `bytes ${from}-${file.size - 1}/${file.size}` };
    const answer = await send(address, "PUT", from ? file.slice(from) : file, from ? range : {}).catch(() => null);
    if (answer && answer.status < 500 && answer.status !== 408 && answer.status !== 409) return;
    say(words.wordsAgain);
    await new Promise((resolve) => setTimeout(resolve, Math.min(1000 * (tried + 1), 5000)));
  }
  throw new Error("away");
}

async function upload(files) {
  if (!files.length) return;
  const begun = await send("/api/uploads", "POST");
  if (!begun.ok) throw new Error(String(begun.status));
  const address = `/api/uploads/${(await begun.json()).id}`;
  let next = 0, sent = 0;
  progress.hidden = false;
  const lane = async () => {
    for (let number = next++; number < files.length; number = next++) {
      await place(`${address}/files/${number}`, files[number]);
      progress.value = ++sent / files.length;
      say(`${sent} ${words.wordsOf} ${files.length} ${words.wordsProgress}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  const ended = await send(`${address}/finish`, "POST"), { studies, refused } = await ended.json();
  say([studies.length ? words.wordsDone : words.wordsFailed, refused ? `${refused} ${words.wordsRefused}.` : ""].join(" "));
  document.getElementById("upload-links").hidden = !studies.length;
}

async function* walk(entry) {
  if (entry.isFile) yield await new Promise((resolve, reject) => entry.file(resolve, reject));
  const reader = entry.isDirectory && entry.createReader();
  for (let some; reader && (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; )
    for (const one of some) yield* walk(one);
}

async function dropped(entries) {
  const files = [];
  for (const entry of entries) for await (const file of walk(entry)) files.push(file);
  await upload(files);
}

const failed = () => say(words.wordsFailed);
for (const name of ["dragover", "dragleave", "drop"])
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.toggle("over", name === "dragover"); });
drop.addEventListener("drop", (event) => dropped([...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean)).catch(failed));
for (const id of ["folder", "files"])
  document.getElementById(id).addEventListener("change", (event) => upload([...event.target.files]).catch(failed));
