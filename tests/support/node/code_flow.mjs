// Two client libraries sign in by authorization code, use, refresh and revoke what they get.
// node code_flow.mjs LIBRARY ISSUER CLIENT_ID REDIRECT_URI COOKIE; the cookie is the browser's of a person who is signed in.
import { registerHooks } from "node:module";

const [library, issuer, clientId, redirectUri, cookie] = process.argv.slice(2);

/** What a person and their browser do: click Continue, and follow the redirect to the app. */
async function agree(address) {
  const headers = { cookie, origin: new URL(address).origin, "content-type": "application/x-www-form-urlencoded" };
  const answer = await fetch(address, { method: "POST", headers, body: "decision=continue", redirect: "manual" });
  return new URL(answer.headers.get("location"));
}

async function openidClient() {
  const client = await import("openid-client");
  const options = { algorithm: "oauth2", execute: [client.allowInsecureRequests] };
  const config = await client.discovery(new URL(issuer), clientId, undefined, client.None(), options);
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const address = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: "me",
    state: expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: "S256",
  });
  const first = await client.authorizationCodeGrant(config, await agree(address), { pkceCodeVerifier, expectedState });
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  return { first, second, revoke: () => client.tokenRevocation(config, second.refresh_token) };
}

async function appAuth() {
  // It is built for bundlers, which complete its imports.
  registerHooks({
    resolve: (name, context, next) => next(name.startsWith(".") && !name.endsWith(".js") ? `${name}.js` : name, context),
  });
  const base = "@openid/appauth/built/src";
  const app = await import(`${base}/index.js`);
  const { NodeCrypto } = await import(`${base}/node_support/crypto_utils.js`);
  const { NodeRequestor } = await import(`${base}/node_support/node_requestor.js`);
  const service = await app.AuthorizationServiceConfiguration.fetchFromIssuer(issuer, new NodeRequestor());
  const asked = { client_id: clientId, redirect_uri: redirectUri, scope: "me", response_type: "code" };
  const request = new app.AuthorizationRequest(asked, new NodeCrypto());
  await request.setupCodeVerifier();
  class Handler extends app.AuthorizationRequestHandler {
    performAuthorizationRequest() {}
    completeAuthorizationRequest() {}
  }
  const handler = new Handler(new app.BasicQueryStringUtils(), new NodeCrypto());
  const answer = (await agree(handler.buildRequestUrl(service, request))).searchParams;
  if (answer.get("state") !== request.state) throw new Error("state");
  const tokens = new app.BaseTokenRequestHandler(new NodeRequestor());
  const form = { client_id: clientId, redirect_uri: redirectUri };
  const exchange = { ...form, code: answer.get("code"), extras: { code_verifier: request.internal.code_verifier } };
  const perform = (more) => tokens.performTokenRequest(service, new app.TokenRequest({ ...form, ...more }));
  const first = await perform({ ...exchange, grant_type: app.GRANT_TYPE_AUTHORIZATION_CODE });
  const second = await perform({ refresh_token: first.refreshToken, grant_type: app.GRANT_TYPE_REFRESH_TOKEN });
  const revocation = new app.RevokeTokenRequest({ token: second.refreshToken, client_id: clientId });
  const plain = ({ accessToken, refreshToken, scope }) => ({ access_token: accessToken, refresh_token: refreshToken, scope });
  return { first: plain(first), second: plain(second), revoke: () => tokens.performRevokeTokenRequest(service, revocation) };
}

const status = async (token) => {
  const headers = { authorization: `Bearer ${token}` };
  return (await fetch(`${issuer}/api/users/me`, { headers })).status;
};

const { first, second, revoke } = await { "openid-client": openidClient, appauth: appAuth }[library]();
const before = await status(second.access_token);
await revoke();
const rotated = first.refresh_token !== second.refresh_token;
console.log(JSON.stringify({ scope: first.scope, rotated, before, after: await status(second.access_token) }));
