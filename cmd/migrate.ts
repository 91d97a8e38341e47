/**
 * `telemap migrate`: tells who owns the regions of this host, and settles that after a crash.
 *
 * @module
 */
import {
  type Absent,
  inspectOwnership,
  ownedPlace,
  type Ownership,
  recoverOwnership,
} from "../lib/host/ownership.ts";
import { FencedError, formatSize, UsageError } from "../mod.ts";
import { GROUP_PEER } from "../lib/backend/handover_group.ts";
import { NOBODY } from "../lib/backend/handover_record.ts";
import { openLibc } from "../ffi/libc.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { demonstrateMigration } from "./migrate_demo.ts";
import { promoteProcess } from "./standby.ts";
import { migrateAdvice } from "./migrate_advice.ts";

/** Ranges that people are shown. */
const RANGES_SHOWN = 4;
/** How long a standby is given to take over, and how often it is looked at, in ms. */
const PROMOTED_MS = 120_000, LOOK_MS = 50;

/** See the module. */
export const migrate: Command = defineCommand({
  name: "migrate",
  summary: "Tell who owns regions that move, settle it after a crash, promote a standby",
  description: "status tells by the record beside each region who owns it, whether it may be " +
    "written here, and what is to be done; it changes nothing, and may be asked while the region " +
    "moves.\n" +
    "recover settles a record that a process left behind, as far as that is safe by itself: a " +
    "source that had not given the region goes on as the owner, one that had given it stays " +
    "fenced, and a copy does not become the region without the word of its source. With " +
    "--source-is-dead it does, and what may be missing is printed: if the source comes back all " +
    "the same, there are two regions.\n" +
    "promote has a standby, which is a telemap leech --follow, take over: its source suspends, and " +
    "is fenced. With --source-is-dead the source is not asked; then the standby need not run.\n" +
    "demo shows in two processes of this host how a region moves while it is written.\n" +
    "With --json status, recover and promote print a line for each region. The exit code of " +
    "recover is 1 where the source has to be asked.",
  operands: [
    {
      name: "ACTION",
      help: "what is to be done: status, recover, promote or demo",
      value: ["status", "recover", "promote", "demo"],
    },
    {
      name: "BACKEND",
      help: "file: or dir: URL of the region",
      value: "url",
      optional: true,
      many: true,
    },
  ],
  options: {
    "source-is-dead": { help: "make a copy the region although its source was not asked" },
    json: JSON_OPTION,
  },
  examples: [
    { call: "telemap migrate status file:/srv/disk.img", does: "who owns a region" },
    {
      call: "telemap migrate promote file:/srv/copy.img",
      does: "have a standby take over from its source",
    },
    {
      call: "telemap migrate recover file:/srv/disk.img --source-is-dead",
      does: "go on with a copy, as the host that it came from is lost",
    },
  ],
  async run([action, ...backends], options) {
    const { json, "source-is-dead": sourceIsDead } = options;
    if ((action === "demo") !== (backends.length === 0)) {
      throw new UsageError(
        action === "demo" ? "migrate demo takes no region" : `migrate ${action} takes a region`,
      );
    }
    if (sourceIsDead && action !== "recover" && action !== "promote") {
      throw new UsageError("--source-is-dead is of telemap migrate recover and promote only");
    }
    if (action === "demo") return await demonstrateMigration(json);
    for (const url of backends) ownedPlace(url);
    openLibc();
    const failures: unknown[] = [];
    for (const url of backends) {
      try {
        if (action === "status") tell(await inspectOwnership(url), json);
        else if (action === "recover") await recover(url, sourceIsDead, json);
        else await promote(url, sourceIsDead, json);
      } catch (error) {
        failures.push(error);
      }
    }
    // One line for each region that failed; the last one is told of by the frame.
    const last = failures.pop();
    for (const error of failures) console.error(`telemap: ${(error as Error).message}`);
    if (last !== undefined) throw last;
  },
});

async function recover(url: string, sourceIsDead: boolean, json: boolean): Promise<void> {
  const { before, after } = await recoverOwnership(url, { sourceIsDead });
  const isPromoted = before.record.state !== after.record.state;
  tell(after, json, isPromoted ? before : undefined);
  if (after.verdict !== "copy" && after.verdict !== "undecided") return;
  throw new FencedError(`Cannot settle who owns ${url} without its source`, {
    hint: migrateAdvice(after),
  });
}

async function promote(url: string, sourceIsDead: boolean, json: boolean): Promise<void> {
  const { holder } = await inspectOwnership(url);
  if (holder === undefined) {
    if (sourceIsDead) return await recover(url, sourceIsDead, json);
    throw new FencedError(`Cannot promote ${url}: no process keeps it as a standby`, {
      hint:
        "start telemap leech --follow there, or add --source-is-dead if its source never comes " +
        "back",
    });
  }
  promoteProcess(holder, { sourceIsDead });
  const late = performance.now() + PROMOTED_MS;
  for (;;) {
    const now = await inspectOwnership(url);
    if (now.record.state === "taken" || now.record.state === "owner") return tell(now, json);
    if (now.holder !== holder || performance.now() > late) {
      throw new FencedError(`Cannot tell that ${url} was taken over by process ${holder}`, {
        hint: "see what it printed",
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Prints how a region stands; `before`: how it stood before it was made the region here. */
function tell(now: Ownership, json: boolean, before?: Ownership): void {
  const { url, region, record, role, verdict, writable, holder } = now;
  const { state, epoch, leech, peer, time, promoted } = record;
  const absent = before?.absent ?? now.absent;
  const next = migrateAdvice(now);
  if (json) {
    const since = time === 0 ? undefined : new Date(time).toISOString();
    const whose = { ...(leech !== NOBODY && { leech }), ...(peer !== "" && { peer }) };
    return console.log(JSON.stringify({
      ...{ url, region, role, state, epoch, since, ...whose, promoted, verdict, writable, holder },
      ...{ absent, before: before?.record.state, next },
    }));
  }
  const rows: (readonly [string, string | undefined])[] = [
    ["Region", region ?? "not known yet"],
    ["Role", role],
    ["State", stateWords(now)],
    ["Leecher", leech === NOBODY ? undefined : leech],
    peerRow(now),
    ["Writable", writable ? "yes" : "no"],
    ["In use", holder === undefined ? undefined : `by process ${holder}`],
    ["Missing", absent && missingWords(absent, before ?? now)],
    ["Next", next],
  ];
  console.log(url);
  for (const [name, text] of rows) {
    if (text !== undefined) console.log(`  ${name.padEnd(8)}  ${text}`);
  }
}

/** Who is on the other side; of a part of a group that was given away, which group that is. */
function peerRow({ role, record: { peer } }: Ownership): readonly [string, string | undefined] {
  if (peer.startsWith(GROUP_PEER)) return ["Group", peer.slice(GROUP_PEER.length)];
  return [role === "source" ? "Owner" : "Source", peer === "" ? undefined : peer];
}

function stateWords({ record: { state, epoch, time, promoted } }: Ownership): string {
  if (time === 0) return `${state}: it never moved`;
  const how = promoted ? ", without the word of its source" : "";
  return `${state}, epoch ${epoch}, since ${new Date(time).toISOString()}${how}`;
}

function missingWords({ size, bytes, ranges }: Absent, { verdict, holder }: Ownership): string {
  const shown = ranges.slice(0, RANGES_SHOWN).map(({ offset, length }) => `${length} at ${offset}`);
  if (ranges.length > RANGES_SHOWN) shown.push("…");
  const absent = bytes === 0
    ? `none of ${formatSize(size)}`
    // What a process has brought here is written down now and then.
    : `${holder === undefined ? "" : "at most "}${formatSize(bytes)} of ${formatSize(size)}: ` +
      shown.join(", ");
  // Only what was taken over is known to be of one moment.
  return verdict === "incomplete"
    ? absent
    : `${absent}; and what was written at the source since it was copied`;
}
