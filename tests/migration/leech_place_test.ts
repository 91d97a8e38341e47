/** Where a region comes to: what already lies there is told of, and the hint makes room for it. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { UsageError } from "../../lib/backend/errors.ts";
import { HandoverFile, handoverPath } from "../../lib/backend/handover_file.ts";
import { GROUP_PEER } from "../../lib/backend/handover_group.ts";
import type { HandoverState } from "../../lib/backend/handover_record.ts";
import { parseLocalUrl } from "../../lib/backend/local_url.ts";
import { openLocal } from "../../lib/backend/open_local.ts";
import { BackendHost } from "../../lib/host/host.ts";
import { leechPlace, leechRecord } from "../../lib/host/leech_place.ts";
import { openPlaces } from "../../lib/host/serve.ts";
import { pattern } from "../backend_model.ts";

openLibc();

const CHUNK = 65_536, SIZE = 4 * CHUNK;
const GOAL = {
  maxDowntime: 1000,
  maxTime: 60_000,
  offerMs: 10_000,
  confirm: "after",
  strategy: "wait",
} as const;
const LEECH = "ab".repeat(16);

async function withDirectory(run: (path: string) => Promise<void> | void): Promise<void> {
  const path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "telemap-test-" }));
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

/** Makes a region with such a record. */
async function regionOf(url: string, state: HandoverState, peer: string): Promise<void> {
  await openLocal(`${url}?size=${SIZE}`)!.close();
  using file = HandoverFile.lock(handoverPath(parseLocalUrl(url))!);
  file.write({ state, epoch: 3, leech: LEECH, peer });
}

/** What is said of the place of that URL; undefined where a region may come there. */
function refusalOf(url: string): string | undefined {
  try {
    leechRecord(url, leechPlace(url));
  } catch (error) {
    assert(error instanceof UsageError);
    return error.message;
  }
}

for (const scheme of ["file", "dir"]) {
  const expected: Record<HandoverState, string[] | undefined> = {
    ...{ receiving: undefined, confirming: undefined, taken: undefined },
    owner: ["is owned here (epoch 3)", "telemap seed"],
    given: ["given away (epoch 3)", "telemap seed 'URL' --listen URL", "rm -"],
    released: ["given away (epoch 3)", "has all of it", "rm -"],
  };
  for (const [state, parts] of Object.entries(expected)) {
    Deno.test(`${scheme}: of a place that is ${state} the leecher tells what is to be done`, () =>
      withDirectory(async (path) => {
        const url = `${scheme}:${path}/region`;
        await regionOf(url, state as HandoverState, "telemap://there:4100");
        const refusal = refusalOf(url);
        assertEquals(refusal === undefined, parts === undefined);
        for (const part of parts ?? []) assertStringIncludes(refusal!, part.replace("URL", url));
      }));
  }
}

Deno.test("a part of a group is not to be seeded by itself", () =>
  withDirectory(async (path) => {
    const url = `file:${path}/region`;
    await regionOf(url, "given", `${GROUP_PEER}${LEECH}`);
    assertStringIncludes(refusalOf(url)!, "by seeding its group again");
  }));

Deno.test("a region that never moved is not written over", () =>
  withDirectory(async (path) => {
    const url = `file:${path}/region`;
    assertEquals(refusalOf(url), undefined);
    await openLocal(`${url}?size=${SIZE}`)!.close();
    assertStringIncludes(refusalOf(url)!, "there is something else");
  }));

/** Offers a region; answers where. */
async function offer(host: BackendHost): Promise<string> {
  const nothing = () => Promise.resolve();
  const places = openPlaces("telemap://127.0.0.1:0", {});
  await host.seed(
    { suspend: nothing, resume: nothing, flush: nothing, throttle: nothing },
    () => {},
  );
  await places.serve(host);
  return places.urls[0]!;
}

/** Brings a region from there to a place. */
async function take(url: string, place: string): Promise<BackendHost> {
  const leech = crypto.getRandomValues(new Uint8Array(16));
  const host = await BackendHost.startLeeched(url, place, { leech, peer: url, chunkSize: CHUNK });
  await host.finalize(GOAL);
  await host.completed();
  return host;
}

for (const scheme of ["file", "dir"]) {
  Deno.test(`${scheme}: a region comes back to where it was once what is hinted at is done`, () =>
    withDirectory(async (path) => {
      const [a, b, c] = [`${scheme}:${path}/a`, `${scheme}:${path}/b`, `${scheme}:${path}/c`];
      const bytes = pattern(SIZE, 9);
      {
        await using region = openLocal(`${a}?size=${SIZE}`)!;
        await region.writeAt(bytes, 0);
        await region.flush();
      }
      let host = await BackendHost.startSeeded(a, { chunkSize: CHUNK });
      // The first one was never leeched before, the second one was.
      for (const place of [b, c, a, b]) {
        const url = await offer(host);
        if (refusalOf(place) !== undefined) {
          const refused = await assertRejects(() => take(url, place), Error, "has all of it");
          const [, remove] = /make room for it with (rm .*), or name/.exec(refused.message)!;
          const { success } = await new Deno.Command("sh", { args: ["-ec", remove!] }).output();
          assert(success, remove);
        }
        const next = await take(url, place);
        await host.close();
        host = next;
      }
      await host.close();
      await using region = openLocal(b)!;
      const found = new Uint8Array(SIZE);
      await region.readAt(found, 0);
      assertEquals(found, bytes);
    }));
}

for (const state of ["receiving", "confirming"] as const) {
  Deno.test(`a file that got no size before its leecher ended, ${state}`, () =>
    withDirectory(async (path) => {
      const bytes = pattern(SIZE, 7), here = `${path}/here`, there = `file:${path}/there`;
      {
        await using region = openLocal(`${there}?size=${SIZE}`)!;
        await region.writeAt(bytes, 0);
      }
      await using source = await BackendHost.startSeeded(there, { chunkSize: CHUNK });
      const url = await offer(source);
      await regionOf(`file:${here}`, state, url);
      Deno.truncateSync(here, 0);
      if (state === "confirming") {
        // It was whole: that it is empty is not to be passed over.
        await assertRejects(() => take(url, `file:${here}`), UsageError, "as it is empty");
        assertEquals(Deno.statSync(here).size, 0);
        return;
      }
      await (await take(url, `file:${here}`)).close();
      assertEquals(Deno.readFileSync(here), bytes);
    }));
}
