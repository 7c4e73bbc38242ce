// A service elsewhere: verifies access tokens by what the issuer publishes. node verify.mjs ISSUER AUDIENCE TOKEN...
import { createRemoteJWKSet, jwtVerify } from "jose";

const [issuer, audience, ...tokens] = process.argv.slice(2);
const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json();
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));

for (const token of tokens) {
  try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience, typ: "at+jwt", algorithms: ["RS256"] });
    console.log(JSON.stringify({ sub: payload.sub, scope: payload.scope }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.code }));
  }
}
