;; The Wasm form of the demo's program: vessel.c, compiled, as few compilers that rustc links with make Wasm.
;; Made with clang 14, lld 14 and wabt 1.0.32 (Debian 12), in this folder, where WASM names a temporary file:
;; $ clang --target=wasm32 -std=c11 -Oz -ffreestanding -nostdlib -o "$WASM" vessel.c && wasm2wat "$WASM"
(module
  (type (;0;) (func (param i32 i32) (result i32)))
  (type (;1;) (func (param i32 i32 i32 i32) (result i32)))
  (type (;2;) (func (param i32)))
  (type (;3;) (func))
  (type (;4;) (func (param i32 i32)))
  (type (;5;) (func (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (type 0)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (type 0)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (type 1)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (type 2)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (type 1)))
  (func $_start (type 3)
    (local i32)
    global.get $__stack_pointer
    i32.const 16
    i32.sub
    local.tee 0
    global.set $__stack_pointer
    block  ;; label = @1
      block  ;; label = @2
        local.get 0
        i32.const 12
        i32.add
        local.get 0
        i32.const 8
        i32.add
        call $args_sizes_get
        br_if 0 (;@2;)
        local.get 0
        i32.load offset=12
        i32.const 256
        i32.gt_u
        br_if 0 (;@2;)
        local.get 0
        i32.load offset=8
        i32.const 16384
        i32.gt_u
        br_if 0 (;@2;)
        i32.const 1248
        i32.const 2272
        call $args_get
        i32.eqz
        br_if 1 (;@1;)
      end
      i32.const 2
      i32.const 1067
      call $print
      i32.const 2
      call $end
      unreachable
    end
    local.get 0
    i32.load offset=12
    call $vessel
    call $end
    unreachable)
  (func $print (type 4) (param i32 i32)
    (local i32 i32 i32 i32)
    global.get $__stack_pointer
    i32.const 16
    i32.sub
    local.tee 2
    global.set $__stack_pointer
    i32.const 0
    local.set 3
    loop  ;; label = @1
      local.get 1
      local.get 3
      i32.add
      local.set 4
      local.get 3
      i32.const 1
      i32.add
      local.tee 5
      local.set 3
      local.get 4
      i32.load8_u
      br_if 0 (;@1;)
    end
    local.get 5
    i32.const -1
    i32.add
    local.set 3
    block  ;; label = @1
      block  ;; label = @2
        loop  ;; label = @3
          local.get 3
          i32.eqz
          br_if 1 (;@2;)
          local.get 2
          local.get 3
          i32.store offset=12
          local.get 2
          local.get 1
          i32.store offset=8
          local.get 2
          i32.const 0
          i32.store offset=4
          local.get 0
          local.get 2
          i32.const 8
          i32.add
          i32.const 1
          local.get 2
          i32.const 4
          i32.add
          call $fd_write
          br_if 2 (;@1;)
          local.get 3
          local.get 2
          i32.load offset=4
          local.tee 4
          i32.sub
          local.set 3
          local.get 1
          local.get 4
          i32.add
          local.set 1
          br 0 (;@3;)
        end
      end
      local.get 2
      i32.const 16
      i32.add
      global.set $__stack_pointer
      return
    end
    i32.const 1
    call $end
    unreachable)
  (func $end (type 2) (param i32)
    local.get 0
    call $proc_exit
    unreachable)
  (func $vessel (type 5) (param i32) (result i32)
    (local i32 i32)
    global.get $__stack_pointer
    i32.const 16
    i32.sub
    local.tee 1
    global.set $__stack_pointer
    block  ;; label = @1
      block  ;; label = @2
        block  ;; label = @3
          local.get 0
          i32.const 1
          i32.gt_u
          br_if 0 (;@3;)
          i32.const 1
          i32.const 1158
          call $print
          br 1 (;@2;)
        end
        block  ;; label = @3
          block  ;; label = @4
            i32.const 0
            i32.load offset=1252
            local.tee 2
            i32.const 1039
            call $is
            br_if 0 (;@4;)
            local.get 2
            i32.const 1034
            call $is
            br_if 1 (;@3;)
            block  ;; label = @5
              local.get 2
              i32.const 1024
              call $is
              i32.eqz
              br_if 0 (;@5;)
              i32.const 1
              i32.const 1095
              call $print
              loop  ;; label = @6
                i32.const 1200
                i32.const 18656
                i32.const 1
                local.get 1
                i32.const 12
                i32.add
                call $poll_oneoff
                i32.eqz
                br_if 0 (;@6;)
              end
              i32.const 1
              call $end
              unreachable
            end
            block  ;; label = @5
              local.get 2
              i32.const 1029
              call $is
              i32.eqz
              br_if 0 (;@5;)
              local.get 0
              i32.const -2
              i32.add
              local.set 0
              i32.const 1256
              local.set 2
              loop  ;; label = @6
                local.get 0
                i32.eqz
                br_if 4 (;@2;)
                i32.const 1
                local.get 2
                i32.load
                call $print
                i32.const 1
                i32.const 1191
                call $print
                local.get 2
                i32.const 4
                i32.add
                local.set 2
                local.get 0
                i32.const -1
                i32.add
                local.set 0
                br 0 (;@6;)
              end
            end
            i32.const 2
            local.set 0
            i32.const 2
            i32.const 1104
            call $print
            br 3 (;@1;)
          end
          call $hog
          unreachable
        end
        call $spin
        unreachable
      end
      i32.const 0
      local.set 0
    end
    local.get 1
    i32.const 16
    i32.add
    global.set $__stack_pointer
    local.get 0)
  (func $is (type 0) (param i32 i32) (result i32)
    (local i32 i32)
    block  ;; label = @1
      loop  ;; label = @2
        local.get 1
        i32.load8_u
        local.set 2
        local.get 0
        i32.load8_u
        local.tee 3
        i32.eqz
        br_if 1 (;@1;)
        local.get 3
        local.get 2
        i32.const 255
        i32.and
        i32.ne
        br_if 1 (;@1;)
        local.get 1
        i32.const 1
        i32.add
        local.set 1
        local.get 0
        i32.const 1
        i32.add
        local.set 0
        br 0 (;@2;)
      end
    end
    local.get 3
    local.get 2
    i32.const 255
    i32.and
    i32.eq)
  (func $hog (type 3)
    (local i32 i32)
    block  ;; label = @1
      loop  ;; label = @2
        i32.const 16
        memory.grow
        local.tee 0
        i32.const -1
        i32.eq
        br_if 1 (;@1;)
        local.get 0
        i32.const 16
        i32.shl
        local.tee 1
        i32.eqz
        br_if 1 (;@1;)
        i32.const 0
        local.set 0
        loop  ;; label = @3
          local.get 0
          i32.const 1048575
          i32.gt_u
          br_if 1 (;@2;)
          local.get 1
          local.get 0
          i32.add
          i32.const 1
          i32.store8
          local.get 0
          i32.const 4096
          i32.add
          local.set 0
          br 0 (;@3;)
        end
      end
    end
    i32.const 2
    i32.const 1043
    call $print
    unreachable
    unreachable)
  (func $spin (type 3)
    (local i32)
    global.get $__stack_pointer
    i32.const 16
    i32.sub
    local.tee 0
    i32.const 0
    i32.store offset=12
    loop  ;; label = @1
      local.get 0
      local.get 0
      i32.load offset=12
      i32.const 1
      i32.add
      i32.store offset=12
      br 0 (;@1;)
    end)
  (memory (;0;) 2)
  (global $__stack_pointer (mut i32) (i32.const 84224))
  (export "memory" (memory 0))
  (export "_start" (func $_start))
  (data $.rodata (i32.const 1024) "wait\00args\00spin\00hog\00vessel: no more memory\0a\00vessel: too many arguments\0a\00waiting\0a\00usage: vessel [hog | spin | wait | args ARGUMENT...]\0a\00Hello from a vessel of Wasm code.\0a\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\00O\91\94N\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"))
