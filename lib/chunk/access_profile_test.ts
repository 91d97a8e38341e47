import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "../backend/errors.ts";
import { formatProfile, parseProfile, readProfile, writeProfile } from "./access_profile.ts";
import { AccessRecorder } from "./access_recorder.ts";

const UNIT = 4096;
const layout = { count: 100, chunkSize: UNIT };

Deno.test("first touches are recorded in their order, runs as one", () => {
  const recorder = new AccessRecorder(layout);
  recorder.touch(50, 52);
  recorder.touch(52, 53);
  recorder.touch(3, 4);
  recorder.touch(49, 55);
  assertEquals([...recorder.ranges()], [
    { offset: 50 * UNIT, length: 3 * UNIT },
    { offset: 3 * UNIT, length: UNIT },
    { offset: 49 * UNIT, length: UNIT },
    { offset: 53 * UNIT, length: 2 * UNIT },
  ]);
  assertEquals(recorder.counts, { expected: 0, used: 0, wasted: 0, missed: 0 });
});

Deno.test("what was expected is compared to what is touched", () => {
  const expected = [{ offset: 10 * UNIT, length: 4 * UNIT }, { offset: 12 * UNIT, length: UNIT }];
  const recorder = new AccessRecorder(layout, expected);
  recorder.touch(12, 15);
  recorder.touch(12, 13);
  assertEquals(recorder.counts, { expected: 4, used: 2, wasted: 2, missed: 1 });
});

const ranges = fc.array(
  fc.tuple(fc.nat(90), fc.integer({ min: 1, max: 10 }))
    .map(([from, count]) => ({ offset: from * UNIT, length: count * UNIT })),
);

Deno.test("a profile is read as it was written", () => {
  fc.assert(fc.property(ranges, (list) => {
    assertEquals(parseProfile(formatProfile(list, UNIT), 100 * UNIT), list);
  }));
});

Deno.test("what lies outside a smaller region is left out", () => {
  const text = formatProfile([
    { offset: 0, length: 2 * UNIT },
    { offset: UNIT, length: 2 * UNIT },
    { offset: 5 * UNIT, length: UNIT },
  ], UNIT);
  assertEquals(parseProfile(text, UNIT + 100), [
    { offset: 0, length: UNIT + 100 },
    { offset: UNIT, length: 100 },
  ]);
});

Deno.test("what is no profile is refused", () => {
  const wrong = [
    "",
    "telemap-profile",
    "telemap-profile 2 4096\n",
    "telemap-profile 1 0\n",
    "telemap-profile 1 4096\n5-7\n",
    "telemap-profile 1 4096\n5\n\n6\n",
    "telemap-profile 1 4096\n" + "9".repeat(17) + "\n",
    "telemap-profile 1 4096\n" + "1\n".repeat((1 << 20) + 1),
  ];
  for (const text of wrong) assertThrows(() => parseProfile(text, 1 << 30), UsageError);
  fc.assert(fc.property(fc.string(), (text) => {
    assertThrows(() => parseProfile(text, 1 << 30), UsageError);
  }));
  assertEquals(
    parseProfile("telemap-profile 1 4096\n" + "1\n".repeat(1 << 20), 1 << 30).length,
    1 << 20,
  );
});

Deno.test("a profile takes the place of the one before once it is whole", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/profile`;
    for (const offset of [0, 7 * UNIT]) {
      const list = [{ offset, length: UNIT }];
      await writeProfile(path, list, UNIT);
      assertEquals(await readProfile(path, 100 * UNIT), list);
    }
    assertEquals([...Deno.readDirSync(directory)].length, 1);
    await assertRejects(() => readProfile(`${directory}/other`, UNIT), Deno.errors.NotFound);
    await assertRejects(() => readProfile(directory, UNIT), UsageError);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
