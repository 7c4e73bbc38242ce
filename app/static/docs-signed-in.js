// Passes the response of /authorize to the Swagger UI that opened this window.
const { auth, state, redirectUrl, callback, errCb } = window.opener.swaggerUIRedirectOauth2;
const answer = new URLSearchParams(location.search);
if (answer.get("state") === state && answer.has("code")) {
  auth.code = answer.get("code");
  callback({ auth, redirectUrl });
} else {
  const message = answer.get("error_description") ?? "This answer belongs to another sign-in.";
  errCb({ authId: auth.name, source: "auth", level: "error", message });
}
window.close();
