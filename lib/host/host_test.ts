import { assert, assertRejects } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { BackendHost } from "./host.ts";

openLibc();

const ROUNDS = 12;

/** Epoll instances and event counters of this process, and its threads. */
function leftovers(): number {
  const links = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => linkOf(name));
  const events = links.filter((link) => link.startsWith("anon_inode:[event"));
  return events.length + [...Deno.readDirSync("/proc/self/task")].length;
}

function linkOf(descriptor: string): string {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${descriptor}`);
  } catch {
    return "the descriptor of this listing";
  }
}

/** Fails where each round leaves something; a thread that is just ending is no matter. */
async function assertNothingStays(round: () => Promise<unknown>): Promise<void> {
  for (let warming = 0; warming < 3; warming++) await round();
  const before = leftovers();
  for (let count = 0; count < ROUNDS; count++) await round();
  const after = leftovers();
  assert(after - before < ROUNDS, `${before} threads and events before, ${after} after`);
}

Deno.test("a host that is closed leaves no descriptor and no thread", async () => {
  await assertNothingStays(async () => {
    const host = await BackendHost.start("memory:1MiB");
    await host.flush();
    await host.close();
  });
});

Deno.test("a host that cannot open its backend leaves no descriptor and no thread", async () => {
  await assertNothingStays(() =>
    assertRejects(() => BackendHost.start("file:/nonexistent/region"))
  );
});
