/**
 * The remote of a managed mount goes away in the middle of copies out of it and into it, and comes
 * back: both end, and nothing is lost.
 *
 * TELEMAP_OUTAGE_SECONDS sets how long it is away.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { requires, withReason } from "../requires.ts";
import { shell, temporaryDirectory, until } from "./command.ts";
import { startManagedMount, startServer } from "./served_region.ts";

const OUTAGE_SECONDS = Number(Deno.env.get("TELEMAP_OUTAGE_SECONDS") ?? 20);
const MIB = 1 << 20;
const HALF = 128 * MIB;
const needs = requires("root", "/dev/fuse");

Deno.test({
  name: withReason("copies go on over an outage of the remote, and nothing is lost", needs),
  ignore: needs.ignore,
  async fn() {
    using directory = temporaryDirectory();
    const { path: at } = directory, region = `${at}/region`;
    await shell(`head -c ${2 * HALF} /dev/urandom > ${region}`);
    await shell(`head -c ${HALF} /dev/urandom > ${at}/new; cp ${region} ${at}/before`);
    const { process: server, url } = await startServer(`file:${region}`);
    await using _server = server;
    // So slow that most of it is not even asked for when the remote goes away.
    const remote = `delay:${url}#rtt=5ms&rate=64MB/s`;
    const mount = await startManagedMount(remote, `file:${at}/cache`, "fuse");
    await using _mount = mount.process;

    const out = shell(`dd if=${mount.path} of=${at}/out bs=1M count=${HALF / MIB} 2>&1`);
    await until(() => sizeOf(`${at}/out`) >= HALF / 8, "the first bytes of the copy");
    await server[Symbol.asyncDispose]();
    const away = new Promise((resolve) => setTimeout(resolve, OUTAGE_SECONDS * 1000));
    assert(sizeOf(`${at}/out`) < HALF, "the copy was over before the outage");
    const options = `bs=1M seek=${HALF / MIB} conv=notrunc,fsync`;
    // What is written is whole chunks: on this host's disk, and so promised, with no remote.
    await shell(`dd if=${at}/new of=${mount.path} ${options} 2>&1`);
    await away;
    assert(sizeOf(`${at}/out`) < HALF, "the copy needed no remote");

    const { process: again } = await startServer(`file:${region}`, url);
    await using _again = again;
    await out;
    await shell(`cmp -n ${HALF} ${at}/out ${at}/before`);
    mount.process.kill("SIGTERM");
    const { code, events } = await mount.process.end();
    assertEquals({ code, last: events.at(-1) }, { code: 0, last: { event: "closed" } });
    await shell(`cmp -n ${HALF} ${region} ${at}/before`);
    await shell(`tail -c ${HALF} ${region} | cmp - ${at}/new`);
  },
});

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}
