// Shows a chosen file before it is sent, and selects a wrong line, to be corrected right there. Dates without a time zone,
// as spreadsheets write them, are taken to be in the reader's own.
const file = document.getElementById("file");
const field = document.getElementById("lines");
const DATE = /(?<=^|[,;\t"])(?:(\d{4})-(\d\d?)-(\d\d?)|(\d\d?)\.(\d\d?)\.(\d{4}))(?:[ T](\d\d?):(\d\d)(?::(\d\d))?)?(?=[,;\t"\r\n]|$)/gm;

function withZones(text) {
  return text.replace(DATE, (cell, y, m, d, day, month, year, hour = 0, minute = 0, second = 0) => {
    const date = new Date(y ?? year, (m ?? month) - 1, d ?? day, hour, minute, second);
    if (date.getDate() !== Number(d ?? day)) return cell; // there is no such day
    const ahead = -date.getTimezoneOffset(), two = (number) => String(Math.trunc(Math.abs(number))).padStart(2, "0");
    const local = new Date(date.getTime() + ahead * 60000).toISOString().slice(0, second ? 19 : 16).replace("T", " ");
    return `${local}${ahead < 0 ? "-" : "+"}${two(ahead / 60)}:${two(ahead % 60)}`;
  });
}

// Old spreadsheets save files in the Windows encoding.
async function read(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(await bytes);
  }
}

async function show() {
  if (file.files.length) field.value = withZones(await read(file.files[0].arrayBuffer()));
}

file.addEventListener("change", show);
if (!field.value) show(); // for a file chosen before this script was loaded
field.form.addEventListener("formdata", ({ formData }) => formData.set("lines", withZones(field.value)));
const links = document.querySelectorAll("a[data-line]");
if (links.length) scrollTo(0, 0); // the field has the focus, and the errors are above it
for (const link of links) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const lines = field.value.split("\n"), before = lines.slice(0, link.dataset.line - 1);
    const start = before.join("\n").length + Math.min(before.length, 1);
    field.focus();
    field.setSelectionRange(start, start + (lines[before.length] ?? "").length);
  });
}
