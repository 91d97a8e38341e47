/**
 * A region moves between two hosts, as network namespaces with a link between them, which is cut for
 * ten seconds on the way: whatever was under way, the region comes to one end and no step is lost.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { FencedError, openBackend } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { stepOf } from "./migration_pages.ts";
import { Side } from "./migration_side.ts";

openLibc();

const SIZE = 16 << 20;
/** Of pulling, so that it takes some seconds. */
const PULL_RATE = 8 << 20;
const CUT_MS = 10_000;
const needs = requires("root", "ip", "/dev/userfaultfd");

function ip(...args: string[]): void {
  const { success, stderr } = new Deno.Command("ip", { args, stderr: "piped" }).outputSync();
  if (!success) throw new Error(`ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** Two hosts, and the link between them. */
class Hosts implements Disposable {
  readonly source = `telemap-source-${Deno.pid}`;
  readonly target = `telemap-target-${Deno.pid}`;
  /** Where the source is for the target. */
  readonly address = "10.91.0.1";

  constructor() {
    for (const name of [this.source, this.target]) ip("netns", "add", name);
    ip("-n", this.source, ..."link add out type veth peer name out netns".split(" "), this.target);
    ip("-n", this.source, "address", "add", `${this.address}/24`, "dev", "out");
    ip("-n", this.target, "address", "add", "10.91.0.2/24", "dev", "out");
    for (const name of [this.source, this.target]) {
      ip("-n", name, "link", "set", "lo", "up");
      ip("-n", name, "link", "set", "out", "up");
    }
  }

  /** Nothing gets through for so many ms. */
  async cut(milliseconds: number): Promise<void> {
    ip("-n", this.source, "link", "set", "out", "down");
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    ip("-n", this.source, "link", "set", "out", "up");
  }

  [Symbol.dispose](): void {
    for (const name of [this.source, this.target]) ip("netns", "del", name);
  }
}

interface Case {
  /** Strategy, and when the source commits. */
  goal: string;
  /** The event that the cut follows, and of which side. */
  after: { side: "seeder" | "leecher"; event: string };
}

const CASES: Record<string, Case> = {
  "while it is copied": { goal: "wait,auto", after: { side: "leecher", event: "following" } },
  "while it is handed over": { goal: "wait,after", after: { side: "seeder", event: "suspended" } },
  "while it is handed over, confirmed ahead": {
    ...{ goal: "wait,ahead", after: { side: "seeder", event: "suspended" } },
  },
  "while the rest is fetched": { goal: "force,auto", after: { side: "leecher", event: "owner" } },
};

for (const [when, { goal, after }] of Object.entries(CASES)) {
  Deno.test({
    name: withReason(`a link that is cut for 10 s ${when} holds a region up, and no more`, needs),
    ignore: needs.ignore,
    async fn() {
      using hosts = new Hosts();
      using directory = temporaryDirectory();
      const region = `${directory.path}/region`, copy = `${directory.path}/copy`;
      const url = `telemap://${hosts.address}:4100`;
      await using seeder = new Side(
        ["seed", `file:${region}?size=${SIZE}`, url, "userfault"],
        hosts.source,
      );
      assert(await seeder.saw("ready"), JSON.stringify(seeder.events));
      const leech = () =>
        new Side(
          ["leech", url, `file:${copy}`, "userfault", goal, "--pull-rate", `${PULL_RATE}`],
          hosts.target,
        );
      const start = performance.now();
      let leecher = leech(), leechers = 1;
      try {
        const side = after.side === "seeder" ? seeder : leecher;
        assert(await side.saw(after.event), JSON.stringify([seeder.events, leecher.events]));
        await hosts.cut(CUT_MS);
        // Where the handover was given up, somebody asks for it again.
        while (!await leecher.saw("complete") && leechers < 3) {
          leecher = leech();
          leechers++;
        }
        assert(leecher.has("complete"), JSON.stringify([seeder.events, leecher.events]));
      } finally {
        await leecher[Symbol.asyncDispose]();
      }
      await seeder.over;
      const owner = leecher.events.find(({ event }) => event === "owner")!;
      const suspended = seeder.events.findLast(({ event }) => event === "suspended")!;
      const [step, there] = [suspended["step"], leecher.step].map(Number);
      console.log(
        `${((performance.now() - start) / 1000).toFixed(1)} s, ${leechers} leechers, downtime ` +
          `${Number(owner["downtimeMs"]).toFixed(1)} ms, step ${step} there and ${there} here`,
      );
      assertEquals(there, step! + 50);
      assertEquals(stepOf(await Deno.readFile(copy)), there);
      await (await openBackend(`file:${copy}`)).close();
      await assertRejects(() => openBackend(`file:${region}`), FencedError, "given away");
    },
  });
}
