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
import { HOLD, Side } from "./migration_side.ts";

openLibc();

const SIZE = 16 << 20;
/** Of pulling, so that it takes some seconds. */
const PULL_RATE = 8 << 20;
const CUT_MS = 10_000;
/** Beside the cut, in ms: more would be a wait for something else. */
const MOST_MS = 40_000;
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

  /** Nothing gets through for so many ms; as soon as that is so, something is done. */
  async cut(milliseconds: number, begun: () => Promise<void>): Promise<void> {
    ip("-n", this.source, "link", "set", "out", "down");
    await begun();
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
  /** The event that the cut follows, of which side, and whether that waits until the link is cut. */
  after: { side: "seeder" | "leecher"; event: string; holds: boolean };
  /** Throws unless the cut came upon what it was to. */
  check?: (seeder: Side, leecher: Side) => void;
}

/** The last event by that name. */
function eventOf({ events }: Side, name: string): Record<string, unknown> {
  return events.findLast(({ event }) => event === name) ?? {};
}

const CASES: Record<string, Case> = {
  "while it is copied": {
    goal: "wait,auto",
    after: { side: "leecher", event: "following", holds: false },
  },
  "while it is handed over": {
    goal: "wait,after",
    after: { side: "seeder", event: "suspended", holds: true },
    check: (seeder) => assert(seeder.has("resumed"), "The program goes on at the source"),
  },
  "while it is handed over, confirmed ahead": {
    goal: "wait,ahead",
    after: { side: "seeder", event: "suspended", holds: true },
    check(_seeder, leecher) {
      const downtimeMs = Number(eventOf(leecher, "owner")["downtimeMs"]);
      assert(downtimeMs > CUT_MS / 2, `It stood still for ${downtimeMs} ms`);
    },
  },
  "while the rest is fetched": {
    goal: "force,auto",
    after: { side: "leecher", event: "taken", holds: true },
    check(_seeder, leecher) {
      const { localBytes } = eventOf(leecher, "taken");
      assert(Number(localBytes) < SIZE / 2, `${localBytes} bytes were here`);
      const { p99Ms } = eventOf(leecher, "owner")["faults"] as { p99Ms: number };
      assert(p99Ms > CUT_MS / 2, `It waited for pages for ${p99Ms} ms at most`);
    },
  },
};

for (const [when, { goal, after, check }] of Object.entries(CASES)) {
  Deno.test({
    name: withReason(`a link that is cut for 10 s ${when} holds a region up, and no more`, needs),
    ignore: needs.ignore,
    async fn() {
      using hosts = new Hosts();
      using directory = temporaryDirectory();
      const region = `${directory.path}/region`, copy = `${directory.path}/copy`;
      const url = `telemap://${hosts.address}:4100`;
      await using seeder = new Side(
        [
          ...["seed", `file:${region}?size=${SIZE}`, url, "userfault"],
          ...(after.holds && after.side === "seeder" ? [HOLD] : []),
        ],
        hosts.source,
      );
      assert(await seeder.saw("ready"), JSON.stringify(seeder.events));
      const leech = () =>
        new Side(
          [
            ...["leech", url, `file:${copy}`, "userfault", goal, "--pull-rate", `${PULL_RATE}`],
            ...(after.holds && after.side === "leecher" && leechers === 0 ? [HOLD] : []),
          ],
          hosts.target,
        );
      const start = performance.now();
      let leechers = 0, leecher = leech();
      leechers++;
      try {
        const side = after.side === "seeder" ? seeder : leecher;
        assert(await side.saw(after.event), JSON.stringify([seeder.events, leecher.events]));
        await hosts.cut(CUT_MS, async () => {
          if (after.holds) await side.goOn();
        });
        assert(!leecher.has("owner"), "The region is of use before the link is back");
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
      const owner = eventOf(leecher, "owner"), took = performance.now() - start;
      const [step, there] = [eventOf(seeder, "suspended")["step"], leecher.step].map(Number);
      console.log(
        `${(took / 1000).toFixed(1)} s, ${leechers} leechers, downtime ` +
          `${Number(owner["downtimeMs"]).toFixed(1)} ms, step ${step} there and ${there} here, ` +
          `waited for pages: ${JSON.stringify(owner["faults"])}`,
      );
      check?.(seeder, leecher);
      assert(took < CUT_MS + MOST_MS, `It took ${took} ms`);
      assertEquals(there, step! + 50);
      assertEquals(stepOf(await Deno.readFile(copy)), there);
      await (await openBackend(`file:${copy}`)).close();
      await assertRejects(() => openBackend(`file:${region}`), FencedError, "given away");
    },
  });
}
