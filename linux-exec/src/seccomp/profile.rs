//! What a filter is to do, as the OCI runtime-spec's `linux.seccomp` and libseccomp's profiles say it.
//!
//! A call is judged so:
//! 1. By its convention: one that belongs to none of the profile's architectures ends the thread (SIGSYS), as with libseccomp;
//!    x32 calls are a convention of their own. The number -1, by which a tracer skips a call, gets the default action.
//! 2. Rules whose action is the default one count for nothing, as with runc and crun.
//! 3. A rule without conditions decides over all others for that call; the first one, if there are several.
//! 4. Else the first rule of which all conditions hold. (libseccomp leaves open which one, where actions differ.)
//! 5. Else, with [`Profile::newer_are_unknown`], ENOSYS for numbers above all that the rules name, if they name any; else the
//!    default action.
//!
//! Arguments are compared as 64-bit numbers without sign. The kernel itself looks at 32 bits of some of them, so that a rule
//! which refuses one value lets the same value with a higher bit pass: a rule that allows is the safe one.
//!
//! Source: the runtime-spec's config-linux.md, seccomp_rule_add(3), runc's libcontainer/seccomp.

use super::{Filter, compile, numbers};

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For calls that no rule decides.
    pub default: Action,
    /// Conventions besides the native one in which calls may be made. Those that this machine's processors do not know change nothing.
    pub architectures: Vec<Architecture>,
    /// In order.
    pub rules: Vec<Rule>,
    /// Whether calls that are newer than all in the rules are answered with ENOSYS, by which a C library falls back to older ones,
    /// as runc does where the default refuses.
    pub newer_are_unknown: bool,
    /// How the kernel installs it.
    pub flags: Flags,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes ahead.
    Allow,
    /// It goes ahead, and the kernel's log tells of it.
    Log,
    /// It fails with this error, 0..=4095.
    Errno(u16),
    /// A tracer decides, who is told this number; ENOSYS without one.
    Trace(u16),
    /// The thread gets SIGSYS.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends, by SIGSYS.
    KillProcess,
}

/// Calls and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// On each architecture of the profile that has them.
    pub calls: Vec<Call>,
    /// What becomes of them.
    pub action: Action,
    /// All must hold; none: always. If two are on the same argument, one of all is enough, as with runc and crun.
    pub conditions: Vec<Condition>,
}

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Such as `openat`. The kernel has it, or the rule passes it over.
    Name(String),
    /// On the native architecture.
    Number(u32),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Of the argument, 0..=5.
    pub index: u32,
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// How an argument is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `≠`
    NotEqual,
    /// `<`
    Less,
    /// `≤`
    LessOrEqual,
    /// `>`
    Greater,
    /// `≥`
    GreaterOrEqual,
    /// Only the bits of this mask, of both.
    MaskedEqual(u64),
}

/// A convention for system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 32-bit pointers on 64-bit x86.
    X32,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit Arm.
    Arm,
}

/// seccomp(2), the flags of SECCOMP_SET_MODE_FILTER.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(pub(crate) u32);

impl Flags {
    /// All threads of the process at once.
    pub const TSYNC: Self = Self(1);
    /// What is not allowed is logged.
    pub const LOG: Self = Self(2);
    /// Without the mitigation of Speculative Store Bypass.
    pub const SPEC_ALLOW: Self = Self(4);

    /// These and others.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// Why there is no filter for a profile.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProfileError {
    /// There is no such argument.
    #[error("a condition on argument {0}: expected 0 to 5, as a system call has six")]
    Index(u32),
    /// The kernel would make it another.
    #[error("error number {0}: expected at most 4095")]
    Errno(u16),
    /// The kernel takes no more.
    #[error("the filter would have {0} instructions, and the kernel takes 4096: name fewer calls with conditions")]
    TooLong(usize),
    /// Its process would end before it is the program.
    #[error("no program could begin, as these calls are refused: {}: expected a profile that allows them", .0.join(", "))]
    NoBeginning(Vec<&'static str>),
}

/// What a process calls between its filter and its program, however it is started.
const BEGINNING: [&str; 4] = ["execve", "execveat", "exit_group", "fcntl"];

impl Architecture {
    /// This program's.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// This program's.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// As `struct seccomp_data` names it: `AUDIT_ARCH_*` of linux/audit.h.
    #[must_use]
    pub const fn audit(self) -> u32 {
        use linux_raw_sys::ptrace::{AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64};
        match self {
            Self::X86_64 | Self::X32 => AUDIT_ARCH_X86_64,
            Self::X86 => AUDIT_ARCH_I386,
            Self::Aarch64 => AUDIT_ARCH_AARCH64,
            Self::Arm => AUDIT_ARCH_ARM,
        }
    }

    /// Whether a processor of `native` runs programs of this one.
    pub(super) fn runs_on(self, native: Self) -> bool {
        match native {
            Self::X86_64 => matches!(self, Self::X86_64 | Self::X86 | Self::X32),
            Self::Aarch64 => matches!(self, Self::Aarch64 | Self::Arm),
            Self::X86 | Self::X32 | Self::Arm => self == native,
        }
    }
}

impl Call {
    /// Its number without x32's bit; None where there is none of that name.
    pub(super) fn number(&self, architecture: Architecture, native: Architecture) -> Option<u32> {
        match self {
            Self::Name(name) => numbers::number(architecture, name),
            Self::Number(number) => Some(*number).filter(|_| architecture == native),
        }
    }
}

impl Profile {
    /// The filter.
    ///
    /// # Errors
    /// The profile says what the kernel cannot do, or more than it takes.
    pub fn compile(&self) -> Result<Filter, ProfileError> {
        self.check()?;
        compile::compile(self, Architecture::NATIVE)
    }

    /// Names in the rules that no architecture has, or none that is known here; such rules do nothing.
    #[must_use]
    pub fn unknown_names(&self) -> Vec<&str> {
        let calls = self.rules.iter().flat_map(|rule| &rule.calls);
        calls
            .filter_map(|call| match call {
                Call::Name(name) if !numbers::is_known(name) => Some(name.as_str()),
                Call::Name(_) | Call::Number(_) => None,
            })
            .collect()
    }

    fn check(&self) -> Result<(), ProfileError> {
        for action in self.rules.iter().map(|rule| rule.action).chain([self.default]) {
            match action {
                Action::Errno(errno) if errno > 4095 => return Err(ProfileError::Errno(errno)),
                _ => {}
            }
        }
        let mut conditions = self.rules.iter().flat_map(|rule| &rule.conditions);
        if let Some(found) = conditions.find(|condition| condition.index > 5) {
            return Err(ProfileError::Index(found.index));
        }
        let mut refused = BEGINNING.to_vec();
        refused.retain(|name| compile::never_goes_ahead(self, name, Architecture::NATIVE));
        if refused.is_empty() { Ok(()) } else { Err(ProfileError::NoBeginning(refused)) }
    }
}
