import { assertEquals, assertMatch } from "@std/assert";
import { parseReport, type TestCounts } from "./junit_report.ts";

const TESTS = `
Deno.test("passes", () => {});
Deno.test("passes in steps", async (t) => {
  await t.step("one", () => {});
  await t.step("two", () => {});
});
Deno.test("fails <here> & \\"there\\"", () => { throw new Error('<off> & "on"'); });
Deno.test("fails in a step", async (t) => { await t.step("one", () => { throw new Error("in a step"); }); });
Deno.test({ name: "lacks # skipped: nbdkit is not installed", ignore: true, fn() {} });
Deno.test({ name: "is off", ignore: true, fn() {} });
`;

async function count(source: string, ...options: string[]): Promise<TestCounts> {
  const directory = await Deno.makeTempDir({ prefix: "telemap-report-" });
  try {
    await Deno.writeTextFile(`${directory}/some_test.ts`, source);
    const report = `${directory}/report.xml`;
    await new Deno.Command(Deno.execPath(), {
      args: ["test", "--no-config", "--no-check", `--junit-path=${report}`, ...options, directory],
      stdout: "null",
      stderr: "null",
    }).output();
    return parseReport(await Deno.readTextFile(report));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("counts what deno test reports, steps as part of their test", async () => {
  const { failed, ...others } = await count(TESTS);
  assertEquals(failed.map(({ name }) => name), ['fails <here> & "there"', "fails in a step"]);
  assertEquals(others, {
    passed: 2,
    skipped: [
      { name: "lacks", reason: "nbdkit is not installed" },
      { name: "is off", reason: "" },
    ],
  });
});

Deno.test("says what a test and its steps threw, without end", async () => {
  const { failed: [here, step] } = await count(TESTS);
  assertMatch(here!.why, /^Error: <off> & "on"\n/);
  assertMatch(step!.why, /^1 test step failed\.\none: Error: in a step\n/);
  const long = `Deno.test("long", () => { throw new Error("x".repeat(1 << 14)); });`;
  assertEquals((await count(long)).failed[0]!.why.length, 4000);
});

Deno.test("does not count what a filter left out", async () => {
  assertEquals(await count(TESTS, "--filter=passes"), { passed: 2, failed: [], skipped: [] });
});

Deno.test("counts tests that an error outside of them ended as failed", async () => {
  const source = `
Deno.test("meets an error from elsewhere", () => new Promise(() => {
  setTimeout(() => { throw new Error("elsewhere"); }, 0);
}));`;
  const { failed } = await count(source);
  assertEquals(failed.map(({ name }) => name), ["meets an error from elsewhere"]);
});
