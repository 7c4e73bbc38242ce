// Shows the progress of jobs: refreshes the list while one of them is unfinished.
const INTERVAL = 2000; // ms
const here = location.pathname.replace(/^(\/[^/]+).*/, "$1"); // a form that was refused has another address
const trouble = document.getElementById("trouble");

function notify(text) {
  trouble.textContent = text;
  trouble.hidden = !text;
}

async function refresh() {
  let wait = INTERVAL;
  try {
    const response = await fetch(here + location.search, { redirect: "manual" });
    if (response.type === "opaqueredirect") {
      location.assign("/sign-in?done=expired&next=" + here);
      return;
    }
    if (response.ok) {
      const shown = document.getElementById("jobs"), page = new DOMParser().parseFromString(await response.text(), "text/html");
      const jobs = document.importNode(page.getElementById("jobs"), true);
      showLocalTimes(jobs);
      if (!shown.isEqualNode(jobs)) shown.replaceWith(jobs); // else a focus there, or half a click, would be lost
      notify("");
    } else {
      const seconds = Number(response.headers.get("Retry-After")) || 5;
      wait = 1000 * seconds;
      notify(response.status === 429 ? `The list cannot be refreshed right now. Trying again in ${inWords(seconds)}.` : "The service is not available. Trying again.");
    }
  } catch {
    wait = 2 * INTERVAL;
    notify("The connection is lost. Trying again.");
  }
  schedule(wait);
}

function inWords(seconds) {
  if (seconds < 10) return "a moment";
  return seconds <= 90 ? `${seconds} seconds` : `${Math.ceil(seconds / 60)} minutes`;
}

function schedule(wait) {
  if (document.querySelector("[data-unfinished]")) setTimeout(refresh, wait);
}

schedule(INTERVAL / 4);
