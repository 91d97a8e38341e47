/**
 * mod.ts as it is imported from a plain URL: no import map, no configuration, Workers included.
 *
 * @module
 */
import { assertEquals } from "@std/assert";

const ROOT = new URL("..", import.meta.url);

const PROGRAM = `
  const { openBackend, serve } = await import(Deno.args[0]);
  await using server = await serve("memory:1MiB", ["telemap://127.0.0.1:0", "nbd://127.0.0.1:0"]);
  for (const url of server.urls) {
    await using region = await openBackend(url);
    const bytes = new Uint8Array(5);
    await region.writeAt(new TextEncoder().encode("hello"), 4096);
    await region.readAt(bytes, 4096);
    console.log(new TextDecoder().decode(bytes));
  }
`;

/** Serves the files of this repository by HTTP. */
function serveRepository(): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const path = new URL(request.url).pathname.slice(1);
    try {
      const source = await Deno.readTextFile(new URL(path, ROOT));
      const type = path.endsWith(".json") ? "application/json" : "application/typescript";
      return new Response(source, { headers: { "content-type": type } });
    } catch {
      return new Response("not found", { status: 404 });
    }
  });
}

Deno.test("mod.ts can be imported from a URL with no import map", async () => {
  const directory = await Deno.makeTempDir({ prefix: "telemap-import-" });
  const server = serveRepository();
  try {
    await Deno.writeTextFile(`${directory}/program.ts`, PROGRAM);
    const url = `http://127.0.0.1:${server.addr.port}/mod.ts`;
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-config", "--allow-all", "program.ts", url],
      cwd: directory,
      env: { DENO_DIR: `${directory}/cache` },
    }).output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals({ code, out, err }, { code: 0, out: "hello\nhello\n", err: "" });
  } finally {
    await server.shutdown();
    await Deno.remove(directory, { recursive: true });
  }
});

/** A module as `deno info --json` tells of it. */
interface ModuleFacts {
  specifier: string;
  dependencies?: {
    specifier: string;
    isDynamic?: boolean;
    code?: { specifier?: string };
    type?: { specifier?: string };
  }[];
}

/** The modules that a module imports, by itself or by others, before any of it runs. */
async function staticImports(entry: string): Promise<Set<string>> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "--no-config", entry],
    cwd: ROOT.pathname,
    stderr: "null",
  }).output();
  const { roots, modules } = JSON.parse(new TextDecoder().decode(stdout)) as {
    roots: string[];
    modules: ModuleFacts[];
  };
  const reached = new Set(roots);
  for (const specifier of reached) {
    const found = modules.find((module) => module.specifier === specifier);
    for (const { specifier, isDynamic, code, type } of found?.dependencies ?? []) {
      // What cannot be resolved without a configuration has its bare specifier only.
      if (!isDynamic) reached.add(code?.specifier ?? type?.specifier ?? specifier);
    }
  }
  return reached;
}

const ENTRIES = [
  "mod.ts",
  "lib/host/worker.ts",
  "lib/userfault/handler_link_worker.ts",
  "lib/tracking/track_worker.ts",
];

for (const entry of ENTRIES) {
  Deno.test(`${entry} imports nothing but this repository and what is built in`, async () => {
    const reached = await staticImports(entry);
    const foreign = [...reached].filter((specifier) =>
      !specifier.startsWith(ROOT.href) && !specifier.startsWith("node:")
    );
    assertEquals(foreign, []);
    assertEquals(reached.has(new URL("lib/backend/errors.ts", ROOT).href), true);
    const notInside = [...reached].filter((specifier) =>
      /\/(cmd|tests|bench|\.jsr)\//.test(specifier.slice(ROOT.href.length - 1))
    );
    assertEquals(notInside, []);
  });
}
