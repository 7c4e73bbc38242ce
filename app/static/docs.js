// Swagger UI (Apache-2.0, unmodified, in swagger/), as the client `swagger`. Its tokens are in memory alone: two tabs that
// shared a stored one would look like a thief and an owner.
let session = null; // {auth, token, expires}
let refreshing = null;

const keepSession = {
  statePlugins: {
    auth: {
      wrapActions: {
        authorizeOauth2: (original) => (given) => {
          session = { ...given, expires: Date.now() + given.token.expires_in * 1000 };
          return original(given);
        },
        // Used where there are no pages. Swagger UI would send HTTP Basic by default, as if this public client had a secret.
        authorizePassword: (original) => (given) => original({ ...given, passwordType: "request-body" }),
        logout: (original) => (names) => {
          revoke();
          return original(names);
        },
      },
    },
  },
};

// Removes the errors that any route may return from each route, since the page describes them once above all routes. Where
// a body may be a file or text, only text remains, which has an example.
const simplify = {
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (original) => (spec) => {
          for (const { requestBody, responses } of Object.values(spec.paths).flatMap(Object.values)) {
            delete requestBody?.content["application/octet-stream"];
            for (const [status, { content }] of Object.entries(responses)) {
              const examples = Object.values(Object.values(content ?? {})[0]?.examples ?? {});
              if (examples.length && examples.every((example) => example["x-general"])) delete responses[status];
            }
          }
          return original(spec);
        },
      },
    },
  },
};

function revoke() {
  if (session) {
    navigator.sendBeacon("/api/auth/revoke", new URLSearchParams({ token: session.token.refresh_token }));
    session = null;
  }
}

async function refresh() {
  const { auth, token } = session;
  const form = { grant_type: "refresh_token", refresh_token: token.refresh_token };
  const response = await fetch("/api/auth/token", { method: "POST", body: new URLSearchParams(form) });
  const answer = await response.json();
  if (session?.token !== token) {
    return; // signed out in the meantime
  }
  if (response.ok) {
    ui.authActions.authorizeOauth2({ auth, token: answer });
  } else if (answer.error === "invalid_grant") {
    ui.authActions.logout([auth.name]);
  }
}

async function requestInterceptor(request) {
  if (session && request.headers.Authorization) {
    if (session.expires - Date.now() < 30_000) {
      refreshing ??= refresh().finally(() => (refreshing = null));
      await refreshing;
    }
    if (session) {
      request.headers.Authorization = `Bearer ${session.token.access_token}`;
    }
  }
  return request;
}

addEventListener("pagehide", (event) => event.persisted || revoke());
localStorage.removeItem("authorized"); // the previous release kept the password there

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

const ui = SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  filter: true,
  defaultModelsExpandDepth: 0, // the schemas are listed once somebody opens the list
  displayRequestDuration: true,
  tryItOutEnabled: true,
  oauth2RedirectUrl: `${location.origin}/static/docs-signed-in.html`,
  plugins: [keepSession, simplify],
  requestInterceptor,
});
ui.initOAuth({ clientId: "swagger", usePkceWithAuthorizationCodeGrant: true });
