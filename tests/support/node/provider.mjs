// An identity provider for the tests: node provider.mjs PORT KEYS SCOPES. Anybody signs in by any name, without a password.
// KEYS is a file of private keys (JWKS), made when it is not there: another file and a new start are a rotation of keys.
// Ends when its standard input does, so never later than the tests that started it.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const [port, keyFile, scopes] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

async function keys() {
  if (!existsSync(keyFile)) {
    const made = ["RS256", "ES256"].map(async (alg) => {
      const { privateKey } = await generateKeyPair(alg, { extractable: true });
      return { ...(await exportJWK(privateKey)), alg, use: "sig" };
    });
    writeFileSync(keyFile, JSON.stringify({ keys: await Promise.all(made) }), { mode: 0o600 });
  }
  return JSON.parse(readFileSync(keyFile, "utf8"));
}

// Confidential clients sign with RS256, the public one of phones with ES256.
const confidential = (client_id) => ({ client_id, client_secret: `the-secret-of-${client_id}` });
const phone = { client_id: "phone", token_endpoint_auth_method: "none", id_token_signed_response_alg: "ES256" };
const clients = [confidential("muster-pages"), confidential("stranger"), phone].map((client) => ({
  grant_types: ["authorization_code", "refresh_token"],
  redirect_uris: ["http://127.0.0.1/callback"],
  ...client,
}));

const claimsOf = (sub) => ({
  sub,
  name: sub.split("@")[0],
  email: sub.includes("@") ? sub : `${sub}@provider.example`,
  email_verified: !sub.startsWith("unverified"),
});

const provider = new Provider(issuer, {
  clients,
  jwks: await keys(),
  cookies: { keys: ["of the tests"] },
  claims: { openid: ["sub", "auth_time"], email: ["email", "email_verified"], profile: ["name"] },
  pkce: { required: () => true },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => claimsOf(sub) }),
  issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
  extraTokenClaims(ctx, token) {
    const { AuthorizationCode, RefreshToken } = ctx.oidc.entities;
    return { ...claimsOf(token.accountId), auth_time: (AuthorizationCode ?? RefreshToken).authTime };
  },
  // A JWT for Muster is asked for with resource=https://muster.example; without it a token is opaque, for userinfo alone.
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: {
      getResourceServerInfo: (_, resource, client) => ({
        scope: scopes,
        audience: resource === "https://muster.example" ? "muster" : resource,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: client.idTokenSignedResponseAlg } },
      }),
    },
  },
  interactions: { url: (_, { uid }) => `/sign-in/${uid}` },
  // Nobody is asked for consent.
  async loadExistingGrant({ oidc }) {
    const grant = new provider.Grant({ accountId: oidc.session.accountId, clientId: oidc.client.clientId });
    grant.addOIDCScope("openid email profile");
    for (const resource of [oidc.params.resource ?? []].flat()) grant.addResourceScope(resource, scopes);
    await grant.save();
    return grant;
  },
});

// The ports of the tests' instances are not known yet.
provider.Client.prototype.redirectUriAllowed = (uri) =>
  /^http:\/\/(127\.0\.0\.1|localhost)(:\d+)?(\/callback|\/api\/auth\/oidc\/callback)$/.test(uri);

const page = `<!doctype html><html lang="en"><title>Provider</title><h1>Sign in at the provider</h1><form method="post">
<label>Name <input name="name" required></label> <button>Sign in</button>
<button name="refuse" value="yes" formnovalidate>Cancel</button></form></html>`;

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith("/sign-in/")) return next();
  if (ctx.method === "GET") {
    ctx.type = "html";
    ctx.body = page;
    return;
  }
  let body = "";
  for await (const part of ctx.req) body += part;
  const form = new URLSearchParams(body);
  const refusal = { error: "access_denied", error_description: "<b>The person</b> would not" };
  const result = form.get("refuse") ? refusal : { login: { accountId: form.get("name") } };
  await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: false });
  ctx.respond = false;
});

provider.on("server_error", (_, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1");
process.stdin.on("end", () => process.exit()).resume();
