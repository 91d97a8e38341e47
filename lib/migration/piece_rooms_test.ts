import { assertEquals } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { PIECE_BYTES } from "./message_codec.ts";
import { PieceRooms } from "./piece_rooms.ts";

openLibc();

for (const prepared of [0, 5, 100]) {
  Deno.test(`every piece has room of its own where ${prepared} were prepared`, () => {
    const rooms = new PieceRooms();
    rooms.prepare(prepared);
    const taken = Array.from({ length: 70 }, () => rooms.take());
    const places = taken.map(({ buffer, byteOffset, length }) => {
      assertEquals([length, byteOffset % PIECE_BYTES], [PIECE_BYTES, 0]);
      return { buffer, byteOffset };
    });
    const different = places.filter(({ buffer, byteOffset }, index) =>
      places.findIndex((one) => one.buffer === buffer && one.byteOffset === byteOffset) === index
    );
    assertEquals(different.length, 70);
  });
}
