/**
 * The `userfault` device when pages cannot be had: who touches them waits and sees the right bytes in
 * the end, or gets SIGBUS where that was asked for, and never zeroes.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { addressOf, openLibc } from "../../ffi/libc.ts";
import { probeUserfault, UFFD_FEATURE } from "../../ffi/userfault_open.ts";
import { mountDirect, openBackend, Pattern, TelemapError } from "../../mod.ts";
import { AS_NOBODY, OpenCopy } from "../other_user.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { readOnThread } from "../touch.ts";
import { temporaryDirectory } from "./command.ts";
import { startServer } from "./served_region.ts";
import { LineProcess } from "./uffd_client.ts";
import type { ChildOptions } from "./userfault_child.ts";

openLibc();

const MIB = 1 << 20;
const PAGE = 4096;
/** So long a signal may take that is to end a child, in ms. */
const SIGNAL_MS = 20_000;
const CHILD = new URL("./userfault_child.ts", import.meta.url).pathname;

const probe = probeUserfault();
const needs = requiresThat(probe.features !== 0, probe.ways.at(-1)?.reason ?? "");
const poisons = requiresAll(
  needs,
  requiresThat((probe.features & UFFD_FEATURE.POISON) !== 0, "poison needs Linux 6.6"),
);

function test(name: string, fn: () => Promise<void>, all = needs): void {
  Deno.test({ name: withReason(name, all), ignore: all.ignore, fn });
}

async function start(
  options: ChildOptions,
  prefix: string[] = [],
  [deno, script]: readonly [string, string] = [Deno.execPath(), CHILD],
): Promise<LineProcess> {
  const args = ["run", "--quiet", "--no-check", "--allow-all", script, JSON.stringify(options)];
  const [command, ...rest] = [...prefix, deno, ...args];
  const child = new LineProcess(command!, rest);
  assertEquals(await child.next(), "mounted");
  return child;
}

/** Waits for a signal to end a child; kills it where none comes. */
async function signalOf(child: LineProcess): Promise<Deno.Signal | null> {
  const watchdog = setTimeout(() => Deno.kill(child.pid, "SIGKILL"), SIGNAL_MS);
  const { signal } = await child.end();
  clearTimeout(watchdog);
  return signal;
}

/** What the pattern of the scripted backend has at an offset. */
function byteAt(offset: number): number {
  const bytes = new Uint8Array(1);
  new Pattern(1).fill(bytes, offset);
  return bytes[0]!;
}

const FIRE = "Cannot page in what lies at offset 65536 of the region: the store is on fire";

for (const atOnce of [false, true]) {
  const how = atOnce ? "at once" : "later";
  test(`a backend that fails for a while holds threads up, and is logged, ${how}`, async () => {
    await using child = await start({ failing: 4, atOnce });
    await child.send("read 65537");
    const said = [await child.next(), await child.next(), await child.next()].sort();
    assertEquals(said, [FIRE, "Paging in goes on", `read ${byteAt(65537)}`]);
    assertEquals(await child.ask("close"), "closed");
    assertEquals((await child.end()).code, 0);
  });

  test(`a page that fails is SIGBUS where that was asked for, ${how}`, async () => {
    await using child = await start({ failing: 1, atOnce, memory: { onLoss: "poison" } });
    await child.send("touch 65537");
    assertEquals(await child.next(), FIRE);
    assertEquals(await signalOf(child), "SIGBUS");
  }, poisons);
}

test("a page that does not come in its time is SIGBUS where that was asked for", async () => {
  const memory = { onLoss: "poison", lossMs: 50 } as const;
  await using child = await start({ held: true, memory });
  await child.send("touch 0");
  assertMatch(await child.next(), /offset 0 .* did not answer within 50 ms/);
  assertEquals(await signalOf(child), "SIGBUS");
}, poisons);

test("a page that comes within its time is no loss", async () => {
  const memory = { onLoss: "poison", lossMs: 5000 } as const;
  await using child = await start({ held: true, memory });
  await child.send("touch 4097");
  assertEquals(await child.ask("asked 1"), "asked");
  assertEquals(await child.ask("release"), "released");
  assertEquals(await child.next(), `touched 4097 ${byteAt(4097)}`);
  assertEquals(await child.ask("close"), "closed");
}, poisons);

test("memory that a thread waits for is not let go, and is served on", async () => {
  await using child = await start({ held: true });
  await child.send("touch 12345");
  assertEquals(await child.ask("asked 1"), "asked");
  assertEquals(await child.ask("close"), "failed EBUSY");
  assertEquals(await child.ask("close"), "failed EBUSY");
  assertEquals(await child.ask("release"), "released");
  assertEquals(await child.next(), `touched 12345 ${byteAt(12345)}`);
  assertEquals(await child.ask("read 500000"), `read ${byteAt(500_000)}`);
  assertEquals(await child.ask("close"), "closed");
  assertEquals((await child.end()).code, 0);
});

test("a process ends while a thread of it waits", async () => {
  await using child = await start({ held: true });
  await child.send("touch 12345");
  assertEquals(await child.ask("asked 1"), "asked");
  await child.send("exit");
  assertEquals((await child.end()).code, 0);
});

test("a Worker that fails leaves threads waiting, and says so", async () => {
  await using child = await start({});
  assertEquals(await child.ask("read 5"), `read ${byteAt(5)}`);
  for (const command of ["hold", "die", "touch 300000"]) await child.send(command);
  let line = "";
  // The runtime tells of the failure too.
  while (!line.startsWith("gone")) {
    line = await child.next();
    assert(!line.startsWith("touched"), line);
  }
  assertMatch(line, /^gone The Worker of a backend failed: .*as asked/);
  // What was there is there still.
  assertEquals(await child.ask("read 5"), `read ${byteAt(5)}`);
  assertEquals(await child.ask("sync"), "failed ESHUTDOWN");
  assertEquals(await child.ask("close"), "failed ESHUTDOWN");
  await child.send("exit");
  assertEquals((await child.end()).code, 0);
});

test("a backend that lends memory astray shows no zeroes", async () => {
  await using child = await start({ astray: true });
  await child.send("touch 8192");
  assertMatch(await child.next(), /^gone .*EFAULT/);
  // A thread that went on would have been heard of by now.
  assertEquals(await child.ask("asked 0"), "asked");
  assertMatch(await child.ask("close"), /^failed/);
  await child.send("exit");
  assertEquals((await child.end()).code, 0);
});

test("a write to what may only be read ends by SIGSEGV", async () => {
  await using child = await start({ readOnly: true });
  assertEquals(await child.ask("read 5"), `read ${byteAt(5)}`);
  await child.send("write 5");
  assertEquals(await signalOf(child), "SIGSEGV");
});

test("threads go on with the right bytes when a killed server is there again", async () => {
  using directory = temporaryDirectory();
  const size = 8 * MIB;
  const url = `file:${directory.path}/region?size=${size}`;
  const expected = new Uint8Array(size);
  new Pattern(1).fill(expected, 0);
  {
    await using backend = await openBackend(url);
    await backend.writeAt(expected, 0);
    await backend.flush();
  }
  const first = await startServer(url);
  await using killed = first.process;
  const mount = await mountDirect({
    backend: first.url,
    device: "userfault",
    as: "slice",
    memory: { faultAround: PAGE },
  });
  const address = addressOf(mount.bytes);
  const before = readOnThread(address, size);
  await readOnThread(address + size / 2, 1);
  killed.kill("SIGKILL");
  await killed.end();
  const after = readOnThread(address + size / 2 + MIB, MIB);
  const { process } = await startServer(url, first.url);
  await using _process = process;
  assertEquals(new Pattern(1).findDifference(await before, 0), -1);
  assertEquals(new Pattern(1).findDifference(await after, size / 2 + MIB), -1);
  assertEquals((await mount.statistics()).owes, false);
  await mount.close();
});

test("closing while a server is away tells EBUSY, and works once it is there", async () => {
  using directory = temporaryDirectory();
  const url = `file:${directory.path}/region?size=${MIB}`;
  const first = await startServer(url);
  await using killed = first.process;
  const mount = await mountDirect({ backend: first.url, device: "userfault", as: "slice" });
  mount.bytes[0] = 1;
  await mount.sync();
  killed.kill("SIGKILL");
  await killed.end();
  let isOver = false;
  const touched = readOnThread(addressOf(mount.bytes) + MIB / 2, 1).finally(() => isOver = true);
  while (!(await mount.statistics()).owes);
  const closing = mount.close().catch((error) =>
    assert(error instanceof TelemapError && error.code === "EBUSY")
  );
  const { process } = await startServer(url, first.url);
  await using _process = process;
  await closing;
  assertEquals(await touched, new Uint8Array(1));
  assert(isOver);
  await mount.close();
});

const OPTIONS = { backend: "pattern:1MiB?seed=1", device: "userfault", as: "slice" } as const;

test(
  "the address space that a limit leaves is not exceeded, nor anything left behind",
  async () => {
    const code = `
    import { mountDirect } from ${JSON.stringify(import.meta.resolve("../../mod.ts"))};
    const descriptors = [];
    const large = { ...${JSON.stringify(OPTIONS)}, backend: "pattern:900GiB" };
    const error = await mountDirect(large).catch((error) => error);
    for (const { name } of Deno.readDirSync("/proc/self/fd")) {
      try {
        descriptors.push(Deno.readLinkSync("/proc/self/fd/" + name));
      } catch {
        // It was that of the directory.
      }
    }
    const left = descriptors.filter((link) => link.includes("userfaultfd"));
    console.log(JSON.stringify([error.code, left]));`;
    const limited = await new Deno.Command("prlimit", {
      args: [`--as=${2 ** 39 + 2 ** 38}`, Deno.execPath(), "eval", code],
      stderr: "piped",
    }).output();
    const err = new TextDecoder().decode(limited.stderr);
    assertEquals(limited.code, 0, err);
    assertEquals(JSON.parse(new TextDecoder().decode(limited.stdout)), ["ENOMEM", []]);
  },
  requiresAll(needs, requires("prlimit")),
);

test("a user without privileges pages in too", async () => {
  using directory = temporaryDirectory();
  using copy = new OpenCopy();
  // What Deno itself needs to run as that user.
  const prefix = [...AS_NOBODY, "env", `HOME=${directory.path}`, `DENO_DIR=${directory.path}/deno`];
  await Deno.chmod(directory.path, 0o777);
  const program = [copy.deno, copy.file("tests/device/userfault_child.ts")] as const;
  await using child = await start({ memory: { faultAround: PAGE } }, prefix, program);
  assertEquals(await child.ask("read 70000"), `read ${byteAt(70_000)}`);
  assertEquals(await child.ask("write 70000"), "written");
  assertEquals(await child.ask("sync"), "synced");
  assertEquals(await child.ask("close"), "closed");
}, requiresAll(needs, requires("root", "setpriv")));
