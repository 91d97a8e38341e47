/**
 * What an NBD device promises that cannot be had, and what implementations of such mounts are known
 * to break: attaching that is tried for ever, and looks that never pause.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { close } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { DeadlineError, TelemapError } from "../../lib/backend/errors.ts";
import { attachNbd } from "../../lib/device/nbd.ts";
import { probeNbd } from "../../lib/device/nbd_probe.ts";
import { untilReady } from "../../lib/device/nbd_ready.ts";
import { requiresThat, withReason } from "../requires.ts";
import { VirtualClock } from "../virtual_clock.ts";
import { inTime } from "../in_time.ts";

openLibc();

const MIB = 1 << 20;
/** A device that the kernel has not made, and does not make. */
const NOWHERE = { index: 1 << 20, disconnect: () => Promise.resolve() };

const absent = requiresThat(!probeNbd().available, "an NBD device can be attached here");
Deno.test({
  name: withReason("where no NBD device can be attached, that is told at once", absent),
  ignore: absent.ignore,
  async fn() {
    const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
    const before = descriptors(), served: number[] = [];
    const attaching = attachNbd({
      ...{ size: MIB, readOnly: false },
      serve: (fd) => Promise.resolve(void served.push(fd)),
    });
    const error = await assertRejects(
      () => inTime(attaching),
      Error,
      "Cannot attach an NBD device",
    );
    assert("hint" in error && error.hint !== undefined, error.message);
    served.forEach(close);
    assertEquals(descriptors(), before);
  },
});

Deno.test("an NBD device that gets no size is given up, and not looked at all the time", async () => {
  using clock = new VirtualClock();
  let looks = 0;
  const { setTimeout } = globalThis;
  Object.assign(globalThis, {
    setTimeout: (...call: Parameters<typeof setTimeout>) => (looks++, setTimeout(...call)),
  });
  const control = { ...NOWHERE, ended: new Promise<void>(() => {}) };
  const error = await clock.run(
    assertRejects(() => untilReady(control, MIB, undefined), DeadlineError),
  );
  assertEquals([error.message.includes("nbd1048576"), performance.now() < 10_100], [true, true]);
  assert(looks < 1000, `${looks} looks in 10 s`);
});

Deno.test("an NBD device that the kernel ends instead is told of at once", async () => {
  const control = { ...NOWHERE, ended: Promise.resolve() };
  using clock = new VirtualClock();
  const ready = assertRejects(() => untilReady(control, MIB, undefined), TelemapError, "ended it");
  await clock.run(ready);
  assert(performance.now() < 100, `After ${performance.now()} ms`);
});
