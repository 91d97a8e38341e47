import { assertEquals, assertRejects } from "@std/assert";
import { TelemapError } from "../backend/errors.ts";
import { KeptProfile } from "./kept_profile.ts";

const CHUNK = 65536;
const SIZE = 10 * CHUNK - 5;

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const before = Deno.cwd();
  const directory = await Deno.realPath(await Deno.makeTempDir());
  try {
    Deno.chdir(directory);
    await use(directory);
  } finally {
    Deno.chdir(before);
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("what was read is expected the next time, wherever the process is by then", async () => {
  await inDirectory(async (directory) => {
    const profile = await KeptProfile.open("profile", SIZE, CHUNK);
    assertEquals([...profile.expected], []);
    profile.touch(9, 10);
    profile.touch(2, 4);
    Deno.chdir("/");
    await profile.save();
    const next = await KeptProfile.open(`${directory}/profile`, SIZE, CHUNK);
    assertEquals([...next.expected], [
      { offset: 9 * CHUNK, length: CHUNK },
      { offset: 2 * CHUNK, length: 2 * CHUNK },
    ]);
    assertEquals(next.counts, { expected: 3, used: 0, wasted: 3, missed: 0 });
  });
});

Deno.test("what cannot be saved leaves the file as it was", async () => {
  await inDirectory(async (directory) => {
    const profile = await KeptProfile.open("profile", SIZE, CHUNK);
    await profile.save();
    assertEquals([...Deno.readDirSync(directory)], []);
    profile.touch(1, 2);
    await Deno.mkdir("profile/taken", { recursive: true });
    const error = await assertRejects(() => profile.save(), TelemapError, `${directory}/profile`);
    assertEquals(error.code, "EISDIR");
  });
});
