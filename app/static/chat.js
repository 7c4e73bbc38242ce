// The chat over one WebSocket. After a lost connection it resumes behind the last message that it showed, and sends each
// unconfirmed message again with the same id, so no message is lost or shown twice.
const list = document.getElementById("messages");
const form = document.getElementById("compose");
const connection = document.getElementById("connection");
const trouble = document.getElementById("trouble");
const unsent = new Map(); // client_message_id -> its list item and its text
const LINK = /(https?:\/\/[^\s<>"]*[^\s<>".,:;!?')\]}])/; // as in app/pages/jobs_and_chat.py
const LONGEST_WAIT = 15000; // ms between two attempts to connect
let after = Number(list.dataset.after);
let socket = null;
let isReady = false;
let wait = 500;
let timer = 0;

function notify(text, link) {
  trouble.textContent = text;
  trouble.hidden = !text;
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = link;
    anchor.textContent = "Sign in";
    trouble.append(" ", anchor);
  }
}

function showState(text) {
  connection.textContent = text;
  connection.classList.toggle("bad", !text.startsWith("connect"));
}

function connect() {
  clearTimeout(timer);
  if (socket) { // late events of the previous socket must not touch this one
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
  showState("connecting");
  const base = (list.dataset.api || location.origin).replace(/^http/, "ws");
  socket = new WebSocket(`${base}/api/chat/ws?room=${list.dataset.room}&after=${after}`);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = (event) => onClose(event.code);
}

function receive(frame) {
  if (frame.type === "ready") {
    isReady = true;
    wait = 500;
    showState("connected");
    notify("");
    unsent.forEach(send);
  } else if (frame.type === "message") {
    show(frame);
  } else if (frame.type === "stored") {
    confirm(frame.client_message_id);
  } else if (frame.type === "error") {
    reject(frame.problem, frame.client_message_id);
  }
}

function onClose(code) {
  isReady = false;
  if (code === 4401) {
    endSession();
  } else if (code === 4403) {
    showState("closed");
    notify("Your account does not have access to the chat.");
  } else {
    showState("not connected");
    notify("The connection is lost. Your messages will be sent when it is back.");
    timer = setTimeout(reconnect, wait);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

function endSession() {
  list.querySelectorAll("li:not(.unsent)").forEach((item) => item.remove()); // somebody else may see the screen now
  showState("signed out");
  notify("Your session has ended.", `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
}

// A rejected handshake gives no reason. Fetching this page tells whether the session is still valid.
async function reconnect() {
  const previous = socket;
  let isSignedIn = true;
  try {
    isSignedIn = (await fetch("/chat", { redirect: "manual" })).type !== "opaqueredirect";
  } catch {
    // The network is down: the attempt below fails too, and schedules the next one.
  }
  if (socket !== previous) return; // the network came back in the meantime, and another attempt has started
  if (isSignedIn) connect();
  else endSession();
}

function confirm(id) {
  unsent.get(id)?.item.remove();
  unsent.delete(id);
}

function reject(problem, id) {
  if (problem.status === 429 || problem.status === 503) {
    const reason = problem.status === 429 ? "You are sending messages too fast." : "The service is busy.";
    notify(`${reason} The rest will be sent automatically.`);
    const again = () => { if (isReady && unsent.has(id)) { notify(""); send(unsent.get(id), id); } };
    setTimeout(again, 1000 * (problem.retry_after || 5));
    return;
  }
  notify(problem.type === "/problems/invalid" ? list.dataset.invalidText : "This message could not be sent. Try again.");
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
  add(isMine, isMine ? "You" : message.author || "Someone", message.created_at, message.text, message.author_id);
}

// A message without `authorId` is not sent yet, and no other message is grouped with it.
function add(isMine, author, moment, text, authorId = "") {
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  const item = document.createElement("li");
  const head = item.appendChild(document.createElement("p"));
  const body = item.appendChild(document.createElement("p"));
  item.className = isMine ? "mine" : "";
  item.dataset.author = authorId;
  head.className = "hint";
  head.appendChild(document.createElement("bdi")).textContent = author;
  const time = document.createElement("time");
  time.dateTime = moment;
  time.dataset.clock = "";
  head.append(" ", time);
  showLocalTimes(head);
  body.className = "text";
  body.appendChild(document.createElement("bdi")).append(...text.split(LINK).map((part, index) => (index % 2 ? linkTo(part) : part)));
  list.appendChild(item);
  arrange(item);
  if (isAtEnd || isMine) list.scrollTop = list.scrollHeight;
  return item;
}

function linkTo(address) {
  return Object.assign(document.createElement("a"), { href: address, textContent: address, target: "_blank", rel: "noreferrer noopener" });
}

// Shows the day above its first message, and an author's name once an hour.
function arrange(item) {
  const previous = item.previousElementSibling;
  const [time, before] = [item, previous].map((each) => each?.querySelector("time")?.dateTime);
  const isNewDay = !before || new Date(before).toDateString() !== new Date(time).toDateString();
  const isSame = !isNewDay && item.dataset.author && item.dataset.author === previous.dataset.author;
  item.classList.toggle("same", Boolean(isSame) && new Date(before).getHours() === new Date(time).getHours());
  if (isNewDay) {
    const day = document.createElement("li");
    day.className = "day";
    day.appendChild(Object.assign(document.createElement("time"), { dateTime: time })).dataset.day = "";
    showLocalTimes(day);
    item.before(day);
  }
}

form.elements.text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = form.elements.text.value.trim();
  if (!text) return;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const item = add(true, "Sending…", new Date().toISOString(), text);
  item.classList.add("unsent");
  unsent.set(id, { item, text });
  form.elements.text.value = "";
  if (isReady) send({ text }, id);
});

addEventListener("online", () => { if (!isReady) connect(); });
addEventListener("offline", () => socket.close());
list.querySelectorAll(".day").forEach((day) => day.remove()); // the server's day headings are in UTC
list.querySelectorAll("li").forEach(arrange);
document.querySelector(".rooms [aria-current]").scrollIntoView({ block: "nearest" });
list.scrollTop = list.scrollHeight;
connect();
