// A file that is chosen is shown before it is sent, and a line that is wrong is selected, to be corrected right there.
const file = document.getElementById("file");
const field = document.getElementById("lines");
file.closest("p").removeAttribute("data-with-script");
file.addEventListener("change", async () => {
  if (file.files.length) field.value = await file.files[0].text();
});
for (const link of document.querySelectorAll("a[data-line]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const lines = field.value.split("\n"), before = lines.slice(0, link.dataset.line - 1);
    const start = before.join("\n").length + Math.min(before.length, 1);
    field.focus();
    field.setSelectionRange(start, start + (lines[before.length] ?? "").length);
  });
}
