// The pictures of the README and docs/page.md, while the scene is played.
import { join } from "node:path";

const SHOTS = [
  { name: "overview", hash: "", theme: "light", size: [1280, 860], wait: 45_000 },
  { name: "overview-dark", hash: "", theme: "dark", size: [1280, 860] },
  { name: "dead-job", hash: "queue/%2F/dead", theme: "light", size: [1280, 860], click: "emails.invoice-failed-0" },
  { name: "exchanges", hash: "exchanges", theme: "dark", size: [1280, 700] },
  { name: "queues", hash: "queues", theme: "light", size: [1280, 560] },
  { name: "phone", hash: "queue/%2F/emails.invoice?tab=dead", theme: "light", size: [390, 844] },
  { name: "phone-dark", hash: "", theme: "dark", size: [390, 844] },
];

export async function takePictures(browser, server, folder) {
  for (const { name, hash, theme, size: [width, height], click, wait = 3_000 } of SHOTS) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
    const page = await context.newPage();
    await page.goto(server.url);
    await page.getByLabel("User").fill("guest");
    await page.getByLabel("Password").fill("guest");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
    await page.goto(`${server.url}/#/${hash}`);
    // The charts are to have something to show.
    await page.waitForTimeout(wait);
    if (click) {
      await page.getByRole("button", { name: click, exact: true }).click();
      await page.getByText("Why it failed").waitFor();
    }
    await page.screenshot({ path: join(folder, `page-${name}.png`) });
    await context.close();
  }
}
