/**
 * `telemap mount` and `telemap demo` with the devices of this host.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requires, requiresAll, withReason } from "../requires.ts";
import { telemap, TelemapProcess } from "../telemap_process.ts";
import { shell, temporaryDirectory } from "./command.ts";

const NEEDS = {
  fuse: requires("root", "/dev/fuse"),
  loop: requires("root", "/dev/fuse", "/dev/loop-control"),
};
const MIB = 1 << 20;

/** What still mentions a path among the mounts and the loop devices in use. */
async function leftBehind(path: string): Promise<string> {
  return await shell(`(cat /proc/mounts; losetup --all) | grep -F ${path} || true`);
}

for (const [device, signal] of [["fuse", "SIGINT"], ["loop", "SIGTERM"]] as const) {
  const needs = NEEDS[device];
  Deno.test({
    name: withReason(`mount by ${device} flushes and leaves nothing behind on ${signal}`, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      await using mount = new TelemapProcess([
        ...["mount", `file:${directory.path}/region?size=8MiB`],
        ...["--device", device, "--json"],
      ]);
      const { path, ...ready } = await mount.next();
      assertEquals(ready, {
        event: "ready",
        device,
        size: 8 * MIB,
        durable: ready["durable"],
        readOnly: false,
        reason: ready["reason"],
      });
      const content = crypto.getRandomValues(new Uint8Array(65536));
      {
        using file = await Deno.open(`${path}`, { write: true });
        await file.seek(3 * MIB, Deno.SeekMode.Start);
        assertEquals(await file.write(content), content.length);
      }
      mount.kill(signal);
      assertEquals(await mount.end(), { code: 0, events: [{ event: "closed" }], err: "" });
      const region = await Deno.readFile(`${directory.path}/region`);
      assertEquals(region.subarray(3 * MIB, 3 * MIB + content.length), content);
      assertEquals(await leftBehind(`${path}`), "");
    },
  });
}

Deno.test({
  name: withReason("mount ends when somebody else unmounts it", NEEDS.fuse),
  ignore: NEEDS.fuse.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const at = `${directory.path}/there`;
    await Deno.mkdir(at);
    await using mount = new TelemapProcess([
      ...["mount", "memory:1MiB", "--device", "fuse", "--at", at, "--json"],
    ]);
    assertEquals(`${(await mount.next())["path"]}`.startsWith(`${at}/`), true);
    await shell(`umount ${at}`);
    const { code, events } = await mount.end();
    assertEquals({ code, events }, { code: 0, events: [{ event: "closed" }] });
  },
});

Deno.test({
  name: withReason("mount of what cannot be is one line, and nothing stays behind", NEEDS.loop),
  ignore: NEEDS.loop.ignore,
  async fn() {
    using directory = temporaryDirectory();
    await Deno.writeTextFile(`${directory.path}/taken`, "");
    const at = `${directory.path}/at`;
    const impossible: [number, string[]][] = [
      [1, ["telemap://127.0.0.1:1", "--device", "loop"]],
      [1, [`nbd+unix:///?socket=${directory.path}/nobody`, "--device", "fuse", "--at", at]],
      [1, ["file:/no/such/directory/region?size=1MiB", "--device", "loop"]],
      [2, ["memory:1MiB", "--device", "fuse", "--at", directory.path]],
      [2, ["memory:1MiB", "--device", "fuse", "--at", `${directory.path}/no/directory`]],
      [2, ["memory:1000", "--device", "loop"]],
    ];
    const env = { TMPDIR: directory.path, XDG_RUNTIME_DIR: directory.path };
    for (const [code, args] of impossible) {
      const outcome = await telemap(["mount", ...args], env);
      assertEquals({ args, code: outcome.code, out: outcome.out }, { args, code, out: "" });
      assertMatch(outcome.err, /^telemap: [^\n]+$/);
    }
    assertEquals([...Deno.readDirSync(directory.path)].map(({ name }) => name), ["taken"]);
    assertEquals(await leftBehind(directory.path), "");
  },
});

const demoNeeds = requiresAll(NEEDS.fuse, NEEDS.loop);
Deno.test({
  name: withReason("the demo ends well by each device", demoNeeds),
  ignore: demoNeeds.ignore,
  async fn() {
    for (const device of ["auto", "fuse"]) {
      const { code, out, err } = await telemap(
        ["demo", "--size", "16MiB", "--device", device, "--json"],
      );
      assertEquals({ code, err }, { code: 0, err: "" });
      const { event, speeds } = JSON.parse(out) as {
        event: string;
        speeds: { way: string; write: number; read: number; median: number }[];
      };
      assertEquals(event, "done");
      assertEquals(speeds.length, 2);
      assert(speeds.every(({ write, read, median }) => write > 0 && read > 0 && median > 0));
    }
  },
});
