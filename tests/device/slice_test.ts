/**
 * Mounts of the library as slices, files and paths, and slices under memory pressure.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { TextLineStream } from "@std/streams";
import { createHash } from "node:crypto";
import { openLibc } from "../../ffi/libc.ts";
import { probeUserfault } from "../../ffi/userfault_open.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { type Backend, mountDirect, openBackend, UsageError } from "../../mod.ts";
import { requires, requiresThat, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { startServer } from "./served_region.ts";

openLibc();

const needs = requires("root", "/dev/fuse");
const userfault = requiresThat(probeUserfault().features !== 0, "userfaultfd is not permitted");
const MIB = 1 << 20;
const SIZE = 64 * MIB;
/** Set TELEMAP_HAMMER_SECONDS to hammer for longer than is fit for every run. */
const SECONDS = Number(Deno.env.get("TELEMAP_HAMMER_SECONDS") ?? 4);
/** So long nothing may be heard of a process that is hammering, in ms. */
const SILENCE_MS = 20_000;
const HAMMER = new URL("./slice_hammer.ts", import.meta.url).pathname;
const MODULE = import.meta.resolve("./memory_module.ts");

function test(name: string, fn: () => Promise<void>, all = needs): void {
  Deno.test({ name: withReason(name, all), ignore: all.ignore, fn });
}

/** A process that hammers on a slice. */
class Hammer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #errors: Promise<string>;

  constructor(url: string, device: string) {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    console.log(`seed ${seed}`);
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--no-check",
        "--allow-all",
        HAMMER,
        url,
        device,
        `${SECONDS}`,
        `${seed}`,
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#lines = this.#child.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream())
      .getReader();
    this.#errors = new Response(this.#child.stderr).text();
  }

  /** Its next event. Kills it, and throws, where nothing is heard of it for too long. */
  async next(): Promise<Record<string, unknown>> {
    let isSilent = false;
    const watchdog = setTimeout(() => {
      isSilent = true;
      this.#child.kill("SIGKILL");
    }, SILENCE_MS);
    const { value, done } = await this.#lines.read();
    clearTimeout(watchdog);
    assert(!isSilent, `nothing was heard of it for ${SILENCE_MS / 1000} s: it hangs`);
    if (done) throw new Error(`the process ended: ${await this.#errors}`);
    return JSON.parse(value) as Record<string, unknown>;
  }

  /** Lets it close its mount, and waits for its end. */
  async end(): Promise<{ last: Record<string, unknown>; code: number; err: string }> {
    await this.#child.stdin.close();
    const last = await this.next();
    const { code } = await this.#child.status;
    return { last, code, err: await this.#errors };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
    await this.#lines.cancel();
    await this.#errors;
    await this.#child.stdin.close().catch(() => {});
  }
}

async function sumOf(backend: Backend): Promise<string> {
  const hash = createHash("sha256");
  const piece = new Uint8Array(4 * MIB);
  for (let offset = 0; offset < backend.size; offset += piece.length) {
    await backend.readAt(piece, offset);
    hash.update(piece);
  }
  return hash.digest("hex");
}

/** Hammers on the slice of a backend, and looks at the backend by another path when it is synced. */
async function hammer(url: string, device: "fuse" | "userfault"): Promise<void> {
  await using process = new Hammer(url, device);
  let event = await process.next();
  while (event["sum"] === undefined) event = await process.next();
  const { sum, touches, waited } = event;
  console.log(`${touches} touches, ${waited} of them waited for the region`);
  assert(Number(waited) > 50, "the slice was not taken out of memory");
  {
    await using backend = await openBackend(url);
    assertEquals(await sumOf(backend), sum, "another path sees other bytes");
  }
  const { last, code, err } = await process.end();
  assertEquals({ last, code, err }, { last: { lengthWhenClosed: 0 }, code: 0, err: "" });
}

for (const [device, further] of [["fuse", needs], ["userfault", userfault]] as const) {
  test(
    `a slice of a file does not hang while its isolate makes garbage, by ${device}`,
    async () => {
      using directory = temporaryDirectory();
      await hammer(`file:${directory.path}/region?size=${SIZE}`, device);
    },
    further,
  );

  test(`nor does a slice of a remote region, by ${device}`, async () => {
    const server = await startServer(`memory:${SIZE}`);
    await using _server = server.process;
    await hammer(server.url, device);
  }, further);
}

test("a slice of a module's backend holds its bytes, and is empty once closed", async () => {
  const text = "from a Worker";
  const backend = { module: MODULE, options: { size: 3 * MIB, text } };
  const mount = await mountDirect({ backend, device: "fuse", as: "slice" });
  const { bytes } = mount;
  const part = bytes.subarray(0, text.length);
  assertEquals(bytes.length, 3 * MIB);
  assertEquals(new TextDecoder().decode(part), text);
  await mount.close();
  assertEquals([bytes.length, part.length, mount.bytes.length], [0, 0, 0]);
  await mount.close();
});

test("a slice of what may only be read is not written back", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/region`;
  await Deno.writeFile(path, new Uint8Array(MIB).fill(7));
  await using mount = await mountDirect({
    backend: `file:${path}?readonly`,
    device: "fuse",
    as: "slice",
  });
  assertEquals([mount.readOnly, mount.bytes[MIB - 1]], [true, 7]);
  await mount.sync();
});

test("a Backend object is refused as a slice, and served as a file and a path", async () => {
  await using backend = openMemory({ size: MIB });
  const slice = () => mountDirect({ backend, device: "fuse", as: "slice" });
  await assertRejects(slice, UsageError, "give a URL, or { module, options }");
  for (const as of ["file", "path"] as const) {
    await using mount = await mountDirect({ backend: onlyMethods(backend), device: "fuse", as });
    using file = as === "file" ? undefined : await Deno.open(mount.path, { write: true });
    const target = file ?? mount.file;
    await target.seek(4096, Deno.SeekMode.Start);
    await target.write(new TextEncoder().encode(as));
    await mount.sync();
    const found = new Uint8Array(4);
    await backend.readAt(found, 4096);
    assertEquals(new TextDecoder().decode(found), as);
  }
});

/** A backend that no other Worker can reach: its calls come to this isolate. */
function onlyMethods(backend: Backend): Backend {
  const { size, blockSize, durable, readOnly } = backend;
  return {
    ...{ size, blockSize, durable, readOnly },
    readAt: (buffer, offset) => backend.readAt(buffer, offset),
    writeAt: (buffer, offset) => backend.writeAt(buffer, offset),
    flush: () => backend.flush(),
    close: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
