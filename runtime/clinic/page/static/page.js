// Every page: its language, parts that renew themselves, a sound for critical studies.
const body = document.body, sound = document.getElementById("sound"), stale = document.getElementById("stale");
const on = (id, kind, act) => document.getElementById(id) && document.getElementById(id).addEventListener(kind, act);

on("language", "change", (event) => {
  document.cookie = `language=${event.target.value}; path=/; max-age=31536000; SameSite=Strict`;
  location.reload();
});
let known = new Set((body.dataset.alarms || "").split(" ").filter(Boolean)), audio = null;

on("language", "change", (event) => {
  document.cookie = `language=${event.target.value}; path=/; max-age=31536000; SameSite=Strict`;
  location.reload();
});

function setSound(isOn) {
  sound.setAttribute("aria-pressed", String(isOn));
  audio = isOn ? audio || new AudioContext() : null;
  localStorage.setItem("sound", isOn ? "on" : "");
}

function ring() {
  for (const [start, pitch] of audio ? [[0, 880], [0.25, 660], [0.5, 880]] : []) {
    const tone = audio.createOscillator(), volume = audio.createGain(), begin = audio.currentTime + start;
    tone.frequency.value = pitch;
    volume.gain.setValueAtTime(0.2, begin);
    volume.gain.exponentialRampToValueAtTime(0.001, begin + 0.22);
    tone.connect(volume).connect(audio.destination);
    tone.start(begin);
    tone.stop(begin + 0.23);
  }
}

on("sound", "click", () => { setSound(sound.getAttribute("aria-pressed") !== "true"); ring(); });
if (sound && localStorage.getItem("sound")) // a browser plays nothing before the page is touched
  addEventListener("pointerdown", () => audio || setSound(true), { once: true });

async function renew(digest) {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok || answer.redirected) return location.reload();
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const focused = document.activeElement && document.activeElement.id;
  for (const part of document.querySelectorAll("[data-part]")) {
    const isOpen = part.querySelector("details[open]"), news = fresh.getElementById(part.id);
    if (!news || news.isEqualNode(part)) continue;
    part.replaceChildren(...news.childNodes);
    if (isOpen && part.querySelector("details")) part.querySelector("details").open = true;
  }
  document.title = fresh.title;
  body.dataset.digest = digest;
  if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
}

if (body.dataset.live) {
  const news = new EventSource(body.dataset.live);
  let lost = 0;
  news.addEventListener("changed", (event) => {
    lost = clearTimeout(lost);
    stale.hidden = true;
    const { digest, alarms } = JSON.parse(event.data);
    if (alarms.some((key) => !known.has(key))) ring();
    known = new Set(alarms);
    if (digest !== body.dataset.digest) renew(digest).catch(() => { stale.hidden = false; });
  });
  news.addEventListener("error", () => {
    lost = lost || setTimeout(() => { stale.hidden = false; }, 8000);
    if (news.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
  addEventListener("pagehide", () => news.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}
