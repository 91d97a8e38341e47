/**
 * A target that really asks a source, over a link that loses requests and answers and with disks that
 * fail: in the end one of the two has the region, and whoever wanted it has been told.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import {
  ConnectionError,
  DeadlineError,
  FencedError,
  TelemapError,
} from "../../lib/backend/errors.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { Draws } from "../../lib/chunk/draws.ts";
import { lockBackend } from "../../lib/chunk/lock.ts";
import { SlowStage } from "../../lib/chunk/slow.ts";
import { trackBackend } from "../../lib/chunk/track.ts";
import { SeederClient } from "../../lib/migration/seeder_client.ts";
import { SeederCore } from "../../lib/migration/seeder_core.ts";
import { type TargetCopy, TargetDriver } from "../../lib/migration/target_driver.ts";
import { targetAfterRestart } from "../../lib/migration/target_handover.ts";

openLibc();

const CHUNK = 4096, SIZE = 16 * CHUNK;
const RUNS = 100;

/** A source whose program can be asked whether it runs. */
class Source {
  isRunning = true;
  /** Resolves once it has been told to go on. */
  readonly resumed = Promise.withResolvers<void>();
  readonly core: SeederCore;
  readonly #lock;

  constructor(suspend = () => Promise.resolve()) {
    const track = trackBackend(openMemory({ size: SIZE }), { chunkSize: CHUNK });
    this.#lock = lockBackend(track, { holdTimeout: 1 });
    this.core = new SeederCore({
      ...{ lock: this.#lock, slow: new SlowStage(this.#lock), track, chunkSize: CHUNK },
      state: { at: "serving", epoch: 0 },
      program: {
        flush() {},
        suspend: async () => {
          await suspend();
          this.isRunning = false;
        },
        resume: () => {
          this.isRunning = true;
          this.resumed.resolve();
        },
        throttle() {},
        record() {},
        onStage() {},
      },
    });
  }

  /** Whether the program runs, and what it writes is taken. */
  async mayWrite(): Promise<boolean> {
    try {
      await this.#lock.writeAt(new Uint8Array(1), 0);
      return this.isRunning;
    } catch {
      return false;
    }
  }
}

type Call = () => Promise<Uint8Array>;

/** A client of a source by a link, which is given each call. */
function connect(source: Source, leech: number, link = (call: Call) => call()): SeederClient {
  const target = {
    control: (message: Uint8Array) => link(() => source.core.control(message.slice())),
  };
  return new SeederClient(target, new Uint8Array(16).fill(leech));
}

/** A copy that only remembers what it was told. */
class Copy implements TargetCopy {
  readonly told: string[] = [];
  failures = 0;
  receiving: () => Promise<void> = () => Promise.resolve();

  record(state: string, epoch: number): Promise<void> {
    if (this.failures-- > 0) return Promise.reject(new TelemapError("ENOSPC", "The disk is full"));
    this.told.push(`${state} ${epoch}`);
    return Promise.resolve();
  }
  askAhead(): void {}
  receive(): Promise<void> {
    return this.receiving();
  }
  follow(): Promise<void> {
    this.told.push("follow");
    return Promise.resolve();
  }
  distrust(): Promise<void> {
    this.told.push("distrust");
    return Promise.resolve();
  }
  own(epoch: number): void {
    this.told.push(`own ${epoch}`);
  }
  stop(): void {
    this.told.push("stop");
  }
}

const following = { state: { at: "following", epoch: 0 }, actions: [] } as const;

async function begin(
  driver: TargetDriver,
  client: SeederClient,
  { offerMs = 5000, ahead = false } = {},
): Promise<void> {
  const { trackId, generation, epoch } = await client.track({ chunkSize: CHUNK });
  const next = Math.max(epoch, driver.state.epoch) + 1;
  await driver.begin({ epoch: next, trackId, generation, offerMs, ahead });
}

for (const ahead of [false, true]) {
  const how = ahead ? "confirmed ahead" : "confirmed once all is here";
  Deno.test(`a region is ${how}, recorded before and after, and let go`, async () => {
    const source = new Source(), client = connect(source, 1), copy = new Copy();
    copy.receiving = async () => {
      await new Promise((resolve) => setTimeout(resolve));
      copy.told.push(`received, ${source.core.stage}`);
    };
    const driver = new TargetDriver(client, copy, following);
    await begin(driver, client, { ahead });
    assertEquals([driver.owns, await source.mayWrite()], [true, false]);
    await driver.whole();
    assert(await driver.done(1000));
    assertEquals(copy.told, [
      "confirming 1",
      `received, ${ahead ? "given" : "offered"}`,
      ...["own 1", "taken 1", "owner 1"],
    ]);
    assertEquals(source.core.stage, "released");
  });
}

Deno.test("whatever is lost on the way, one side has the region in the end, and knows", async () => {
  const first = Number(Deno.env.get("TELEMAP_SEED") ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${first}`);
  await Promise.all(Array.from({ length: RUNS }, async (_, run) => {
    const draws = new Draws(first + run, "faults");
    let drawn = 0;
    const draw = () => draws.at(drawn++);
    const source = new Source(async () => {
      if (draw() < 0.1) throw new TelemapError("EIO", "It does not stop");
      await Promise.resolve();
    });
    let faults = 1 + Math.floor(draw() * 4);
    const client = connect(source, 1, async (call) => {
      const kind = faults > 0 ? draw() : 1;
      if (kind < 0.2) {
        faults--;
        throw new ConnectionError("The request was lost");
      }
      const answer = await call();
      if (kind < 0.4) {
        faults--;
        throw new ConnectionError("The answer was lost");
      }
      return answer;
    });
    const copy = new Copy();
    copy.failures = draw() < 0.3 ? 1 : 0;
    copy.receiving = () => draw() < 0.1 ? Promise.reject(new Error("No room")) : Promise.resolve();
    const driver = new TargetDriver(client, copy, following);
    const begun = connect(source, 1);
    let told = "";
    for (let tries = 0; tries < 3 && !driver.owns; tries++) {
      const taking = begin(driver, draw() < 0.9 ? begun : client, {
        ...{ offerMs: 200, ahead: draw() < 0.5 },
      });
      if (draw() < 0.2) void driver.cancel(1000);
      told += await taking.then(() => "taken ", (error: Error) => `${error.message} `);
      await driver.settled();
      assertEquals(await source.mayWrite(), !driver.owns, `seed ${first + run}: ${told}`);
      if (driver.state.at === "cancelled") break;
    }
    assertEquals(told.endsWith("taken "), driver.owns, `seed ${first + run}: ${told}`);
    driver.stop();
    source.core.close();
  }));
});

Deno.test("who comes after somebody else has the region is told so", async () => {
  const source = new Source();
  const [one, other] = [connect(source, 1), connect(source, 2)];
  const copy = new Copy();
  const driver = new TargetDriver(other, copy, following);
  const { trackId, generation } = await other.track({ chunkSize: CHUNK });
  await begin(new TargetDriver(one, new Copy(), following), one);
  const begun = driver.begin({ epoch: 5, trackId, generation, offerMs: 1000, ahead: false });
  await assertRejects(() => begun, FencedError, "somebody else");
  assertEquals([driver.state.at, copy.told.at(-1)], ["lost", "stop"]);
});

Deno.test("who confirms when the source went on is told, and can try again", async () => {
  const source = new Source(), client = connect(source, 1), copy = new Copy();
  const driver = new TargetDriver(client, copy, following);
  copy.receiving = () => source.resumed.promise;
  await assertRejects(
    () => begin(driver, client, { offerMs: 20 }),
    DeadlineError,
    "went on before this side had confirmed; try again, with more time to suspend",
  );
  assertEquals([driver.state.at, await source.mayWrite()], ["following", true]);
  await begin(driver, client);
  assertEquals([driver.owns, await source.mayWrite()], [true, false]);
});

Deno.test("after a restart in doubt only what the source says counts", async () => {
  for (const isGiven of [false, true]) {
    const source = new Source(), client = connect(source, 1);
    if (isGiven) await begin(new TargetDriver(client, new Copy(), following), client);
    const copy = new Copy();
    const record = { state: "confirming", epoch: 1, leech: "01".repeat(16) } as const;
    const start = targetAfterRestart({ ...record, peer: "", time: 1, promoted: false })!;
    const driver = new TargetDriver(client, copy, start);
    driver.start();
    await driver.settled();
    assertEquals(driver.owns, isGiven);
    assertEquals(copy.told.slice(0, 2), isGiven ? ["distrust", "own 1"] : ["follow"]);
    assertEquals(await source.mayWrite(), !isGiven);
    driver.stop();
  }
});

Deno.test("what could not be compared before the end is not recorded as the region", async () => {
  const source = new Source(), client = connect(source, 1), copy = new Copy();
  await begin(new TargetDriver(client, new Copy(), following), client);
  const compared = Promise.withResolvers<void>();
  copy.distrust = () => {
    compared.resolve();
    return Promise.reject(new TelemapError("ECANCELED", "All ends"));
  };
  const record = { state: "confirming", epoch: 1, leech: "01".repeat(16) } as const;
  const start = targetAfterRestart({ ...record, peer: "", time: 1, promoted: false })!;
  const driver = new TargetDriver(client, copy, start);
  driver.start();
  await compared.promise;
  driver.stop();
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals([copy.told, driver.owns], [[], false]);
});

Deno.test("a source that is gone for good is not waited for where the user says so", async () => {
  const source = new Source();
  let calls = 0;
  const client = connect(source, 1, (call) => {
    const isGone = calls++ > 1;
    return isGone ? Promise.reject(new ConnectionError("Nobody is there")) : call();
  });
  const copy = new Copy();
  const driver = new TargetDriver(client, copy, following);
  const taking = begin(driver, client);
  while (driver.state.at !== "confirming") await new Promise((resolve) => setTimeout(resolve, 1));
  copy.failures = 1;
  await assertRejects(() => driver.promote(), TelemapError, "full");
  await driver.promote();
  await taking;
  assertEquals(copy.told, ["confirming 1", "owner 2", "own 2"]);
  assert(await driver.done(0));
  driver.stop();
  source.core.close();
});

Deno.test("closing ends what waits for a source that says nothing", async () => {
  const source = new Source(), copy = new Copy();
  const never = Promise.withResolvers<Uint8Array>();
  const driver = new TargetDriver(connect(source, 1, () => never.promise), copy, following);
  const taking = begin(driver, connect(source, 1));
  const refused = assertRejects(() => taking, TelemapError, "closed");
  driver.stop();
  await refused;
  source.core.close();
});
