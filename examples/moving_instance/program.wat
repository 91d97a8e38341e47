;; A to-do list, and Conway's Game of Life on a torus of 512 by 512 cells, which goes on beside it.
;; Made into program.wasm by `wat2wasm program.wat`.
;;
;; memory: 256 items of 128 bytes (done, length, text) | at 32768: text of the next item |
;;         at 65536: cells, a byte each | at 327680: the other cells
(module
  (memory (export "memory") 9)
  (global $items (export "items") (mut i32) (i32.const 0))
  (global $generation (export "generation") (mut i64) (i64.const 0))
  ;; Where the present cells lie, and where the next ones are put.
  (global $now (export "now") (mut i32) (i32.const 65536))
  (global $next (export "next") (mut i32) (i32.const 327680))

  ;; Adds an item whose text lies at 32768; answers its number, or -1 where the list is full.
  (func (export "add") (param $length i32) (result i32)
    (local $at i32)
    (if (i32.or (i32.ge_u (global.get $items) (i32.const 256))
                (i32.gt_u (local.get $length) (i32.const 126)))
      (then (return (i32.const -1))))
    (local.set $at (i32.mul (global.get $items) (i32.const 128)))
    (i32.store8 offset=0 (local.get $at) (i32.const 0))
    (i32.store8 offset=1 (local.get $at) (local.get $length))
    (memory.copy (i32.add (local.get $at) (i32.const 2)) (i32.const 32768) (local.get $length))
    (global.set $items (i32.add (global.get $items) (i32.const 1)))
    (i32.sub (global.get $items) (i32.const 1)))

  ;; Marks an item as done.
  (func (export "finish") (param $item i32)
    (if (i32.lt_u (local.get $item) (global.get $items))
      (then (i32.store8 (i32.mul (local.get $item) (i32.const 128)) (i32.const 1)))))

  ;; Whether a cell lives, 0 or 1; both coordinates wrap.
  (func $cell (param $x i32) (param $y i32) (result i32)
    (i32.load8_u (i32.add (global.get $now)
      (i32.or (i32.shl (i32.and (local.get $y) (i32.const 511)) (i32.const 9))
              (i32.and (local.get $x) (i32.const 511))))))

  (func $row (param $x i32) (param $y i32) (result i32)
    (i32.add (call $cell (i32.sub (local.get $x) (i32.const 1)) (local.get $y))
      (i32.add (call $cell (local.get $x) (local.get $y))
               (call $cell (i32.add (local.get $x) (i32.const 1)) (local.get $y)))))

  ;; Makes a generation of the one before.
  (func (export "step")
    (local $x i32) (local $y i32) (local $around i32) (local $cells i32)
    (loop $rows
      (local.set $x (i32.const 0))
      (loop $columns
        ;; With the cell itself: 3 live, 4 stay as they are, all others die.
        (local.set $around (i32.add
          (call $row (local.get $x) (i32.sub (local.get $y) (i32.const 1)))
          (i32.add (call $row (local.get $x) (local.get $y))
                   (call $row (local.get $x) (i32.add (local.get $y) (i32.const 1))))))
        (i32.store8
          (i32.add (global.get $next)
            (i32.or (i32.shl (local.get $y) (i32.const 9)) (local.get $x)))
          (i32.or (i32.eq (local.get $around) (i32.const 3))
            (i32.and (i32.eq (local.get $around) (i32.const 4))
                     (call $cell (local.get $x) (local.get $y)))))
        (local.set $x (i32.add (local.get $x) (i32.const 1)))
        (br_if $columns (i32.lt_u (local.get $x) (i32.const 512))))
      (local.set $y (i32.add (local.get $y) (i32.const 1)))
      (br_if $rows (i32.lt_u (local.get $y) (i32.const 512))))
    (local.set $cells (global.get $now))
    (global.set $now (global.get $next))
    (global.set $next (local.get $cells))
    (global.set $generation (i64.add (global.get $generation) (i64.const 1)))))
