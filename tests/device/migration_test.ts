/**
 * Regions that move from one mount to another while they are written.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import {
  DeadlineError,
  Leecher,
  type LeecherOptions,
  Migrator,
  type Mount,
  Seeder,
  type SeederHooks,
  type SeederOptions,
  TelemapError,
  UsageError,
} from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { makeRandom } from "./random.ts";

openLibc();

const MIB = 1 << 20, SIZE = 16 * MIB, PIECE = 5000;
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd", "/dev/loop-control");

type Form = Pick<SeederOptions, "as" | "device">;

const FORMS: Record<string, Form> = {
  "a file by fuse": { as: "file", device: "fuse" },
  "a slice by fuse": { as: "slice", device: "fuse" },
  "a slice by userfault": { as: "slice", device: "userfault" },
  "a block device by loop": { as: "file", device: "loop" },
};

/** Where a region moves from and to. */
interface Site {
  form: Form;
  /** URLs of the region at the source and of its copy. */
  backend: string;
  local: string;
}

function test(name: string, form: Form, fn: (site: Site) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const backend = `file:${directory.path}/region?size=${SIZE}`;
      await fn({ form, backend, local: `file:${directory.path}/copy` });
    },
  });
}

function seed({ form, backend }: Site, hooks: SeederHooks = {}): Promise<Seeder> {
  return Seeder.open({ ...form, backend, listen: "telemap://127.0.0.1:0", hooks });
}

function leech({ form, local }: Site, source: string): Promise<Leecher> {
  return Leecher.open({ ...form, source, local } as LeecherOptions);
}

/** A program that writes at random, in turns of the event loop, until it is suspended. */
class Writer {
  readonly model = new Uint8Array(SIZE);
  readonly #random = makeRandom(crypto.getRandomValues(new Uint32Array(1))[0]!);
  readonly #mount: Mount;
  readonly #form: Form;
  #stopped = false;
  #over: Promise<void>;

  constructor(mount: Mount, form: Form) {
    this.#mount = mount;
    this.#form = form;
    this.#over = this.#run();
  }

  /** Answers when it writes no more. Throws what a write threw. */
  async suspend(): Promise<void> {
    this.#stopped = true;
    await this.#over;
  }

  resume(): void {
    this.#stopped = false;
    this.#over = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const offset = this.#random(SIZE - PIECE), length = this.#random(PIECE) + 1;
      const bytes = new Uint8Array(length).fill(this.#random(255) + 1);
      await writeBytes(this.#mount, this.#form, bytes, offset);
      this.model.set(bytes, offset);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

async function writeBytes(mount: Mount, form: Form, bytes: Uint8Array, at: number): Promise<void> {
  if (form.as === "slice") return mount.bytes.set(bytes, at);
  await mount.file.seek(at, Deno.SeekMode.Start);
  for (let done = 0; done < bytes.length;) done += await mount.file.write(bytes.subarray(done));
}

async function readAll(mount: Mount, form: Form): Promise<Uint8Array> {
  if (form.as === "slice") return mount.bytes.slice();
  const content = new Uint8Array(SIZE);
  await mount.file.seek(0, Deno.SeekMode.Start);
  for (let done = 0; done < SIZE;) done += (await mount.file.read(content.subarray(done)))!;
  return content;
}

function assertSame(found: Uint8Array, expected: Uint8Array): void {
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  assert(at < 0, `byte ${at} is ${found[at]} in place of ${expected[at]}`);
}

for (const [name, form] of Object.entries(FORMS)) {
  test(`${name} moves while it is written, and nothing is lost`, form, async (site) => {
    await using seeder = await seed(site, { onSuspend: () => writer.suspend() });
    const writer = new Writer(seeder.mount, form);
    await using leecher = await leech(site, seeder.url);
    await leecher.copied();
    const mount = await leecher.finalize({ strategy: "force", maxTime: 5000 });
    assertEquals(seeder.stage, "given");
    assertSame(await readAll(mount, form), writer.model);
    await writeBytes(mount, form, new Uint8Array(100).fill(7), 12345);
    writer.model.fill(7, 12345, 12445);
    await mount.sync();
    await leecher.completed();
    await seeder.released;
    const { compared, downtimeMs, epoch } = await leecher.progress();
    assertEquals([compared.different, epoch], [0, 1]);
    assert(downtimeMs > 0);
    assertSame(await readAll(mount, form), writer.model);
  });

  test(`${name} that is handed over at once is fetched on demand`, form, async (site) => {
    await using seeder = await seed(site, { onSuspend: () => writer.suspend() });
    const writer = new Writer(seeder.mount, form);
    await using leecher = await Leecher.open({
      ...{ ...form, source: seeder.url, local: site.local },
      pullWorkers: 1,
      pullRate: 4 * MIB,
    } as LeecherOptions);
    const mount = await leecher.finalize({ strategy: "force", maxTime: 0 });
    const { localBytes } = await leecher.progress();
    assert(localBytes < SIZE, "everything was there already");
    assertSame(await readAll(mount, form), writer.model);
    await leecher.completed();
    await seeder.released;
  });
}

const FILE = FORMS["a file by fuse"]!;

test("a region that was given away is written no more", FILE, async (site) => {
  await using seeder = await seed(site);
  await using leecher = await leech(site, seeder.url);
  await leecher.finalize();
  const write = () => writeBytes(seeder.mount, FILE, new Uint8Array(1), 0);
  await assertRejects(write, Deno.errors.PermissionDenied);
});

test(
  "a region that is written faster than it is copied stays where it is, and goes on",
  FILE,
  async (site) => {
    await using seeder = await seed(site, {
      onSuspend: () => writer.suspend(),
      onResume: () => writer.resume(),
    });
    const writer = new Writer(seeder.mount, FILE);
    await using leecher = await leech(site, seeder.url);
    const impossible = { maxDowntime: 0, maxTime: 200, strategy: "cancel" } as const;
    await assertRejects(() => leecher.finalize(impossible), DeadlineError, "would be needed");
    assertEquals(seeder.stage, "serving");
    const mount = await leecher.finalize({ strategy: "force", maxTime: 1000 });
    assertSame(await readAll(mount, FILE), writer.model);
  },
);

test(
  "a program that writes faster than it is copied can be slowed until it moves",
  FILE,
  async (site) => {
    const rates: number[] = [];
    await using seeder = await seed(site, {
      onSuspend: () => writer.suspend(),
      onThrottle: (rate) => void rates.push(rate),
    });
    const writer = new Writer(seeder.mount, FILE);
    await using leecher = await Leecher.open({
      ...{ ...FILE, source: seeder.url, local: site.local },
      pullRate: 16 * MIB,
    } as LeecherOptions);
    const mount = await leecher.finalize({ strategy: "throttle", maxDowntime: 8 });
    const { throttledRate } = await leecher.progress();
    assertEquals([rates.includes(throttledRate), rates.at(-1)], [true, Infinity]);
    assertSame(await readAll(mount, FILE), writer.model);
  },
);

test(
  "a program that does not suspend in time goes on, and can be asked again",
  FILE,
  async (site) => {
    const hold = Promise.withResolvers<void>();
    let asked = 0;
    await using seeder = await seed(site, {
      onSuspend: () => asked++ === 0 ? hold.promise : undefined,
    });
    await using leecher = await leech(site, seeder.url);
    await assertRejects(() => leecher.finalize({ suspendMs: 50 }), Error, "suspend the program");
    assertEquals(seeder.stage, "serving");
    await writeBytes(seeder.mount, FILE, new Uint8Array(10).fill(1), 0);
    hold.resolve();
    const mount = await leecher.finalize();
    assertEquals((await readAll(mount, FILE))[9], 1);
  },
);

test(
  "a leecher that goes before it took over leaves the region where it is",
  FILE,
  async (site) => {
    await using seeder = await seed(site);
    {
      await using leecher = await leech(site, seeder.url);
      await leecher.copied();
    }
    await writeBytes(seeder.mount, FILE, new Uint8Array(10).fill(1), 0);
    assertEquals(seeder.stage, "serving");
    await using leecher = await leech({ ...site, local: `${site.local}2` }, seeder.url);
    assertEquals((await readAll(await leecher.finalize(), FILE))[9], 1);
  },
);

test("a region moves on from where it came to, on the same device", FILE, async (site) => {
  await using seeder = await seed(site);
  await writeBytes(seeder.mount, FILE, new Uint8Array(10).fill(1), 0);
  await using leecher = await leech(site, seeder.url);
  const mount = await leecher.finalize();
  const { path } = mount;
  await using next = await leecher.seed({ listen: "telemap://127.0.0.1:0" });
  assertEquals(next.mount.path, path);
  await writeBytes(next.mount, FILE, new Uint8Array(10).fill(2), 5);
  await using last = await leech({ ...site, local: `${site.local}2` }, next.url);
  const content = await readAll(await last.finalize(), FILE);
  assertEquals([...content.subarray(0, 16)], [1, 1, 1, 1, 1, ...Array(10).fill(2), 0]);
  assertEquals((await last.progress()).epoch, 2);
  await last.completed();
});

test("a region goes on its way by one migrator a host", FILE, async (site) => {
  const listen = "telemap://127.0.0.1:0", suspended: number[] = [];
  const at = (host: number, local: string) =>
    new Migrator({ ...FILE, local, listen, hooks: { onSuspend: () => void suspended.push(host) } });
  await using first = at(1, site.backend);
  await writeBytes(await first.seed(), FILE, new Uint8Array(10).fill(1), 0);
  await using second = at(2, site.local);
  await second.leech(await first.url());
  await writeBytes(await second.finalize(), FILE, new Uint8Array(10).fill(2), 5);
  await first.given();
  await using third = at(3, `${site.local}3`);
  await third.leech(await second.url());
  const content = await readAll(await third.finalize(), FILE);
  assertEquals([...content.subarray(0, 16)], [1, 1, 1, 1, 1, ...Array(10).fill(2), 0]);
  assertEquals(suspended, [1, 2]);
  await assertRejects(() => third.leech(listen), UsageError, "one migrator");
  await third.url();
});

test("a seeder that cannot be reached dials its leecher", FILE, async (site) => {
  const url = `telemap+unix:///?socket=${site.local.replace("file:", "")}.sock`;
  const opening = Leecher.open({ ...FILE, source: { listen: url }, local: site.local });
  await using seeder = await Seeder.open({ ...FILE, backend: site.backend, dial: url });
  await writeBytes(seeder.mount, FILE, new Uint8Array(10).fill(3), 77);
  await using leecher = await opening;
  const mount = await leecher.finalize();
  assertEquals((await readAll(mount, FILE))[86], 3);
  await leecher.completed();
  await seeder.released;
});

test("a seeder that nobody could reach is refused", FILE, async ({ backend }) => {
  await assertRejects(() => Seeder.open({ ...FILE, backend }), UsageError, "to nobody");
});

for (const [name, form] of Object.entries(FORMS)) {
  test(
    `${name} is not handed out by a leecher that is closed amid the handover`,
    form,
    async (site) => {
      const place: { leecher?: Leecher } = {};
      let closing: Promise<void> | undefined, stands = true;
      await using seeder = await seed(site, {
        onSuspend: () => {
          closing = place.leecher!.close();
        },
        onResume: () => void (stands = false),
      });
      const leecher = place.leecher = await leech(site, seeder.url);
      await assertRejects(() => leecher.finalize(), TelemapError);
      await closing;
      assertEquals([stands, seeder.stage], [false, "serving"]);
    },
  );
}
