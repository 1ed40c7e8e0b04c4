// The page's one script: posts appear at once, jobs are followed live, and a flood of
// requests obeys what a full queue says. It runs on the same HTTP interface as any client.

const JOBS = "/jobs/v1/jobs";
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const STREAMS = 3; // a browser opens six connections to a site, and pages need some

const byId = (id) => document.getElementById(id);
const figure = (number) => number.toLocaleString("en");
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// -- posting --

const compose = byId("compose");
const posts = byId("posts");
const followers = Number(posts.dataset.followers);

compose.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = compose.text.value.trim();
  if (!text) return;
  const post = show(text); // before the server has answered: it is only a copy
  const body = new URLSearchParams({ text });
  compose.reset();
  try {
    const answer = await fetch("/posts", { method: "POST", body, headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the site answered ${answer.status}`);
    const made = await answer.json();
    post.id = `post-${made.post}`;
    post.dataset.post = made.post;
    byId("flood").dataset.post = made.post;
    follow(post, made.job);
  } catch (error) {
    deliveryOf(post, "failed", `not posted: ${error.message}`);
  }
});

compose.text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compose.requestSubmit();
});

function show(text) {
  const post = byId("post-template").content.firstElementChild.cloneNode(true);
  post.querySelector(".text").textContent = text;
  post.classList.add("new");
  deliveryOf(post, "sending", `sending to ${figure(followers)} followers…`);
  posts.prepend(post);
  return post;
}

function deliveryOf(post, state, text) {
  const delivery = post.querySelector(".delivery");
  delivery.dataset.state = state;
  delivery.textContent = text;
}

// -- following jobs --

let open = 0;
const line = [];

function follow(post, job) {
  const row = byId("job-template").content.firstElementChild.cloneNode(true);
  row.dataset.job = job;
  row.querySelector(".what").textContent = `Send “${post.querySelector(".text").textContent}”`;
  tell(row, { state: "ready" });
  byId("jobs").prepend(row);
  byId("idle").hidden = true;
  line.push(() => stream(post, row, job));
  next();
}

function next() {
  while (open < STREAMS && line.length) {
    open += 1;
    line.shift()();
  }
}

// The browser connects again by itself and says which change it saw last, so none is lost.
function stream(post, row, job) {
  const source = new EventSource(`${JOBS}/${job}/events`);
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // it connects again by itself
    open -= 1;
    next();
    row.querySelector(".detail").textContent = "its progress cannot be followed";
  });
  source.addEventListener("change", (event) => {
    const record = JSON.parse(event.data);
    tell(row, record);
    if (!FINAL.has(record.state)) return;
    source.close();
    open -= 1;
    next();
    const seconds = (Date.parse(record.ended_at) - Date.parse(record.enqueued_at)) / 1000;
    const sent = record.state === "succeeded";
    const text = sent
      ? `sent to ${figure(followers)} followers in ${seconds.toFixed(1)} s`
      : `not sent to everybody: ${record.error?.message ?? record.state}`;
    deliveryOf(post, sent ? "sent" : "failed", text);
    byId("said").textContent = text;
  });
}

function tell(row, record) {
  const done = record.state === "succeeded";
  row.dataset.state = record.state;
  row.querySelector(".state").textContent = done ? "done" : record.state === "ready" ? "waiting" : record.state;
  row.querySelector("progress").value = done ? 1 : (record.progress?.fraction ?? 0);
  row.querySelector(".detail").textContent = done
    ? `${figure(followers)} followers have it`
    : (record.progress?.message ?? "stored; a worker takes it as soon as one is free");
}

for (const post of document.querySelectorAll(".post[data-job]")) follow(post, post.dataset.job);

// -- the flood --

const flood = byId("flood");
drawSquares(Number(byId("number").value));
const counts = { accepted: 0, waiting: 0, refused: 0, tries: 0 };

flood.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = flood.querySelector("button");
  const number = Number(byId("number").value);
  const post = Number(flood.dataset.post);
  button.disabled = true;
  Object.assign(counts, { accepted: 0, waiting: 0, refused: 0, tries: 0 });
  byId("outcome").textContent = "";
  delete flood.dataset.state;
  const squares = drawSquares(number);
  try {
    byId("outcome").textContent = await sendAll(squares, post);
    flood.dataset.state = "done";
  } catch (error) {
    byId("outcome").textContent = `The flood broke off: ${error.message}`;
    flood.dataset.state = "failed";
  } finally {
    button.disabled = false;
  }
});

async function sendAll(squares, post) {
  const before = (await heartsNow(post)).hearts;
  const began = performance.now();
  const watching = watch(post, before + squares.length);
  const sending = Promise.all(squares.map((square) => sendHeart(square, post)));
  const lasting = sending.then(() => (performance.now() - began) / 1000);
  const [seconds] = await Promise.all([lasting, watching]);
  return (
    `All ${figure(squares.length)} were accepted within ${seconds.toFixed(1)} s, ` +
    `after ${figure(counts.refused)} refusals that were obeyed.`
  );
}

// One square for each heart; its colour says what became of it.
function drawSquares(number) {
  const squares = Array.from({ length: number }, () => document.createElement("i"));
  byId("squares").replaceChildren(...squares);
  return squares;
}

// One visitor: sends a heart, and where the queue is full comes back when it said to, with the
// ticket that keeps the place. The id stays the same, so that no try makes a second heart.
async function sendHeart(square, post) {
  const body = JSON.stringify({ post, id: newId() });
  const headers = { "Content-Type": "application/json" };
  for (let tries = 1; ; tries += 1) {
    const answer = await fetch("/hearts", { method: "POST", headers, body });
    if (answer.status === 202) {
      counts.tries += tries;
      break;
    }
    if (answer.status !== 503) throw new Error(`the site answered ${answer.status}`);
    const ticket = answer.headers.get("Backlane-Ticket");
    if (ticket) headers["Backlane-Ticket"] = ticket;
    counts.refused += 1;
    counts.waiting += 1;
    square.dataset.state = "waiting";
    const seconds = Number(answer.headers.get("Retry-After"));
    await pause(seconds * (1 + Math.random() / 10)); // never early, and not all at once
    counts.waiting -= 1;
  }
  counts.accepted += 1;
  square.dataset.state = "accepted";
}

// Shows the queue and the figures while hearts are under way.
async function watch(post, wanted) {
  for (;;) {
    const { hearts, held, places } = await heartsNow(post);
    byId("depth").value = held / places;
    byId("places").textContent = `${held} of ${places} places`;
    showCounts();
    const shown = document.querySelector(`[data-post="${post}"] .hearts b`);
    if (shown) shown.textContent = figure(hearts);
    if (hearts >= wanted) return;
    await pause(0.25);
  }
}

async function heartsNow(post) {
  return (await fetch(`/posts/${post}/hearts`)).json();
}

function showCounts() {
  for (const name of ["accepted", "waiting", "refused"]) byId(name).textContent = figure(counts[name]);
  byId("tries").textContent = (counts.tries / Math.max(1, counts.accepted)).toFixed(1);
}

// A UUIDv7: its first 48 bits are the time, the rest is random.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let rest = Date.now();
  for (let at = 5; at >= 0; at -= 1) {
    bytes[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
