"""Instructions, memory and races of the emulator, by hand-written PTX; nothing here needs Triton."""

import struct

import numpy as np
import pytest
import torch

from emulator.machine import Machine
from emulator.memory import POISON
from emulator.translate import translated


def run(body, *tensors, threads=32, programs=1, shared=0):
    """Launch a kernel whose parameters are the addresses of tensors, in %rd1, %rd2 and so on; %r1 is the thread."""
    names = [f"p{k}" for k in range(len(tensors))]
    parameters = ",\n".join(f"\t.param .u64 kernel_param_{k}" for k in range(len(tensors)))
    begin = "\n".join(f"\tld.param.b64 %rd{k + 1}, [kernel_param_{k}];" for k in range(len(tensors)))
    code = f"{begin}\n\tmov.u32 %r1, %tid.x;\n{body}\n\tret;"
    text = f".visible .entry kernel(\n{parameters}\n)\n.reqntid {threads}\n{{\n{code}\n}}\n"
    program, functions = translated(text)
    with np.errstate(all="ignore"):
        machine = Machine(program, (programs, 1, 1), shared, {}, dict(zip(names, tensors, strict=True)))
        for name, tensor in zip(program.parameters, tensors, strict=True):
            machine.parameters[name] = np.uint64(machine.memory.address(tensor))
        result = machine.run(functions)
    machine.memory.give_back()
    return result


OWN = "\tmul.wide.u32 %rd90, %r1, 4;\n\tadd.s64 %rd91, %rd1, %rd90;\n"
"""%rd91 is the address of the thread's number in the first tensor."""


def of_lanes(body, threads=32, **more):
    """What each thread leaves in %r9."""
    out = torch.full((threads,), -7, dtype=torch.int32)
    result = run(f"{OWN}{body}\n\tst.global.b32 [%rd91], %r9;", out, threads=threads, **more)
    assert not result.hazards
    return out.numpy()


def bits(number):
    return f"0f{struct.pack('>f', number).hex().upper()}"


LANE = np.arange(32)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("mul.lo.s32 %r9, %r1, -3;", -3 * LANE),
        ("mul.hi.u32 %r9, %r1, 0x80000001;", (LANE * 0x80000001) >> 32),
        ("bfe.s32 %r9, %r1, 2, 1;", -((LANE >> 2) & 1)),
        ("bfe.u32 %r9, %r1, 1, 3;", (LANE >> 1) & 7),
        ("sub.s32 %r2, %r1, 9; rem.s32 %r9, %r2, 4;", np.fmod(LANE - 9, 4)),
        ("sub.s32 %r2, %r1, 9; div.s32 %r9, %r2, 4;", np.trunc((LANE - 9) / 4).astype(int)),
        ("sub.s32 %r2, %r1, 9; shr.s32 %r9, %r2, 40;", np.where(LANE < 9, -1, 0)),
        ("shl.b32 %r9, %r1, 32;", 0 * LANE),
        ("shfl.sync.bfly.b32 %r9, %r1, 5, 31, -1;", LANE ^ 5),
        ("shfl.sync.up.b32 %r9, %r1, 3, 0, -1;", np.where(LANE < 3, LANE, LANE - 3)),
        ("shfl.sync.idx.b32 %r9, %r1, 7, 31, -1;", 0 * LANE + 7),
        ("redux.sync.add.s32 %r9, %r1, -1;", 0 * LANE + 496),
        ("setp.lt.s32 %p1, %r1, 4; mov.b32 %r9, 1; @%p1 mov.b32 %r9, 2;", np.where(LANE < 4, 2, 1)),
        (f"mov.b32 %r2, 0f7FC00000; setp.geu.f32 %p1, %r2, {bits(1.0)}; selp.b32 %r9, 1, 0, %p1;", 0 * LANE + 1),
        (f"mov.b32 %r2, 0f7FC00000; setp.ge.f32 %p1, %r2, {bits(1.0)}; selp.b32 %r9, 1, 0, %p1;", 0 * LANE),
        (f"mov.b32 %r2, 0f7FC00000; setp.ne.f32 %p1, %r2, {bits(1.0)}; selp.b32 %r9, 1, 0, %p1;", 0 * LANE),
        ("{ .reg .b32 tmp; mov.b64 {tmp, %r2}, %rd1; }\n and.b32 %r9, %r2, 0;", 0 * LANE),
        ("mov.b64 %rd5, {%r1, %r1}; shr.u64 %rd6, %rd5, 31; cvt.u32.u64 %r9, %rd6;", 2 * LANE),
        ("cvt.rn.f32.s32 %r2, %r1; mul.f32 %r3, %r2, 0fBF000000; cvt.rmi.f32.f32 %r4, %r3; cvt.rzi.s32.f32 %r9, %r4;",
         np.floor(-0.5 * LANE).astype(int)),
    ],
)  # fmt: skip
def test_an_instruction(body, expected):
    assert of_lanes(body).tolist() == expected.tolist()


def test_a_sum_of_products_is_rounded_once():
    x = 1.0 + 2.0**-30
    out = torch.zeros(1, dtype=torch.float64)
    bits64 = [f"0d{struct.pack('>d', v).hex().upper()}" for v in (x, x, -1.0 - 2.0**-29)]
    run(f"fma.rn.f64 %rd9, {', '.join(bits64)}; st.global.b64 [%rd1], %rd9;", out)
    assert float(out[0]) == 2.0**-60


def test_threads_that_part_meet_again():
    body = """
    mov.b32 %r9, 0;
    and.b32 %r2, %r1, 3;
$loop:
    setp.eq.s32 %p1, %r2, 0;
    @%p1 bra $end;
    add.s32 %r9, %r9, %r1;
    sub.s32 %r2, %r2, 1;
    bra.uni $loop;
$end:
    shfl.sync.bfly.b32 %r9, %r9, 0, 31, -1;"""
    assert of_lanes(body).tolist() == (LANE * (LANE & 3)).tolist()


def fragments():
    """A [16, 8], B [8, 8] and C [16, 8] with numbers that tf32 holds, and the matrix instruction's result."""
    rng = np.random.default_rng(0)
    return [rng.integers(-8, 8, shape).astype(np.float32) for shape in ((16, 8), (8, 8), (16, 8))]


def test_a_product_of_a_tensor_core():
    A, B, C = fragments()
    given = [torch.from_numpy(t) for t in (A, B, C)]
    D = torch.zeros(16, 8)
    body = """
    shr.u32 %r2, %r1, 2;
    and.b32 %r3, %r1, 3;
    mad.lo.s32 %r4, %r2, 32, 0;
    shl.b32 %r5, %r3, 2;
    add.s32 %r6, %r4, %r5;
    cvt.u64.u32 %rd10, %r6;
    add.s64 %rd11, %rd1, %rd10;
    ld.global.b32 %r10, [%rd11];
    ld.global.b32 %r11, [%rd11+256];
    ld.global.b32 %r12, [%rd11+16];
    ld.global.b32 %r13, [%rd11+272];
    mad.lo.s32 %r7, %r3, 32, 0;
    shl.b32 %r8, %r2, 2;
    add.s32 %r6, %r7, %r8;
    cvt.u64.u32 %rd10, %r6;
    add.s64 %rd12, %rd2, %rd10;
    ld.global.b32 %r14, [%rd12];
    ld.global.b32 %r15, [%rd12+128];
    add.s32 %r5, %r5, %r5;
    add.s32 %r6, %r4, %r5;
    cvt.u64.u32 %rd10, %r6;
    add.s64 %rd13, %rd3, %rd10;
    add.s64 %rd14, %rd4, %rd10;
    ld.global.v2.b32 {%r20, %r21}, [%rd13];
    ld.global.v2.b32 {%r22, %r23}, [%rd13+256];
    MMA {%r24, %r25, %r26, %r27}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r20, %r21, %r22, %r23};
    st.global.v2.b32 [%rd14], {%r24, %r25};
    st.global.v2.b32 [%rd14+256], {%r26, %r27};"""
    result = run(body.replace("MMA", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"), *given, D)
    assert not result.hazards
    assert np.array_equal(D.numpy(), A @ B + C)
    assert result.instructions["tensor core"] == 1
    assert result.traffic["global"] == {"loaded": 4 * (128 + 64 + 128), "stored": 4 * 128}


def reversed_in_shared(barrier, threads=64):
    """Threads give a number to the one opposite of them, through shared memory."""
    body = f"""
    shl.b32 %r2, %r1, 2;
    st.shared.b32 [%r2], %r1;
    {barrier}
    sub.s32 %r3, {threads - 1}, %r1;
    shl.b32 %r3, %r3, 2;
    ld.shared.b32 %r9, [%r3];
    {OWN}
    st.global.b32 [%rd91], %r9;"""
    out = torch.zeros(threads, dtype=torch.int32)
    return run(body, out, threads=threads, shared=4 * threads), out


def kinds(result):
    return {hazard.kind for hazard in result.hazards}


def test_a_barrier_makes_the_difference():
    result, out = reversed_in_shared("bar.sync 0;")
    assert not result.hazards
    assert out.tolist() == list(range(63, -1, -1))
    assert result.barriers == {0: 1}
    assert kinds(reversed_in_shared("")[0]) == {"race within a program"}
    assert not reversed_in_shared("", threads=32)[0].hazards  # a warp is in step


def test_programs_that_share_a_word():
    out = torch.zeros(32, dtype=torch.int32)
    assert kinds(run(f"{OWN} st.global.b32 [%rd91], %r1;", out, programs=2)) == {"race between programs"}
    assert not run(f"{OWN} ld.global.b32 %r2, [%rd91];", out, programs=2).hazards
    first = f"{OWN} mov.u32 %r2, %ctaid.x; setp.eq.s32 %p1, %r2, 0; @%p1 st.global.b32 [%rd91], %r1;"
    assert not run(first, out, programs=2).hazards
    assert kinds(run(f"{first} ld.global.b32 %r3, [%rd91];", out, programs=2)) == {"race between programs"}


def test_two_values_for_one_word():
    out = torch.zeros(32, dtype=torch.int32)
    assert kinds(run("st.global.b32 [%rd1], %r1;", out)) == {"different values stored in one word"}
    assert not run("st.global.b32 [%rd1], 3;", out).hazards


def test_what_is_out_of_bounds_not_written_or_not_aligned():
    out = torch.zeros(31, dtype=torch.int32)
    assert kinds(run(f"{OWN} st.global.b32 [%rd91], %r1;", out)) == {"access out of bounds"}
    assert out.tolist() == list(range(31))
    assert kinds(run(f"{OWN} ld.global.b32 %r2, [%rd91+-4];", torch.zeros(32))) == {"access out of bounds"}
    assert kinds(run("ld.shared.b32 %r2, [64];", shared=64)) == {"access out of bounds"}
    assert kinds(run("ld.shared.b32 %r2, [0];", shared=64)) == {"read of what nothing has written"}
    poisoned = torch.from_numpy(np.full(32, POISON, np.uint32).view(np.int32))
    assert kinds(run(f"{OWN} ld.global.b32 %r2, [%rd91];", poisoned)) == {"read of what nothing has written"}
    assert kinds(run("ld.global.v2.b32 {%r2, %r3}, [%rd1+4];", torch.zeros(32))) == {"misaligned access"}


def copied(wait="cp.async.wait_group 0;", barrier="bar.sync 0;", between="", threads=64):
    """A copy to shared memory that the opposite thread reads."""
    body = f"""
    shl.b32 %r2, %r1, 2;
    {OWN}
    cp.async.ca.shared.global [%r2], [%rd91], 0x4, 4;
    cp.async.commit_group;
    {between}
    {wait}
    {barrier}
    sub.s32 %r3, {threads - 1}, %r1;
    shl.b32 %r3, %r3, 2;
    ld.shared.b32 %r9, [%r3];
    mul.wide.u32 %rd5, %r1, 4;
    add.s64 %rd6, %rd2, %rd5;
    st.global.b32 [%rd6], %r9;"""
    source, out = torch.arange(threads, dtype=torch.int32), torch.zeros(threads, dtype=torch.int32)
    return run(body, source, out, threads=threads, shared=4 * threads), out


def test_an_asynchronous_copy():
    result, out = copied()
    assert not result.hazards
    assert out.tolist() == list(range(63, -1, -1))
    unfinished = {"read of what nothing has written", "copy that nothing waited for"}
    assert kinds(copied(wait="")[0]) == unfinished
    assert kinds(copied(wait="cp.async.wait_group 1;")[0]) == unfinished
    assert kinds(copied(barrier="")[0]) == {"race within a program"}
    stored = copied(between="st.shared.b32 [%r2], 1;")[0]
    assert "store in the target of a copy before its end" in kinds(stored)


def test_a_barrier_that_some_threads_pass_by():
    body = "setp.lt.s32 %p1, %r1, 32;\n@%p1 bra $end;\nbar.sync 0;\n$end:\n"
    assert kinds(run(body, threads=64)) == {"barrier that not all threads reach"}


def test_an_instruction_that_is_not_known_is_an_error():
    with pytest.raises(NotImplementedError, match="popc"):
        run("popc.b32 %r2, %r1;")
