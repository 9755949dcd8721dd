// Draws the messages of /stream: the published payloads, and what only this page shows (boxes, level).
"use strict";

const LABELS = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"];
const RETRY_MS = 1000;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

// A fragment never reaches the server or its log; sessionStorage ends with the tab.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname + location.search);
}
if (new URLSearchParams(location.search).has("kiosk")) document.body.classList.add("kiosk");

// The preview belongs to the page that asked for it: a random word identifies this one, as long as it is open.
const SESSION = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function request(path, options = {}) {
  const headers = { ...options.headers, "X-Session": SESSION };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
}

async function readStream() {
  const response = await request("stream");
  if (response.status === 401) {
    sessionStorage.removeItem("token");
    $("ask").hidden = false;
    $("content").hidden = true;
    $("token").focus();
    return false;
  }
  if (!response.ok) throw new Error(`stream: ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("stream: ended");
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("");
      if (data) draw(JSON.parse(data));
    }
  }
}

async function stayConnected() {
  for (;;) {
    try {
      if (!(await readStream())) return;
    } catch {
      $("lost").hidden = false;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
}

function drawn(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function bar(share, kind) {
  const made = element("div", "", "bar");
  const filled = element("i", "", kind);
  filled.style.width = `${Math.round(100 * share)}%`;
  made.append(filled);
  return made;
}

function draw(message) {
  $("lost").hidden = $("ask").hidden = true;
  $("content").hidden = false;
  const payloads = message.payloads;
  $("device").textContent = message.device;
  document.title = payloads.state ? `${payloads.state.emotion} - ${message.device}` : message.device;
  drawStatus(payloads.status, message.broker);
  drawNow(payloads.state, payloads["group/state"], payloads["fatigue/state"]);
  drawBars(payloads);
  drawFatigue(payloads["fatigue/state"]);
  drawBoxes(message.boxes, payloads["face/state"], message.frame);
  drawLevel(message.level_db);
  if (message.hour !== null) drawHour(message.hour);
  drawFacts(message);
  drawButtons(message);
}

function drawStatus(status, broker) {
  const state = status ? status.state : "starting";
  $("status").textContent = status && status.reasons.length ? `${state}: ${status.reasons.join(", ")}` : state;
  $("status").className = `pill ${state === "running" ? "good" : state === "degraded" ? "bad" : ""}`;
  $("broker").textContent = broker.connected ? `broker, MQTT ${broker.protocol}` : `broker: ${broker.reason}`;
  $("broker").className = `pill ${broker.connected ? "good" : "bad"}`;
}

function drawNow(state, group, fatigue) {
  const emotion = state ? state.emotion : "";
  set($("emotion"), emotion || (group ? "group" : "\u00a0"));
  $("emotion").className = emotion ? `is-${emotion}` : "";
  const faces = state ? state.faces : group && group.faces;
  const parts = [];
  if (state && emotion !== "absent") parts.push(`${Math.round(100 * state.confidence)} % confidence`);
  if (faces !== null && faces !== undefined) parts.push(faces === 1 ? "1 face" : `${faces} faces`);
  if (state && emotion === "absent") parts.push("no face, no voice");
  if (state && state.speaker) parts.push(state.speaker === "uncertain" ? "speaker uncertain" : `${state.speaker} speaks`);
  if (fatigue) parts.push(`fatigue: ${fatigue.level}`);
  $("summary").textContent = parts.join(" \u00b7 ");
  const share = state ? state.confidence : 0;
  $("confidence").firstElementChild.style.width = `${Math.round(100 * share)}%`;
  $("confidence").firstElementChild.className = emotion ? `is-${emotion}` : "";
  $("confidence").setAttribute("aria-valuenow", Math.round(100 * share));
}

function set(node, text) {
  // Screen readers announce only changes.
  if (node.textContent !== text) node.textContent = text;
}

function drawBars(payloads) {
  const columns = [];
  if (payloads.state) columns.push(["room", payloads.state.probabilities]);
  for (const face of (payloads["face/state"] || { faces: [] }).faces)
    columns.push([face.speaking ? `${face.subject} speaks` : face.subject, face.probabilities]);
  const voice = payloads["voice/state"];
  if (voice && voice.emotion !== "absent") columns.push(["voice", voice.probabilities]);
  const head = element("tr");
  head.append(element("th"), ...columns.map(([name]) => element("th", name)));
  $("bars").tHead.replaceChildren(head);
  const rows = LABELS.map((label) => {
    const row = element("tr");
    row.append(element("th", label));
    for (const [, p] of columns) {
      const cell = element("td");
      cell.title = `${label} ${Math.round(100 * (p[label] || 0))} %`;
      cell.append(bar(p[label] || 0, `is-${label}`));
      row.append(cell);
    }
    return row;
  });
  $("bars").tBodies[0].replaceChildren(...(columns.length ? rows : []));
  const group = payloads["group/state"];
  $("withheld").hidden = Boolean(payloads.state) || !group;
  if (group && !payloads.state) {
    const counts = Object.entries(group.counts || {}).map(([label, n]) => `${label} ${n}`);
    $("withheld").textContent = group.counts ? `Faces: ${counts.join(", ")}` : "Fewer than five faces: no emotion is published.";
  }
}

function drawFatigue(fatigue) {
  $("fatigue").hidden = !fatigue || fatigue.level === "absent";
  if ($("fatigue").hidden) return;
  const reasons = fatigue.reasons.join(", ").replaceAll("_", " ");
  set($("tired"), reasons ? `${fatigue.level}: ${reasons}` : fatigue.level);
  const score = Math.round(100 * fatigue.score);
  $("tiredness").firstElementChild.style.width = `${score}%`;
  $("tiredness").firstElementChild.className = `is-${fatigue.level}`;
  $("tiredness").setAttribute("aria-valuenow", score);
  $("tiredness").setAttribute("aria-valuetext", fatigue.level);
  const number = (value, unit = "") => (value === null ? "\u2013" : `${Math.round(value)}${unit}`);
  const rows = [
    ["level", (person) => person.level],
    ["eyes closed", (person) => number(person.perclos === null ? null : 100 * person.perclos, " %")],
    ["blinks a minute", (person) => number(person.blinks_per_min)],
    ["microsleeps", (person) => number(person.microsleeps)],
    ["yawns, nods", (person) => `${person.yawns}, ${person.nods}`],
  ];
  const head = element("tr");
  head.append(element("th"), ...fatigue.people.map((person) => element("th", person.subject)));
  $("signs").tHead.replaceChildren(head);
  $("signs").tBodies[0].replaceChildren(...rows.map(([name, value]) => {
    const row = element("tr");
    row.append(element("th", name), ...fatigue.people.map((person) => element("td", value(person))));
    return row;
  }));
}

function drawBoxes(boxes, faces, frame) {
  const { width, height } = frame || { width: 640, height: 480 };
  const emotions = Object.fromEntries(((faces && faces.faces) || []).map((face) => [face.subject, face.emotion]));
  const speaking = new Set(((faces && faces.faces) || []).filter((face) => face.speaking).map((face) => face.subject));
  const unit = height / 480;
  const shapes = boxes.flatMap(({ subject, box: [x, y, w, h] }) => {
    const emotion = emotions[subject] || "neutral";
    const kind = `is-${emotion}${speaking.has(subject) ? " speaks" : ""}`;
    const words = emotions[subject] ? `${subject}: ${emotion}` : subject;
    return [
      drawn("rect", { class: kind, x: x * width, y: y * height, width: w * width, height: h * height }),
      drawn("text", { class: kind, x: x * width, y: Math.max(22 * unit, y * height - 8 * unit), "font-size": 22 * unit },
        speaking.has(subject) ? `${words}, speaks` : words),
    ];
  });
  $("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("boxes").replaceChildren(...shapes);
}

function drawLevel(level) {
  $("loudness").hidden = level === null;
  if (level === null) return;
  const shown = Math.max(-80, Math.min(0, level));
  $("level").firstElementChild.style.width = `${Math.round((100 * (shown + 80)) / 80)}%`;
  $("level").setAttribute("aria-valuenow", Math.round(shown));
  $("level-db").textContent = `${Math.round(level)} dB`;
}

function drawHour(hour) {
  // [seconds ago, label], oldest first: each emotion lasts until the next one.
  const spans = hour.map(([ago, label], i) => {
    const from = Math.min(3600, ago);
    const until = i + 1 < hour.length ? hour[i + 1][0] : 0;
    const span = drawn("rect", { class: `is-${label}`, x: 3600 - from, y: 0, width: Math.max(2, from - until), height: 100 });
    span.append(drawn("title", {}, `${label}, ${Math.round(from / 60)} min ago`));
    return span;
  });
  $("hour").replaceChildren(...spans);
  const present = [...LABELS, "uncertain"].filter((label) => hour.some(([, emotion]) => emotion === label));
  $("legend").replaceChildren(...present.map((label) => {
    const entry = element("span", "", `is-${label}`);
    entry.append(element("b", label));
    return entry;
  }));
}

function drawFacts(message) {
  const reasons = (message.payloads.status || { reasons: [] }).reasons;
  const facts = message.facts.map(([name, value]) => [name, value, reasons.some((reason) => reason.startsWith(`${name}:`))]);
  $("facts").replaceChildren(...facts.flatMap(([name, value, bad]) => [element("dt", name), element("dd", value, bad ? "bad" : "")]));
}

function drawButtons(message) {
  for (const part of ["camera", "microphone"]) {
    const on = message.enabled[part];
    $(part).hidden = on === null;
    $(part).setAttribute("aria-pressed", on === false);
    set($(part), on === false ? `Resume ${part}` : `Pause ${part}`);
  }
  const left = message.enabled.camera ? message.preview_s || 0 : 0;
  const own = left > 0 && message.preview_is_own;
  $("preview").hidden = message.preview_s === null || !message.enabled.camera;
  const seconds = `${Math.ceil(left)} s`;
  if (own) set($("preview"), `Hide the camera (${seconds})`);
  else set($("preview"), left > 0 ? `End the preview of another page (${seconds})` : "Show the camera for 60 s");
  $("preview").setAttribute("aria-pressed", left > 0);
  set($("caption"), caption(message.enabled.camera, left, own));
  if (own) watch();
  else stopWatching();
}

function caption(camera, left, own) {
  if (camera === null) return "This device has no camera.";
  if (camera === false) return "The camera is paused.";
  if (own) return "The camera image is shown on this page only.";
  if (left > 0) return "Another page on this device shows the camera image. No image is shown here.";
  return "Boxes only: no image leaves the device.";
}

let watching = false;
async function watch() {
  if (watching) return;
  watching = true;
  try {
    while (watching) {
      const response = await request("preview.jpg");
      if (!response.ok || !watching) break;
      const blob = await response.blob();
      if (!watching) break;
      const url = URL.createObjectURL(blob);
      const old = $("picture").src;
      $("picture").src = url;
      $("picture").hidden = false;
      if (old.startsWith("blob:")) URL.revokeObjectURL(old);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } catch { /* the stream reports a lost connection */ }
  stopWatching();
}

function stopWatching() {
  watching = false;
  $("picture").hidden = true;
  $("picture").removeAttribute("src");
}

async function press(path, on) {
  // A JSON body makes browsers send a preflight request for other sites; the server also checks Host and Origin.
  const response = await request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ on }) });
  if (!response.ok) set($("lost"), await response.text()), ($("lost").hidden = false);
}

for (const part of ["camera", "microphone"]) {
  $(part).addEventListener("click", () => press(`${part}/enabled`, $(part).getAttribute("aria-pressed") === "true"));
}
$("preview").addEventListener("click", () => press("preview", $("preview").getAttribute("aria-pressed") !== "true"));
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("ask").hidden = true;
  stayConnected();
});
stayConnected();
