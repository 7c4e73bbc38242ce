// @hey-api/openapi-ts: with the extensions that Node and browsers ask for.
export default { input: "openapi.json", output: { path: "sdk", importFileExtension: ".js" } };
