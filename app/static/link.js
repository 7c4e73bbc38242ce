// A mailed link carries its code behind the # of the address. Moves the code into the form, and out of the address bar.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  Object.assign(document.getElementById("token"), { type: "hidden", value: token });
  document.querySelector("[data-from-link]").hidden = true;
  history.replaceState(null, "", location.pathname);
}
// A second link opened in the same tab changes only the part after the #. Reload the page, which may have no form now.
addEventListener("hashchange", () => location.replace(`${location.pathname}?${location.hash}`));
