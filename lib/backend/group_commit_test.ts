import { assertEquals, assertRejects } from "@std/assert";
import { GroupCommit, type GroupCommitOptions } from "./group_commit.ts";

/** A commit whose every run is ended by hand, and the number of runs so far. */
function manual(options: GroupCommitOptions = {}) {
  const runs: PromiseWithResolvers<void>[] = [];
  const group = new GroupCommit(() => {
    runs.push(Promise.withResolvers());
    return runs.at(-1)!.promise;
  }, options);
  return { runs, group };
}

/** Lets what is ready to go on do so. */
async function turn(): Promise<void> {
  for (let count = 0; count < 20; count++) await Promise.resolve();
}

Deno.test("calls during a commit share one that begins after it", async () => {
  const { runs, group } = manual();
  const done: string[] = [];
  const first = group.run().then(() => done.push("first"));
  await turn();
  const later = [1, 2, 3].map((name) => group.run().then(() => done.push(`later ${name}`)));
  await turn();
  assertEquals([runs.length, done], [1, []]);
  runs[0]!.resolve();
  await first;
  await turn();
  assertEquals([runs.length, done], [2, ["first"]]);
  runs[1]!.resolve();
  await Promise.all(later);
  assertEquals([runs.length, done.length], [2, 4]);
});

Deno.test("a call as soon as a commit is done begins no second one beside the next", async () => {
  const { runs, group } = manual();
  let third: Promise<void> | undefined;
  const first = group.run().then(() => {
    third = group.run();
  });
  const second = group.run();
  await turn();
  runs[0]!.resolve();
  await first;
  await turn();
  assertEquals(runs.length, 2);
  runs[1]!.resolve();
  await second;
  await turn();
  runs[2]?.resolve();
  await third;
});

Deno.test("after a failure every commit fails alike, and is not even begun", async () => {
  const { runs, group } = manual();
  const first = group.run();
  const second = group.run();
  await turn();
  runs[0]!.reject(new Error("lost"));
  await assertRejects(() => first, Error, "lost");
  await assertRejects(() => second, Error, "lost");
  await assertRejects(() => group.run(), Error, "lost");
  assertEquals([runs.length, group.failed], [1, true]);
});

Deno.test("where it retries, a failure is that of those who waited for it", async () => {
  const { runs, group } = manual({ retries: true });
  const first = group.run();
  const second = group.run();
  await turn();
  runs[0]!.reject(new Error("full"));
  await assertRejects(() => first, Error, "full");
  await turn();
  assertEquals([runs.length, group.failed], [2, false]);
  runs[1]!.resolve();
  await second;
});
