/**
 * Runs the tests of `inside/` in one virtual machine, and reports each as a step.
 */
import { assert } from "@std/assert";
import { OpenCopy } from "../other_user.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { runInVm, whyNoVm } from "./vm.ts";

/** Seconds for all of them; the emulated processor is slow, and this host's may be shared. */
const TIMEOUT = 1200;

interface InnerTest {
  name: string;
  passed: boolean;
}

const reason = await whyNoVm();
const vm = requiresAll(
  requiresThat(reason === undefined, reason ?? ""),
  requires("mkfs.ext4", "losetup", "nbd-client", "sqlite3", "stdbuf"),
);

Deno.test({
  name: withReason("in a virtual machine", vm),
  ignore: vm.ignore,
  fn: async (context) => {
    const inside = new URL("inside/", import.meta.url).pathname;
    // The last test of nbd_device.ts takes the module out.
    const names = ["userfault_tracking", "userfault", "nbd_mount", "nbd_migration", "nbd_device"];
    const files = names.map((name) => `${inside}${name}.ts`);
    const command = [Deno.execPath(), "test", "-A", "--no-check", "--reporter=tap", ...files];
    using copy = new OpenCopy();
    const { code, stdout, console: kernel } = await runInVm(command, {
      timeout: TIMEOUT,
      environment: { TELEMAP_OPEN_COPY: copy.path },
    });
    const tests = parseTap(stdout);
    for (const { name, passed } of tests) {
      await context.step(name, () => assert(passed, "it failed inside; see the output below"));
    }
    for (const [, note] of stdout.matchAll(/^# note: (.*)$/gm)) console.log(note);
    if (code !== 0) console.log(`${stdout}\n${kernel}`);
    assert(code === 0 && tests.length > 0, `the tests inside ended with exit code ${code}`);
  },
});

/** The tests in TAP version 14, as `deno test --reporter=tap` writes it. */
function parseTap(output: string): InnerTest[] {
  return [...output.matchAll(/^(not )?ok \d+ - (.*)$/gm)]
    .map(([, not, name]) => ({ name: name!, passed: not === undefined }));
}
