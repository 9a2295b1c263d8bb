//! x86-64.

use libc::{ucontext_t, user_regs_struct};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Bytes of address space that a program has unless it asks for more (TASK_SIZE_MAX in arch/x86/include/asm/page_64.h).
pub const ADDRESSES: u64 = 1 << 47;

/// open(2), where there is such a call besides openat(2).
pub const OPEN: Option<libc::c_long> = Some(libc::SYS_open);

/// vfork(2), where there is such a call besides clone(2).
pub const VFORK: Option<libc::c_long> = Some(libc::SYS_vfork);

/// The instruction that calls the kernel: `syscall`.
pub const SYSTEM_CALL: [u8; 2] = [0x0f, 0x05];

/// What lies where a thread is to make its calls: that instruction, and such as nobody can go on by (`ud2`).
pub const INSTRUCTIONS: [u8; 8] = [0x0f, 0x05, 0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b];

/// What lies there besides, at [`SEQUENCE_AT`]: a thread maps the page of a pin's parameters, issues the request, leaves its
/// result at [`RESULT_AT`] of the page, puts an empty page in its place, which is seen to have come about by its address and cannot be
/// pretended by a filter of the program's, unmaps that, and ends. At whatever goes otherwise it stands still (`ud2`). It begins
/// with the registers of [`Registers::issuing`].
pub const SEQUENCE: [u8; 97] = [
    0x0f, 0x05, // syscall
    0x48, 0x39, 0xd8, // cmp rax, rbx
    0x75, 0x56, // jne to the end
    0x4c, 0x89, 0xe7, // mov rdi, r12
    0x4c, 0x89, 0xee, // mov rsi, r13
    0x48, 0x89, 0xda, // mov rdx, rbx
    0x45, 0x31, 0xd2, // xor r10d, r10d
    0x45, 0x31, 0xc0, // xor r8d, r8d
    0x45, 0x31, 0xc9, // xor r9d, r9d
    0xb8, 0x10, 0x00, 0x00, 0x00, // mov eax, SYS_ioctl
    0x0f, 0x05, // syscall
    0x48, 0x89, 0x83, 0xf8, 0x0f, 0x00, 0x00, // mov [rbx + RESULT_AT], rax
    0x48, 0x89, 0xdf, // mov rdi, rbx
    0xbe, 0x00, 0x10, 0x00, 0x00, // mov esi, PAGE
    0x31, 0xd2, // xor edx, edx: PROT_NONE
    0x41, 0xba, 0x32, 0x40, 0x00,
    0x00, // mov r10d, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
    0x49, 0x83, 0xc8, 0xff, // or r8, -1
    0x45, 0x31, 0xc9, // xor r9d, r9d
    0xb8, 0x09, 0x00, 0x00, 0x00, // mov eax, SYS_mmap
    0x0f, 0x05, // syscall
    0x48, 0x39, 0xd8, // cmp rax, rbx
    0x75, 0x13, // jne to the end
    0x48, 0x89, 0xdf, // mov rdi, rbx
    0xb8, 0x0b, 0x00, 0x00, 0x00, // mov eax, SYS_munmap
    0x0f, 0x05, // syscall
    0x31, 0xff, // xor edi, edi
    0xb8, 0x3c, 0x00, 0x00, 0x00, // mov eax, SYS_exit
    0x0f, 0x05, // syscall
    0x0f, 0x0b, // ud2
    0x0f, 0x0b, // ud2
];
pub const SEQUENCE_AT: usize = 16;
pub const RESULT_AT: usize = PAGE as usize - 8;

/// The bit of `eflags` by which the processor traps after each instruction.
const TRAP_FLAG: u64 = 1 << 8;

/// Bytes of [`SYSTEM_CALL`].
const LENGTH: u64 = SYSTEM_CALL.len() as u64;

/// The registers of a traced thread that has stopped.
#[derive(Clone, Copy)]
pub struct Registers(user_regs_struct);

impl Registers {
    /// What ptrace(2) says, `ESRCH` for instance.
    pub fn of(thread: Pid) -> Result<Registers, Errno> {
        ptrace::getregs(thread).map(Registers)
    }

    /// Lets `thread` go on with these. Fails as ptrace(2) does.
    pub fn give(self, thread: Pid) -> Result<(), Errno> {
        ptrace::setregs(thread, self.0)
    }

    /// Where the instruction lies by which the thread called the kernel, if it stands behind one.
    pub fn instruction(&self) -> u64 {
        self.0.rip.wrapping_sub(LENGTH)
    }

    /// These, but for what has the thread make a system call by the instruction at this address.
    pub fn calling(
        mut self,
        instruction: u64,
        number: libc::c_long,
        arguments: [u64; 6],
    ) -> Registers {
        let calling = &mut self.0;
        calling.rip = instruction;
        calling.rax = number as u64;
        // No trap after each instruction, if the program had itself single-stepped.
        calling.eflags &= !TRAP_FLAG;
        // Not in a system call: else the kernel might take it for one to be restarted.
        calling.orig_rax = u64::MAX;
        [
            calling.rdi,
            calling.rsi,
            calling.rdx,
            calling.r10,
            calling.r8,
            calling.r9,
        ] = arguments;
        self
    }

    /// These, but for what has the thread execute the [`SEQUENCE`] of the code at this address: it makes `mapping`, the
    /// arguments of mmap(2), and the request of these numbers on that.
    pub fn issuing(self, code: u64, mapping: [u64; 6], descriptor: u64, command: u64) -> Registers {
        let sequence = code + SEQUENCE_AT as u64;
        let mut issuing = self.calling(sequence, libc::SYS_mmap, mapping);
        [issuing.0.rbx, issuing.0.r12, issuing.0.r13] = [mapping[0], descriptor, command];
        issuing
    }

    /// Whether a thread that has stopped at the entry to a system call makes this one, by the instruction at this address.
    pub fn makes(&self, instruction: u64, number: libc::c_long, arguments: [u64; 6]) -> bool {
        let made = &self.0;
        made.rip == instruction.wrapping_add(LENGTH)
            && made.orig_rax == number as u64
            && [made.rdi, made.rsi, made.rdx, made.r10, made.r8, made.r9] == arguments
    }

    /// What the system call returned that the thread stands behind.
    pub fn result(&self) -> i64 {
        self.0.rax as i64
    }

    /// These, but with `result` as what the system call returned, which is not made anew.
    pub fn returning(mut self, result: i64) -> Registers {
        self.0.rax = result as u64;
        self.0.orig_rax = u64::MAX;
        self
    }
}

/// The number and the first argument of the system call that a thread makes if what it executes next is [`SYSTEM_CALL`].
pub fn call_of(interrupted: &ucontext_t) -> (libc::c_long, u64) {
    let number = register(interrupted, libc::REG_RAX);
    (number, register(interrupted, libc::REG_RDI) as u64)
}

/// Where the instruction lies that the thread executes next.
pub fn next_of(interrupted: &ucontext_t) -> *const [u8; SYSTEM_CALL.len()] {
    register(interrupted, libc::REG_RIP) as *const _
}

/// Takes the thread past the system call that it executes next, as if the kernel had returned `result`.
pub fn pass_call(interrupted: &mut ucontext_t, result: i64) {
    let registers = &mut interrupted.uc_mcontext.gregs;
    registers[libc::REG_RAX as usize] = result;
    registers[libc::REG_RIP as usize] += SYSTEM_CALL.len() as i64;
}

fn register(interrupted: &ucontext_t, index: libc::c_int) -> i64 {
    interrupted.uc_mcontext.gregs[index as usize]
}
