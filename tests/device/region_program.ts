/**
 * A program whose memory a handler pages in by `registerRegion`. It answers each line of its
 * standard input with one line:
 *
 *     deno run -A region_program.ts SOCKET FILE OFFSET SIZE wait|poison
 *
 *     check FROM TO STEP   touch a byte in every STEP between, compare them with those of FILE
 *     state                the state, and those that were told of before
 *     close                close the region, and tell how many bytes are left
 *
 * @module
 */
import { TextLineStream } from "@std/streams";
import { type HandlerLoss, registerRegion } from "../../mod.ts";

const [socket, path, offset, size, onHandlerLoss] = Deno.args as [
  string,
  string,
  string,
  string,
  HandlerLoss,
];
const expected = Deno.readFileSync(path).subarray(Number(offset));
const told: string[] = [];

try {
  const region = await registerRegion({
    socket,
    offset: Number(offset),
    size: Number(size),
    onHandlerLoss,
    onState: (state) => told.push(state),
  });
  console.log(region.state);
  const { bytes } = region;

  const check = (from: number, to: number, step: number): string => {
    for (let at = from; at < to; at += step) {
      if (bytes[at] !== expected[at]) return `differs at ${at}`;
    }
    return "equal";
  };

  const obey = async (line: string): Promise<string> => {
    const [command, ...numbers] = line.split(" ");
    const [from = 0, to = 0, step = 1] = numbers.map(Number);
    if (command === "check") return check(from, to, step);
    if (command === "close") {
      await region.close();
      await region.close();
      return `${bytes.length} ${region.bytes.length} ${region.state} ${told}`;
    }
    return `${region.state} ${told}`;
  };

  const lines = Deno.stdin.readable
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream());
  for await (const line of lines) console.log(await obey(line));
} catch (error) {
  console.log(`${error}`);
}
