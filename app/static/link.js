// The code of a mailed link stands in the address behind #: take it into the form, and out of the address.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  document.getElementById("token").value = token;
  document.querySelector("[data-from-link]").hidden = true;
  history.replaceState(null, "", location.pathname);
}
