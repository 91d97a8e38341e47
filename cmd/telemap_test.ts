import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import project from "../deno.json" with { type: "json" };
import { telemap, TelemapProcess } from "../tests/telemap_process.ts";

async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-cli-" });
  try {
    await use(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("help and version go to standard output with exit code 0", async () => {
  const version = `telemap ${project.version}`;
  await Promise.all([["--version"], ["version"]].map(async (args) => {
    assertEquals(await telemap(args), { code: 0, out: version, err: "" });
  }));
  await Promise.all([["--help"], ["help"]].map(async (args) => {
    assertStringIncludes((await telemap(args)).out, "Usage: telemap COMMAND");
  }));
  const ofMount = [["help", "mount"], ["mount", "--help"], ["mount", "x", "--at", "y", "-h"]];
  await Promise.all(ofMount.map(async (args) => {
    const { code, out, err } = await telemap(args);
    assertEquals({ code, err }, { code: 0, err: "" });
    assertStringIncludes(out, "Usage: telemap mount BACKEND [OPTION]…");
  }));
});

Deno.test("wrong use is one line and exit code 2", async () => {
  const wrong = [
    [],
    ["fly"],
    ["help", "fly"],
    ["info"],
    ["info", "memory:1MiB", "--colour"],
    ["info", "memory:lots"],
    ["info", "gopher://there"],
    ["serve", "memory:1MiB"],
    ["serve", "memory:1MiB", "--listen", "telemap://0.0.0.0:0"],
    ["serve", "memory:1MiB", "--listen", "http://127.0.0.1"],
    ["mount", "memory:1MiB", "--device", "cdrom"],
    ["copy", "memory:2MiB", "memory:1MiB"],
    ["completions", "tcsh"],
    ["demo", "--size", "1MiB"],
  ];
  await Promise.all(wrong.map(async (args) => {
    const { code, out, err } = await telemap(args);
    assertEquals({ args, code, out }, { args, code: 2, out: "" });
    assertMatch(err, /^telemap: [^\n]+$/);
  }));
});

Deno.test("a failure is one line and exit code 1, with the stack on request", async () => {
  const failing = [
    ["info", "file:/no/such/file"],
    ["info", "telemap://127.0.0.1:1"],
    ["mount", "nbd://127.0.0.1:1"],
    ["serve", "memory:1MiB", "--listen", "nbd+unix:///?socket=/no/such/directory/socket"],
    ["serve", "memory:1MiB", "--listen", "nbd://127.0.0.1:0", "--token-file", "/no/such/file"],
  ];
  await Promise.all(failing.map(async (args) => {
    const { code, out, err } = await telemap(args);
    assertEquals({ args, code, out }, { args, code: 1, out: "" });
    assertMatch(err, /^telemap: [^\n]+$/);
  }));
  const { err } = await telemap(failing[0]!, { TELEMAP_DEBUG: "1" });
  assertMatch(err, /^telemap: .*\n.*Error: .*\n +at /);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`serve tells where it listens, and ends in good order on ${signal}`, async () => {
    await withDirectory(async (directory) => {
      const socket = `${directory}/socket`;
      await using server = new TelemapProcess([
        "serve",
        "--json",
        `file:${directory}/region?size=4MiB`,
        ...["--listen", `nbd+unix:///?socket=${socket}`],
        ...["--listen", "telemap://127.0.0.1:0"],
      ]);
      const first = await server.next();
      const second = await server.next();
      assertEquals(first["event"], "listening");
      assertEquals(first["size"], 4 << 20);
      assertMatch(`${second["url"]}`, /^telemap:\/\/127\.0\.0\.1:[1-9][0-9]*$/);

      await Deno.writeFile(`${directory}/source`, new Uint8Array(4 << 20).fill(7));
      const copied = await telemap([
        "copy",
        `file:${directory}/source`,
        `${first["url"]}`,
        "--verify",
      ]);
      assertEquals({ code: copied.code, err: copied.err }, { code: 0, err: "" });

      server.kill(signal);
      assertEquals(await server.end(), { code: 0, events: [{ event: "closed" }], err: "" });
      const region = await Deno.readFile(`${directory}/region`);
      assertEquals(region.every((byte) => byte === 7), true);
      assertEquals(await Deno.stat(socket).catch(() => undefined), undefined);
    });
  });
}

Deno.test("a token in a file lets telemap in, and nobody else", async () => {
  await withDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/token`, "open sesame\n");
    await Deno.writeTextFile(`${directory}/wrong`, "open barley\n");
    await using server = new TelemapProcess([
      "serve",
      "--json",
      "memory:1MiB",
      ...["--listen", "telemap://127.0.0.1:0"],
      ...["--token-file", `${directory}/token`],
    ]);
    const { url } = await server.next();
    const info = (...more: string[]) => telemap(["info", `${url}`, ...more]);
    const [admitted, ...others] = await Promise.all([
      info("--token-file", `${directory}/token`),
      info(),
      info("--token-file", `${directory}/wrong`),
    ]);
    assertEquals(admitted.code, 0);
    for (const refused of others) {
      assertEquals(refused.code, 1);
      assertMatch(refused.err, /^telemap: [^\n]*token[^\n]*$/);
    }
  });
});

Deno.test("info tells what an NBD server says of an export", async () => {
  await using server = new TelemapProcess([
    "serve",
    "--json",
    "memory:1MiB",
    ...["--listen", "nbd://127.0.0.1:0", "--name", "disk", "--read-only"],
  ]);
  const { url } = await server.next();
  const { code, out } = await telemap(["info", `${url}/disk`, "--json"]);
  const facts = JSON.parse(out) as Record<string, unknown>;
  assertEquals(code, 0);
  assertEquals(facts["size"], 1 << 20);
  assertEquals(facts["readOnly"], true);
  assertEquals(facts["metaContexts"], ["base:allocation"]);
  assertEquals((facts["exports"] as { name: string }[]).map(({ name }) => name), ["disk"]);
  assert((facts["flags"] as string[]).includes("SEND_FLUSH"));
  assertStringIncludes((await telemap(["info", `${url}/disk`])).out, "Size ");
});

Deno.test("copy makes its target, keeps holes, verifies and sums up", async () => {
  await withDirectory(async (directory) => {
    await Deno.writeFile(`${directory}/a`, new Uint8Array(1 << 20).fill(9));
    await Deno.truncate(`${directory}/a`, 64 << 20);
    const { code, out, err } = await telemap([
      ...["copy", `file:${directory}/a`, `file:${directory}/b`],
      ...["--verify", "--json", "--chunk-size", "256KiB", "--concurrency", "3"],
    ]);
    assertEquals({ code, err }, { code: 0, err: "" });
    const { seconds, ...result } = JSON.parse(out) as Record<string, unknown>;
    assertEquals(result, {
      event: "copied",
      size: 64 << 20,
      written: 1 << 20,
      zeroed: 63 << 20,
      verified: true,
    });
    assert(Number(seconds) > 0);
    const { size, blocks } = await Deno.stat(`${directory}/b`);
    assertEquals(size, 64 << 20);
    assert(blocks! * 512 < 4 << 20);
  });
});
