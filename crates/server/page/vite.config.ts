import { defineConfig, type Plugin } from "vite";

/** The content security policy. The built page contains it, so that it applies behind any proxy. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'self'; form-action 'none'";

/** Vite's development server writes inline styles, so only the built page gets the policy. */
const contentSecurityPolicy: Plugin = {
  name: "content-security-policy",
  apply: "build",
  transformIndexHtml: () => [
    { tag: "meta", attrs: { "http-equiv": "Content-Security-Policy", content: POLICY }, injectTo: "head-prepend" },
  ],
};

// `make page` builds; `npm run dev` serves the sources and forwards API requests to a running `polylance serve`.
const server = "http://127.0.0.1:8000";

export default defineConfig({
  // Relative addresses let a proxy serve the page below any path.
  base: "./",
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: "es2022", reportCompressedSize: true },
  plugins: [contentSecurityPolicy],
  server: { proxy: { "/v1": server, "/healthz": server } },
});
