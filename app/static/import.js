// A file that is chosen is shown before it is sent, so that a line that is wrong can be corrected right there.
const file = document.getElementById("file");
file.closest("p").removeAttribute("data-with-script");
file.addEventListener("change", async () => {
  if (file.files.length) document.getElementById("lines").value = await file.files[0].text();
});
