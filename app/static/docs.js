// Swagger UI (Apache-2.0, unmodified, in swagger/). It keeps the sign-in when the page is reloaded.
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
});
