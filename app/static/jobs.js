// Shows how far the jobs are: reads this page again while one of them has not ended.
const AGAIN = 2000; // ms
const trouble = document.getElementById("trouble");

function tell(text) {
  trouble.textContent = text;
  trouble.hidden = !text;
}

async function look() {
  let wait = AGAIN;
  try {
    const answer = await fetch(location.pathname + location.search, { redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      location.assign("/sign-in?done=expired&next=/jobs");
      return;
    }
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.getElementById("jobs").replaceWith(page.getElementById("jobs"));
      tell("");
    } else {
      wait = 1000 * (Number(answer.headers.get("Retry-After")) || 5);
      tell(answer.status === 429 ? `Too many requests. Looking again in ${wait / 1000} seconds.` : "The server does not answer. Trying again.");
    }
  } catch {
    wait = 2 * AGAIN;
    tell("The connection is lost. Trying again.");
  }
  plan(wait);
}

function plan(wait) {
  if (document.querySelector("[data-unended]")) setTimeout(look, wait);
}

plan(AGAIN / 4);
