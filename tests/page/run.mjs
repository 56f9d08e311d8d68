// Drives the page in a real browser against a server of its own: `node run.mjs [--only WORDS] [--pictures]`.
// LEVERET_BIN is the server; without it the release build. CHROMIUM is the browser; without it Debian's.
// Prints `ok NAME` or `FAIL NAME: why` a test. --pictures makes docs/page-*.png instead.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { client, play } from "./scene.mjs";
import { tests } from "./tests.mjs";
import { takePictures } from "./pictures.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const SERVER = process.env.LEVERET_BIN ?? join(HERE, "../../target/release/leveret");
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";

const freePort = () => new Promise((resolve) => {
  const probe = createServer().listen(0, "127.0.0.1", () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});

/** A server with an empty directory; ready when it listens. */
async function start() {
  const directory = mkdtempSync(join(tmpdir(), "leveret-page-"));
  const [amqp, http, metrics] = [await freePort(), await freePort(), await freePort()];
  const at = (port) => `127.0.0.1:${port}`;
  const server = spawn(SERVER, ["serve", "--data-dir", directory, "--amqp", at(amqp), "--http", at(http), "--metrics", at(metrics)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  await new Promise((resolve, reject) => {
    const hear = (text) => {
      said += text;
      if (said.includes("is ready")) resolve();
    };
    server.stdout.on("data", hear);
    server.stderr.on("data", hear);
    server.on("error", reject);
    server.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${said}`)));
  });
  const stop = () => new Promise((resolve) => {
    server.on("exit", () => {
      rmSync(directory, { recursive: true, force: true });
      resolve();
    });
    server.kill("SIGTERM");
  });
  return { amqp, http, url: `http://127.0.0.1:${http}`, stop };
}

const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : "";
const server = await start();
const browser = await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox"] });
let failed = 0;
try {
  if (process.argv.includes("--pictures")) {
    const end = await play(server.amqp, server.http, 40_000);
    await takePictures(browser, server, join(HERE, "../../docs"));
    await end();
  } else {
    const ask = client(server.http);
    let passed = 0;
    for (const [name, body] of tests.filter(([title]) => title.includes(only))) {
      const began = Date.now();
      try {
        await body({ browser, server, ask });
        passed++;
        console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
      } catch (error) {
        failed++;
        console.log(`FAIL ${name}: ${error.stack}`);
      }
    }
    console.log(`${passed} passed, ${failed} failed, 0 skipped`);
  }
} finally {
  await browser.close();
  await server.stop();
}
process.exit(failed ? 1 : 0);
