/**
 * A player that opens a far movie whose index is at its end: how long it takes to the first frame on a
 * direct mount, on a managed one, on one that pulls the end first, and with an access profile.
 *
 *     deno run -A examples/far_region/mp4.ts [--frames 8192]
 *
 * It needs root and `/dev/fuse`, or fusermount3.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { type ManagedMountOptions, type Mount, mountDirect, mountManaged } from "../../mod.ts";
import { serveFarAway } from "./serve_far_away.ts";
import { findFrames, type Frame, isFrame, writeMovie } from "./mp4_file.ts";

const LINK = "rtt=25ms&rate=100MB/s";
const FRAME_BYTES = 16 << 10;
/** Frames that are played. */
const PLAYED = 50;
const MIB = 1 << 20;

const args = parseArgs(Deno.args, { string: ["frames"] });
const frames = Number(args.frames ?? 8192);
const directory = await Deno.makeTempDir({ prefix: "telemap-example-" });

/** Plays the beginning of the movie; tells when the first frame was there. */
function play(name: string, { file, size }: Mount): void {
  const start = performance.now();
  const readAt = (buffer: Uint8Array<ArrayBuffer>, offset: number) => {
    file.seekSync(offset, Deno.SeekMode.Start);
    for (let at = 0; at < buffer.length;) {
      const count = file.readSync(buffer.subarray(at));
      if (count === null) throw new Error(`The movie ends before ${offset + buffer.length}`);
      at += count;
    }
  };
  const found = findFrames(readAt, size);
  const show = (frame: Frame) => {
    const bytes = new Uint8Array(frame.length);
    readAt(bytes, frame.offset);
    if (!isFrame(bytes, frame)) throw new Error(`The frame at ${frame.offset} is another one`);
  };
  show(found[0]!);
  const first = performance.now() - start;
  for (const frame of found.slice(1, PLAYED)) show(frame);
  console.log(
    `${name}: first of ${found.length} frames after ${first.toFixed(0)} ms, ` +
      `${Math.min(PLAYED, found.length)} frames after ${(performance.now() - start).toFixed(0)} ms`,
  );
}

async function playManaged(
  name: string,
  remote: string,
  options: Partial<ManagedMountOptions>,
): Promise<void> {
  const local = `file:${await Deno.makeTempDir({ dir: directory })}/cache`;
  await using mount = await mountManaged({ remote, local, device: "fuse", as: "file", ...options });
  play(name, mount);
}

try {
  const path = `${directory}/movie.mp4`;
  await writeMovie(path, { frames, frameBytes: FRAME_BYTES });
  const { size } = await Deno.stat(path);
  await using remote = await serveFarAway(`file:${path}?readonly`, LINK);
  {
    await using mount = await mountDirect({ backend: remote.url, device: "fuse", as: "file" });
    play("direct", mount);
  }
  await playManaged("managed", remote.url, {});
  const end = Math.min(MIB, size);
  const pullPriority = [{ offset: size - end, length: end }, { offset: 0, length: end }];
  await playManaged("managed, end first", remote.url, { pullPriority });
  const profile = `${directory}/profile`;
  await playManaged("managed, recording a profile", remote.url, { profile });
  await playManaged("managed, with that profile", remote.url, { profile });
} finally {
  await Deno.remove(directory, { recursive: true });
}
