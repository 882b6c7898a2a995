//! Seccomp profiles as Docker and the OCI runtime-spec write them, for `--security-opt seccomp=`.
//!
//! Docker's form has besides the specification's fields `archMap`, and conditions under which a rule counts at all. What is not
//! known here is passed over, as both do, but for what would make the filter another one.
//!
//! Source: the runtime-spec's config-linux.md, moby's profiles/seccomp, runc's libcontainer/specconv and seccomp.

use anyhow::{Context, Result, bail};
use linux_exec::{
    capabilities::CapabilitySet,
    seccomp::profile::{Action, Architecture, Call, Comparison, Condition, Flags, Profile, Rule},
};
use serde::{Deserialize, Serialize};

use super::capabilities;

/// EPERM.
const DEFAULT_ERRNO: u16 = 1;

/// A profile as it was given, and as it is stored with a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architectures: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    syscalls: Option<Vec<Syscalls>>,
}

/// Docker's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscalls {
    /// Docker's, of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<Argument>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    includes: Option<When>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    excludes: Option<When>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Docker's: when a rule counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct When {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arches: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caps: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_kernel: Option<String>,
}

/// What the conditions of a profile ask about.
#[derive(Debug, Clone)]
pub(crate) struct Circumstances {
    /// As the kernel names them, with `CAP_`.
    capabilities: Vec<String>,
    /// Version and patch level of the kernel.
    kernel: (u32, u32),
}

impl Circumstances {
    /// Of a container with these capabilities on this machine.
    pub(crate) fn here(capabilities: CapabilitySet) -> Result<Self> {
        let names = capabilities.names().into_iter();
        let uname = nix::sys::utsname::uname().context("cannot ask for the kernel's version")?;
        let release = uname.release().to_string_lossy();
        let kernel = version(&release).with_context(|| format!("the kernel's version {release} cannot be read"))?;
        let prefixed = names.map(|name| if name.starts_with("CAP_") { name } else { format!("CAP_{name}") });
        Ok(Self { capabilities: prefixed.collect(), kernel })
    }
}

impl SeccompProfile {
    /// Reads a profile, and checks it for this machine.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let profile: Self = serde_json::from_str(text).context(
            "it is no seccomp profile: expected Docker's JSON form, or that of an OCI configuration's linux.seccomp",
        )?;
        profile.lower(&Circumstances::here(capabilities::DOCKER_DEFAULT)?)?.compile()?;
        Ok(profile)
    }

    /// As the kernel's filter is compiled from it.
    pub(crate) fn lower(&self, circumstances: &Circumstances) -> Result<Profile> {
        let default = action(&self.default_action, self.default_errno_ret.unwrap_or(DEFAULT_ERRNO))?;
        let mut rules = Vec::new();
        for syscalls in self.syscalls.iter().flatten() {
            rules.extend(syscalls.rule(circumstances)?);
        }
        let newer_are_unknown = !matches!(default, Action::Allow | Action::Log);
        Ok(Profile { default, architectures: self.architectures()?, rules, newer_are_unknown, flags: self.flags()? })
    }

    fn architectures(&self) -> Result<Vec<Architecture>> {
        let native = format!("{:?}", Architecture::NATIVE);
        let listed = match (&self.architectures, &self.arch_map) {
            (Some(listed), Some(map)) if !listed.is_empty() && !map.is_empty() => {
                bail!("it has both `architectures` and `archMap`: expected one of them")
            }
            (_, Some(map)) if !map.is_empty() => {
                let own = map.iter().find(|entry| bare(&entry.architecture).eq_ignore_ascii_case(&native));
                own.and_then(|entry| entry.sub_architectures.clone()).unwrap_or_default()
            }
            (listed, _) => listed.clone().unwrap_or_default(),
        };
        Ok(listed.iter().filter_map(|name| architecture(name)).collect())
    }

    fn flags(&self) -> Result<Flags> {
        let mut flags = Flags::default();
        for name in self.flags.iter().flatten() {
            flags = flags.with(match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => Flags::TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => Flags::LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Flags::SPEC_ALLOW,
                // It is of use to a listener only.
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Flags::default(),
                other => bail!(
                    "flag {other}: expected SECCOMP_FILTER_FLAG_ and TSYNC, LOG, SPEC_ALLOW or WAIT_KILLABLE_RECV"
                ),
            });
        }
        Ok(flags)
    }
}

impl Syscalls {
    /// None where it does not count.
    fn rule(&self, circumstances: &Circumstances) -> Result<Option<Rule>> {
        let action = action(&self.action, self.errno_ret.unwrap_or(DEFAULT_ERRNO))?;
        let names = match (&self.name, &self.names) {
            (Some(name), Some(names)) if !name.is_empty() && !names.is_empty() => {
                bail!("a rule has both `name` ({name}) and `names`: expected one of them")
            }
            (Some(name), _) if !name.is_empty() => std::slice::from_ref(name),
            (_, names) => names.as_deref().unwrap_or_default(),
        };
        let calls = names.iter().cloned().map(Call::Name).collect();
        let conditions = self.args.iter().flatten().map(Argument::condition).collect::<Result<_>>()?;
        let counts = match (&self.includes, &self.excludes) {
            (_, Some(when)) if when.any(circumstances)? => false,
            (Some(when), _) => when.all(circumstances)?,
            (None, _) => true,
        };
        Ok(counts.then_some(Rule { calls, action, conditions }))
    }
}

impl Argument {
    fn condition(&self) -> Result<Condition> {
        let (comparison, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (Comparison::Equal, self.value),
            "SCMP_CMP_NE" => (Comparison::NotEqual, self.value),
            "SCMP_CMP_LT" => (Comparison::Less, self.value),
            "SCMP_CMP_LE" => (Comparison::LessOrEqual, self.value),
            "SCMP_CMP_GT" => (Comparison::Greater, self.value),
            "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, self.value),
            "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual(self.value), self.value_two),
            other => bail!("comparison {other}: expected SCMP_CMP_ and EQ, NE, LT, LE, GT, GE or MASKED_EQ"),
        };
        Ok(Condition { index: self.index, comparison, value })
    }
}

impl When {
    fn is_old_enough(&self, circumstances: &Circumstances) -> Result<Option<bool>> {
        let Some(least) = self.min_kernel.as_deref().filter(|least| !least.is_empty()) else { return Ok(None) };
        let parsed = version(least).with_context(|| format!("minKernel {least}: expected a version such as 4.8"))?;
        Ok(Some(circumstances.kernel >= parsed))
    }

    fn any(&self, circumstances: &Circumstances) -> Result<bool> {
        let here = |arch: &String| go_architecture() == arch;
        let has = |name: &String| circumstances.capabilities.contains(name);
        Ok(self.arches.iter().flatten().any(here)
            || self.caps.iter().flatten().any(has)
            || self.is_old_enough(circumstances)?.unwrap_or(false))
    }

    fn all(&self, circumstances: &Circumstances) -> Result<bool> {
        let arches = self.arches.as_deref().unwrap_or_default();
        let has = |name: &String| circumstances.capabilities.contains(name);
        Ok((arches.is_empty() || arches.iter().any(|arch| go_architecture() == arch))
            && self.caps.iter().flatten().all(has)
            && self.is_old_enough(circumstances)?.unwrap_or(true))
    }
}

fn action(name: &str, errno: u16) -> Result<Action> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(errno),
        "SCMP_ACT_TRACE" => Action::Trace(errno),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_NOTIFY" => bail!(
            "action SCMP_ACT_NOTIFY asks another program, a listener, what becomes of a call, and none can be named to amphora: \
             use SCMP_ACT_ERRNO or SCMP_ACT_TRACE"
        ),
        other => bail!(
            "action {other}: expected SCMP_ACT_ and ALLOW, LOG, ERRNO, TRACE, TRAP, KILL, KILL_THREAD or KILL_PROCESS"
        ),
    })
}

fn bare(architecture: &str) -> &str {
    architecture.strip_prefix("SCMP_ARCH_").unwrap_or(architecture)
}

/// None for one that no machine of ours runs.
fn architecture(name: &str) -> Option<Architecture> {
    match bare(name) {
        "X86_64" => Some(Architecture::X86_64),
        "X86" => Some(Architecture::X86),
        "X32" => Some(Architecture::X32),
        "AARCH64" => Some(Architecture::Aarch64),
        "ARM" => Some(Architecture::Arm),
        _ => None,
    }
}

/// As Go and so Docker name this machine's.
fn go_architecture() -> &'static str {
    match Architecture::NATIVE {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
        Architecture::X86 => "386",
        Architecture::X32 => "x32",
        Architecture::Arm => "arm",
    }
}

/// The first two numbers.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circumstances(capabilities: &[&str], kernel: (u32, u32)) -> Circumstances {
        Circumstances { capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(), kernel }
    }

    fn lower(text: &str, circumstances: &Circumstances) -> Result<Profile> {
        serde_json::from_str::<SeccompProfile>(text)?.lower(circumstances)
    }

    #[test]
    fn rules_count_under_dockers_conditions() {
        let rule = |name: &str, when: &str| {
            format!(r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","x":1,{when}}}"#)
        };
        let here = go_architecture();
        let text = [
            rule("always", r#""includes":{},"excludes":{}"#),
            rule("with", r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#),
            rule("without", r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#),
            rule("new", r#""includes":{"minKernel":"4.8"}"#),
            rule("old", r#""excludes":{"minKernel":"4.8"}"#),
            rule("here", &format!(r#""includes":{{"arches":["s390","{here}"]}}"#)),
            rule("there", r#""includes":{"arches":["s390"]}"#),
            rule("not_here", &format!(r#""excludes":{{"arches":["{here}"]}}"#)),
        ];
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, text.join(","));
        for (capabilities, kernel, expected) in [
            (&[][..], (6, 1), "always without new here"),
            (&["CAP_SYS_ADMIN"], (4, 7), "always old here"),
            (&["CAP_SYS_ADMIN", "CAP_BPF"], (4, 10), "always with new here"),
        ] {
            let profile = lower(&text, &circumstances(capabilities, kernel)).unwrap();
            let names = profile.rules.iter().flat_map(|rule| &rule.calls).map(|call| match call {
                Call::Name(name) => name.clone(),
                Call::Number(number) => number.to_string(),
            });
            assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "{capabilities:?} {kernel:?}");
        }
    }

    #[test]
    fn everything_of_the_specification_is_read() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_S390X"],
            "flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls":[{"name":"read","action":"SCMP_ACT_TRACE","errnoRet":9,
                "args":[{"index":5,"value":18446744073709551615,"valueTwo":7,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let profile = lower(text, &circumstances(&[], (6, 1))).unwrap();
        let condition = Condition { index: 5, comparison: Comparison::MaskedEqual(u64::MAX), value: 7 };
        let rule =
            Rule { calls: vec![Call::Name("read".into())], action: Action::Trace(9), conditions: vec![condition] };
        let expected = Profile {
            default: Action::Errno(38),
            architectures: vec![Architecture::X86_64, Architecture::X86],
            rules: vec![rule],
            newer_are_unknown: true,
            flags: Flags::LOG.with(Flags::TSYNC),
        };
        assert_eq!(profile, expected);
        let stored = serde_json::to_string(&serde_json::from_str::<SeccompProfile>(text).unwrap()).unwrap();
        assert_eq!(lower(&stored, &circumstances(&[], (6, 1))).unwrap(), expected);
        let allowing = lower(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, &circumstances(&[], (6, 1))).unwrap();
        assert!(!allowing.newer_are_unknown);
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_said() {
        let rule = |text: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{text}]}}"#);
        for (text, words) in [
            ("{}".to_owned(), "defaultAction"),
            ("[".to_owned(), "it is no seccomp profile"),
            (r#"{"defaultAction":"ALLOW"}"#.to_owned(), "action ALLOW: expected SCMP_ACT_"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(), "a listener"),
            (r#"{"defaultAction":"SCMP_ACT_LOG","flags":["X"]}"#.to_owned(), "flag X: expected"),
            (
                r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["A"],"archMap":[{"architecture":"B"}]}"#.to_owned(),
                "both `architectures` and `archMap`",
            ),
            (rule(r#"{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}"#), "both `name` (a) and `names`"),
            (rule(r#"{"names":["a"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}"#), "5000: expected at most 4095"),
            (
                rule(r#"{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#),
                "argument 6: expected 0 to 5",
            ),
            (
                rule(r#"{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"=="}]}"#),
                "comparison ==: expected SCMP_CMP_",
            ),
            (
                rule(r#"{"names":["a"],"action":"SCMP_ACT_LOG","includes":{"minKernel":"new"}}"#),
                "minKernel new: expected",
            ),
        ] {
            let error = format!("{:#}", SeccompProfile::parse(&text).unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
