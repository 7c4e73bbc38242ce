// Loaded on every page: times in the reader's own zone, relative while they are recent; menus that close by themselves;
// passwords that can be shown and are checked while they are typed; and the focus in the first field that has to be corrected.
const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR; // seconds
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function localTime(moment) {
  return moment.toLocaleString("sv", { dateStyle: "short", timeStyle: "short" }); // 2026-11-28 22:15, as without scripts
}

function recent(moment) {
  const seconds = Math.round((moment - Date.now()) / 1000);
  const age = Math.abs(seconds);
  if (age < MINUTE) return "just now";
  if (age < HOUR) return relative.format(Math.trunc(seconds / MINUTE), "minute");
  return age < DAY ? relative.format(Math.trunc(seconds / HOUR), "hour") : null;
}

function localDay(moment) {
  const midnight = (date) => new Date(date).setHours(0, 0, 0, 0);
  const days = Math.round((midnight(moment) - midnight(Date.now())) / (1000 * DAY));
  return days > -2 ? relative.format(days, "day") : moment.toLocaleDateString("en", { dateStyle: "full" });
}

// Shows every <time> in `root` in the reader's zone. Those with data-exact, such as the date of an operation, are never
// relative; those with data-day or data-clock show a part of the time.
function showLocalTimes(root) {
  for (const time of root.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    time.title = `${time.dateTime.slice(0, 16).replace("T", " ")} UTC`;
    if ("day" in time.dataset) time.textContent = localDay(moment);
    else if ("clock" in time.dataset) time.textContent = localTime(moment).slice(-5);
    else time.textContent = ("exact" in time.dataset ? null : recent(moment)) ?? localTime(moment);
  }
  for (const note of root.querySelectorAll("[data-utc-note]")) note.hidden = true;
}

// Shows a field's UTC time in the reader's own zone, and sends it in UTC.
function localField(field) {
  const pad = (text) => text.padEnd(23, ":00.000".slice(text.length - 16));
  const toLocal = (date) => new Date(date - date.getTimezoneOffset() * 60000).toISOString();
  const exactness = field.value.length;
  if (field.value) field.value = toLocal(new Date(`${pad(field.value)}Z`)).slice(0, exactness);
  field.form.addEventListener("formdata", ({ formData }) => {
    if (field.value) formData.set(field.name, new Date(field.value).toISOString().slice(0, field.value.length));
  });
}

function showable(field) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "show", textContent: "Show" });
  button.addEventListener("click", () => {
    const isHidden = field.type === "password";
    field.type = isHidden ? "text" : "password";
    button.textContent = isHidden ? "Hide" : "Show";
  });
  field.form.addEventListener("submit", () => { field.type = "password"; }); // so that no browser remembers it as text
  field.after(button);
}

// Shows the server's verdict below a new password whenever typing pauses; the server applies the rule of registration.
function checkWhileTyping(field) {
  const verdict = document.createElement("p");
  verdict.className = "hint verdict";
  verdict.ariaLive = "polite";
  verdict.id = `${field.id}-verdict`;
  field.setAttribute("aria-describedby", `${field.getAttribute("aria-describedby") ?? ""} ${verdict.id}`.trim());
  field.closest(".field").append(verdict);
  let pause;
  const wait = () => {
    clearTimeout(pause);
    verdict.textContent = "";
    if (field.value) pause = setTimeout(check, 600); // ms
  };
  field.addEventListener("input", wait);
  wait(); // for a password typed before this script was loaded
  async function check() {
    const form = new FormData(field.form), password = field.value;
    const body = new URLSearchParams({ password });
    for (const name of ["email", "username", "name"]) body.set(name, form.get(name) ?? "");
    const answer = await fetch("/check-password", { method: "POST", body }).catch(() => null);
    if (!answer?.ok || field.value !== password) return;
    const fault = await answer.text();
    verdict.textContent = fault || "This password can be used.";
    verdict.classList.toggle("error", fault !== "");
    field.ariaInvalid = fault ? "true" : null;
    document.getElementById(`${field.id}-error`)?.setAttribute("hidden", "");
  }
}

showLocalTimes(document);
document.querySelectorAll("input[type=password]").forEach(showable);
document.querySelectorAll("[autocomplete=new-password]").forEach(checkWhileTyping);
(document.querySelector("[aria-invalid]") ?? document.querySelector("form:has(> .alert) :invalid"))?.focus();
document.querySelectorAll("input[data-utc]").forEach(localField);

addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
