// The chat over one socket. It resumes behind the last number it has shown, and sends what was not confirmed again under
// the same id: nothing is lost, and nothing is there twice.
const list = document.getElementById("messages");
const form = document.getElementById("say");
const state = document.getElementById("state");
const trouble = document.getElementById("trouble");
const unsent = new Map(); // client_message_id -> its element and its text
const SLOWEST = 15000; // ms between two attempts
let after = Number(list.dataset.after);
let socket = null;
let isReady = false;
let wait = 500;
let retry = 0;

function tell(text, link) {
  trouble.textContent = text;
  trouble.hidden = !text;
  if (link) {
    const way = document.createElement("a");
    way.href = link;
    way.textContent = "Sign in";
    trouble.append(" ", way);
  }
}

function connect() {
  clearTimeout(retry);
  if (socket) { // a late word of the one before is not about this one
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
  state.textContent = "connecting";
  const base = (list.dataset.api || location.origin).replace(/^http/, "ws");
  socket = new WebSocket(`${base}/api/chat/ws?room=lobby&after=${after}`);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = (event) => lost(event.code);
}

function receive(frame) {
  if (frame.type === "ready") {
    isReady = true;
    wait = 500;
    state.textContent = "connected";
    tell("");
    unsent.forEach(send);
  } else if (frame.type === "message") {
    show(frame);
  } else if (frame.type === "stored") {
    confirm(frame.client_message_id);
  } else if (frame.type === "error") {
    refuse(frame.problem, frame.client_message_id);
  }
}

function lost(code) {
  isReady = false;
  if (code === 4401) {
    ended();
  } else if (code === 4403) {
    state.textContent = "closed";
    tell("You may not chat here.");
  } else {
    state.textContent = "not connected";
    tell("The connection is lost. What you write is sent as soon as it is back.");
    retry = setTimeout(again, wait);
    wait = Math.min(2 * wait, SLOWEST);
  }
}

function ended() {
  list.querySelectorAll("li:not(.unsent)").forEach((item) => item.remove()); // nobody is signed in to read them
  state.textContent = "signed out";
  tell("Your session has ended.", "/sign-in?next=/chat");
}

// A refused handshake says no reason: this page's own address knows whether one is still signed in.
async function again() {
  const before = socket;
  let isSignedIn = true;
  try {
    isSignedIn = (await fetch("/chat", { redirect: "manual" })).type !== "opaqueredirect";
  } catch {
    // The network is away: the attempt below finds out when it is back.
  }
  if (socket !== before) return; // the network came back meanwhile, and another attempt is under way
  if (isSignedIn) connect();
  else ended();
}

function confirm(id) {
  unsent.get(id)?.item.remove();
  unsent.delete(id);
}

function refuse(problem, id) {
  if (problem.status === 429) {
    tell("You write faster than the chat takes it. It is sent again in a moment.");
    setTimeout(() => { if (isReady) { tell(""); unsent.forEach(send); } }, 1000 * (problem.retry_after || 5));
    return;
  }
  tell(problem.detail);
  form.elements.text.value ||= unsent.get(id)?.text || "";
  confirm(id);
}

function send({ text }, id) {
  socket.send(JSON.stringify({ text, client_message_id: id }));
}

function show(message) {
  if (message.number <= after) return;
  after = message.number;
  const isMine = message.author_id === list.dataset.me;
  if (isMine) confirm(message.client_message_id);
  add(isMine, message.author || "Somebody", message.created_at, message.text);
}

function add(isMine, author, moment, text) {
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  const item = document.createElement("li");
  const head = item.appendChild(document.createElement("p"));
  const body = item.appendChild(document.createElement("p"));
  item.className = isMine ? "mine" : "";
  head.className = "hint";
  head.appendChild(document.createElement("bdi")).textContent = author;
  head.append(` ${moment.slice(0, 10)} ${moment.slice(11, 16)}`);
  body.className = "text";
  body.appendChild(document.createElement("bdi")).textContent = text;
  list.appendChild(item);
  if (isAtEnd || isMine) list.scrollTop = list.scrollHeight;
  return item;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = form.elements.text.value.trim();
  if (!text) return;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const item = add(true, "Being sent", new Date().toISOString(), text);
  item.classList.add("unsent");
  unsent.set(id, { item, text });
  form.elements.text.value = "";
  if (isReady) send({ text }, id);
});

addEventListener("online", () => { if (!isReady) connect(); });
addEventListener("offline", () => socket.close());
list.scrollTop = list.scrollHeight;
connect();
