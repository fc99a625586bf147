// Builds the page into servers/edge/assets/page, or its tests into .build with `--tests`.
// `--out FOLDER` builds elsewhere, which is how the drift test compares.

import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const BOARD = "compose/observe/grafana/dashboards/k2-system-health.json";

const NOTICE = `page.js contains TradingView Lightweight Charts™, https://www.tradingview.com/
Copyright © TradingView, Inc.`;

/** Takes titles, units and queries out of the board; how Grafana lays them out is left. */
function rowsOf(board) {
  const rows = [];
  for (const panel of board.panels) {
    if (panel.type === "row") {
      rows.push({ title: panel.title, panels: [] });
      continue;
    }
    rows.at(-1).panels.push({
      title: panel.title,
      kind: panel.type,
      unit: panel.fieldConfig.defaults.unit,
      targets: panel.targets.map(({ expr, legendFormat }) => ({ expr, legend: legendFormat })),
    });
  }
  return rows;
}

async function boardRows() {
  return rowsOf(JSON.parse(await readFile(join(root, BOARD), "utf8")));
}

const board = {
  name: "board",
  setup(building) {
    building.onResolve({ filter: /^k2:board$/ }, () => ({ path: BOARD, namespace: "board" }));
    building.onLoad({ filter: /.*/, namespace: "board" }, async () => {
      return { contents: JSON.stringify(await boardRows()), loader: "json" };
    });
  },
};

const shared = { bundle: true, target: "es2022", plugins: [board], logLevel: "warning" };

async function page(out) {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  await build({
    ...shared,
    entryPoints: [join(here, "src/main.ts")],
    outfile: join(out, "page.js"),
    format: "iife",
    minify: true,
    legalComments: "none",
    charset: "utf8",
  });
  const css = { ...shared, entryPoints: [join(here, "src/page.css")], minify: true };
  await build({ ...css, target: "chrome125", outfile: join(out, "page.css") });
  for (const name of ["index.html", "favicon.svg"]) await cp(join(here, "src", name), join(out, name));
  const panels = (await boardRows()).flatMap((row) => row.panels);
  await writeFile(join(out, "panels.json"), `${JSON.stringify(panels, null, 1)}\n`);
  const license = await readFile(join(here, "node_modules/lightweight-charts/LICENSE"), "utf8");
  await writeFile(join(out, "NOTICE.txt"), `${NOTICE}\n\n${license}`);
}

async function tests() {
  const folder = join(here, "test");
  const names = (await readdir(folder)).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: names.map((name) => join(folder, name)),
    outdir: join(here, ".build"),
    outExtension: { ".js": ".mjs" },
    platform: "node",
    format: "esm",
  });
}

const at = process.argv.indexOf("--out");
if (process.argv.includes("--tests")) await tests();
else await page(at > 0 ? resolve(process.argv[at + 1]) : join(root, "servers/edge/assets/page"));
