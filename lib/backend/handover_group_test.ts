/** The records of a group: one for all, also where the process ends between two of them. */
import { assertEquals, assertThrows } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { FencedError } from "./errors.ts";
import { HandoverFile, readHandover } from "./handover_file.ts";
import { GROUP_PEER, HandoverGroup } from "./handover_group.ts";
import { type HandoverRecord, NOBODY } from "./handover_record.ts";

openLibc();

const LEECH = "ab".repeat(16);
const GIVEN = { state: "given", epoch: 3, leech: LEECH, peer: "" } as const;
const RELEASED = { ...GIVEN, state: "released" } as const;
const OWNER = { state: "owner", leech: NOBODY, peer: "" } as const;

/** Runs with the paths of three records. */
function withPaths(run: (paths: string[]) => void): void {
  const directory = Deno.makeTempDirSync({ prefix: "telemap-test-" });
  try {
    run(["a", "b", "c"].map((name) => `${directory}/${name}.handover`));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Opens the group of those records, and closes them whatever comes of it. */
function within<T>(paths: readonly string[], run: (group: HandoverGroup) => T): T {
  const files = paths.map((path) => HandoverFile.lock(path));
  try {
    const [first, ...others] = files;
    return run(new HandoverGroup(first!, others));
  } finally {
    for (const file of files) file.close();
  }
}

/** Records something of one region alone. */
function alone(path: string, record: Parameters<HandoverFile["write"]>[0]): void {
  using file = HandoverFile.lock(path);
  file.write(record);
}

const statesOf = (paths: readonly string[]) => paths.map((path) => readHandover(path).state);

/** A record of a group that ends with its process after so many writes. */
function writeUntil(
  paths: readonly string[],
  record: typeof GIVEN | typeof RELEASED,
  most: number,
) {
  let writes = 0;
  const mortal = (file: HandoverFile) => ({
    path: file.path,
    get record(): HandoverRecord {
      return file.record;
    },
    write: (record: Parameters<HandoverFile["write"]>[0]) => {
      if (writes++ === most) throw new Error("killed");
      file.write(record);
    },
  } as HandoverFile);
  const files = paths.map((path) => HandoverFile.lock(path));
  try {
    const [first, ...others] = files.map(mortal);
    assertThrows(() => new HandoverGroup(first!, others).write(record), Error, "killed");
  } finally {
    for (const file of files) file.close();
  }
}

Deno.test("a group is owned where all of it is, in the highest epoch", () =>
  withPaths((paths) => {
    alone(paths[1]!, { ...OWNER, epoch: 2 });
    const { state, epoch } = within(paths, ({ record }) => record);
    assertEquals([state, epoch], ["owner", 2]);
  }));

Deno.test("what is recorded of a group is recorded of each part", () =>
  withPaths((paths) => {
    within(paths, (group) => group.write(GIVEN));
    assertEquals(statesOf(paths), ["given", "given", "given"]);
    const { state, epoch, leech, peer } = within(paths, ({ record }) => record);
    assertEquals([state, epoch, leech, peer.startsWith(GROUP_PEER)], ["given", 3, LEECH, true]);
  }));

for (const writes of [0, 1, 2]) {
  Deno.test(`a group whose process ends after ${writes} of its records is owned, and fenced until that is seen`, () =>
    withPaths((paths) => {
      writeUntil(paths, GIVEN, writes);
      const fenced = statesOf(paths).filter((state) => state === "given");
      assertEquals([statesOf(paths)[0], fenced.length], ["owner", writes]);
      const { state, epoch } = within(paths, ({ record }) => record);
      assertEquals([state, epoch], ["owner", writes === 0 ? 0 : 3]);
      assertEquals(statesOf(paths), ["owner", "owner", "owner"]);
      within(paths, (group) => group.write({ ...GIVEN, epoch: 4 }));
      assertEquals(statesOf(paths), ["given", "given", "given"]);
    }));
  Deno.test(`a group that was released in ${writes} of its records is given until that is said again`, () =>
    withPaths((paths) => {
      within(paths, (group) => group.write(GIVEN));
      writeUntil(paths, RELEASED, writes);
      within(paths, (group) => {
        assertEquals(group.record.state, "given");
        group.write(RELEASED);
        assertEquals(group.record.state, "released");
      });
      assertEquals(statesOf(paths), ["released", "released", "released"]);
    }));
}

/** Asserts that a group is refused, and that its records stay as they are. */
function assertFenced(paths: readonly string[]): void {
  const before = statesOf(paths);
  assertThrows(() => within(paths, () => {}), FencedError, "together");
  assertEquals(statesOf(paths), before);
}

Deno.test("a part that was given away by itself, or with others, fences the group", () =>
  withPaths(([first, second, third]) => {
    alone(second!, GIVEN);
    assertFenced([first!, second!, third!]);
    // It decides for itself alone.
    assertFenced([second!, first!, third!]);
    Deno.removeSync(second!);
    within([second!, third!], (group) => group.write(GIVEN));
    assertFenced([first!, second!, third!]);
    assertFenced([second!, first!, third!]);
    assertFenced([third!, second!]);
  }));

Deno.test("a part that came back later is not given away again", () =>
  withPaths((paths) => {
    within(paths, (group) => group.write(GIVEN));
    alone(paths[2]!, { ...OWNER, epoch: 4 });
    assertFenced(paths);
    const ours = { ...GIVEN, peer: readHandover(paths[1]!).peer };
    alone(paths[2]!, { ...ours, epoch: 4 });
    assertFenced(paths);
    alone(paths[2]!, { ...ours, leech: "cd".repeat(16) });
    assertFenced(paths);
    alone(paths[2]!, ours);
    within(paths, ({ record }) => assertEquals(record.state, "given"));
    alone(paths[0]!, { ...OWNER, epoch: 4 });
    assertFenced(paths);
  }));
