import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { UsageError } from "../backend/errors.ts";
import {
  checkWritable,
  formatProfile,
  parseProfile,
  readProfile,
  writeProfile,
} from "./access_profile.ts";

const UNIT = 4096;

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
    await checkWritable(path);
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["profile"]);
    assertEquals(await readProfile(`${directory}/other`, UNIT), undefined);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("what is no file, and where none can be, is told of", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/large`, "");
    await Deno.truncate(`${directory}/large`, 1 << 30);
    await Deno.symlink("loop", `${directory}/loop`);
    const reads = {
      [directory]: "no file",
      "/dev/null": "no file",
      large: "too large",
      loop: "loop",
    };
    for (const [name, reason] of Object.entries(reads)) {
      const path = name.startsWith("/") ? name : `${directory}/${name}`;
      await assertRejects(() => readProfile(path, UNIT), UsageError, reason);
    }
    for (const path of [`${directory}/no/profile`, `${directory}/large/profile`]) {
      await assertRejects(() => checkWritable(path), UsageError, "Cannot record");
    }
    await assertRejects(() => writeProfile(`${directory}/no/profile`, [], UNIT));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("where a profile cannot take the place, nothing is left behind", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${directory}/profile/taken`, { recursive: true });
    await assertRejects(() => writeProfile(`${directory}/profile`, [], UNIT));
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["profile"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
