// The API reference: Swagger UI on /openapi.json. It keeps API keys in memory only, which is its default.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({ url: "/openapi.json", dom_id: "#reference", deepLinking: true });
