//! What the user wants mounted: `-v`, `--mount` and `--tmpfs`, in Docker's spelling.
//!
//! Nothing here looks at the file system: whether a source exists is found out where it is opened.

use crate::spec::{names, propagation::Propagation, quantity};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    path::{Component, Path, PathBuf},
};

/// One mount, of either kind of container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute, inside the container, without `.`, `..` or double slashes; never `/` itself.
    pub target: PathBuf,
    /// Nothing can be written through this mount.
    pub readonly: bool,
    /// What is mounted.
    pub kind: MountKind,
}

impl MountSpec {
    /// A new volume without a name, which begins with what the image has there. None: nothing can be mounted at that place.
    pub(crate) fn new_volume_at(target: &Path) -> Option<Self> {
        let target = Some(clean(target)).filter(|target| target.is_absolute() && target != Path::new("/"))?;
        Some(Self { target, readonly: false, kind: MountKind::Volume { name: None, copy: true, subpath: None } })
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute.
        source: PathBuf,
        /// With all that is mounted below it.
        recursive: bool,
        /// What of later mounts passes.
        #[serde(default, skip_serializing_if = "Propagation::is_private")]
        propagation: Propagation,
    },
    /// A directory that the store keeps.
    Volume {
        /// `None` asks for a new one with a random name, removed with the container.
        name: Option<String>,
        /// Whether a new volume begins with what the image has at the target.
        copy: bool,
        /// A directory of it that is mounted in place of all of it; relative.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<PathBuf>,
    },
    /// Memory that goes with the container. Always nosuid and nodev.
    Tmpfs {
        /// `None`: half of the machine's memory, as the kernel does.
        size_bytes: Option<u64>,
        /// Of its root directory, such as `0o1777`.
        mode: u32,
        /// Whether programs may be executed from it.
        exec: bool,
        /// Whom its root directory belongs to: user and group.
        #[serde(default)]
        owner: Option<(u32, u32)>,
    },
    /// What an image has, to be read only.
    Image {
        /// As it was asked for.
        name: String,
        /// Manifest digest; empty until the container is made.
        #[serde(default)]
        digest: String,
    },
}

/// A mount that cannot be understood, or not be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    /// It does not parse.
    #[error("invalid value `{found}` for {flag}: {problem}")]
    Invalid { flag: &'static str, found: String, problem: String },
    /// Two at one place.
    #[error("two mounts at {}: give each mount a target of its own", target.display())]
    Duplicate { target: PathBuf },
}

/// Parses all mount flags of one container. Sorted so that a mount comes before those inside it, otherwise as given.
///
/// Relative sources count from `cwd`, which is absolute.
///
/// # Errors
/// The first value that does not parse, or two mounts at one target.
pub(crate) fn parse_all(
    volumes: &[String],
    mounts: &[String],
    tmpfs: &[String],
    cwd: &Path,
) -> Result<Vec<MountSpec>, MountError> {
    let mut specs = Vec::with_capacity(volumes.len() + mounts.len() + tmpfs.len());
    for text in volumes {
        specs.push(parse_volume(text, cwd)?);
    }
    for text in mounts {
        specs.push(parse_mount(text, cwd)?);
    }
    for text in tmpfs {
        specs.push(parse_tmpfs(text)?);
    }
    let mut targets = HashSet::new();
    if let Some(spec) = specs.iter().find(|spec| !targets.insert(spec.target.as_path())) {
        return Err(MountError::Duplicate { target: spec.target.clone() });
    }
    specs.sort_by_key(|spec| spec.target.components().count());
    Ok(specs)
}

/// Parses `-v`: `/host:/inside[:options]`, `./relative:/inside`, `name:/inside`, or `/inside` alone for a new volume.
pub(crate) fn parse_volume(text: &str, cwd: &Path) -> Result<MountSpec, MountError> {
    let value = Value { flag: "--volume", text };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(value.invalid("expected SOURCE:TARGET[:OPTIONS]")),
    };
    if source.is_empty() && parts.len() > 1 {
        return Err(value.invalid("the source is empty: expected SOURCE:TARGET[:OPTIONS]"));
    }
    let mut draft = Draft { target: Some(value.target(target)?), ..Draft::default() };
    match source {
        "" => draft.kind = Kind::Volume,
        _ => draft.set_source(&value, source, cwd)?,
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        draft.volume_option(&value, option)?;
    }
    draft.finish(&value)
}

/// Parses `--mount`: fields `key=value` with commas between, as CSV, so that `"source=/a,b"` may hold a comma.
pub(crate) fn parse_mount(text: &str, cwd: &Path) -> Result<MountSpec, MountError> {
    let value = Value { flag: "--mount", text };
    let fields = split_csv(text).ok_or_else(|| value.invalid("a quote is not closed"))?;
    let pairs: Vec<(String, Option<&str>)> = fields.iter().map(|field| split_pair(field)).collect();
    let mut draft = Draft { kind: mount_type(&value, &pairs)?, ..Draft::default() };
    for (key, setting) in &pairs {
        draft.mount_field(&value, key, *setting, cwd)?;
    }
    draft.finish(&value)
}

/// Parses `--tmpfs`: `/run[:size=64m,mode=1777,exec]`.
pub(crate) fn parse_tmpfs(text: &str) -> Result<MountSpec, MountError> {
    let value = Value { flag: "--tmpfs", text };
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut draft = Draft { kind: Kind::Tmpfs, target: Some(value.target(target)?), ..Draft::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("rw", "") => draft.readonly = false,
            ("ro", "") => draft.readonly = true,
            ("exec", "") => draft.exec = true,
            ("noexec", "") => draft.exec = false,
            ("nosuid" | "nodev", "") => {}
            ("size", size) => draft.size_bytes = Some(value.bytes(size)?),
            ("mode", mode) => draft.mode = Some(value.mode(mode)?),
            ("uid", uid) => draft.uid = Some(value.id(uid)?),
            ("gid", gid) => draft.gid = Some(value.id(gid)?),
            _ => {
                return Err(
                    value.unknown(option, "size=SIZE, mode=OCTAL, uid, gid, exec, noexec, ro, rw, nosuid, nodev")
                );
            }
        }
    }
    draft.finish(&value)
}

/// Refuses what would hide the root file system that the program came in.
pub(crate) fn refuse_root(mounts: &[MountSpec]) -> anyhow::Result<()> {
    match mounts.iter().any(|mount| mount.target == Path::new("/")) {
        true => {
            anyhow::bail!("--volume, --mount, --tmpfs: the target must not be `/`, where the image's own files are")
        }
        false => Ok(()),
    }
}

/// A flag's value while it is parsed, for what the errors say.
struct Value<'a> {
    flag: &'static str,
    text: &'a str,
}

impl Value<'_> {
    fn invalid(&self, problem: impl Into<String>) -> MountError {
        MountError::Invalid { flag: self.flag, found: self.text.to_owned(), problem: problem.into() }
    }

    fn unknown(&self, option: &str, known: &str) -> MountError {
        self.invalid(format!("unknown or unsupported option `{option}`; these are known: {known}"))
    }

    /// Cleans a path inside the container the way Docker does, without looking at any file.
    fn target(&self, text: &str) -> Result<PathBuf, MountError> {
        if !text.starts_with('/') {
            return Err(self.invalid(format!("the target `{text}` must be an absolute path")));
        }
        Ok(clean(Path::new(text)))
    }

    fn bytes(&self, text: &str) -> Result<u64, MountError> {
        quantity::parse_bytes(text).map_err(|expected| self.invalid(format!("`{text}` is not {expected}")))
    }

    fn mode(&self, text: &str) -> Result<u32, MountError> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777 && !text.starts_with('+'));
        mode.ok_or_else(|| self.invalid(format!("the mode `{text}` is not an octal number such as 1777")))
    }

    fn id(&self, text: &str) -> Result<u32, MountError> {
        text.parse().map_err(|_| self.invalid(format!("`{text}` is not the number of a user or group")))
    }

    /// A path below another one.
    fn below(&self, text: &str) -> Result<PathBuf, MountError> {
        let path = Path::new(text);
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_))) && !text.is_empty();
        is_below
            .then(|| path.to_owned())
            .ok_or_else(|| self.invalid(format!("`{text}` is not a path below the volume: expected one such as a/b")))
    }

    fn flag_setting(&self, key: &str, setting: Option<&str>) -> Result<bool, MountError> {
        match setting {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(self.invalid(format!("`{key}` is `{other}`: expected true or false"))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    Bind,
    #[default]
    Volume,
    Tmpfs,
    Image,
}

/// A mount whose fields arrive in any order.
#[derive(Default)]
struct Draft {
    kind: Kind,
    source: Option<String>,
    target: Option<PathBuf>,
    readonly: bool,
    non_recursive: bool,
    no_copy: bool,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    exec: bool,
    uid: Option<u32>,
    gid: Option<u32>,
    subpath: Option<PathBuf>,
    propagation: Propagation,
}

impl Draft {
    /// The source of `-v`: a path if it begins with `/` or `.`, else the name of a volume.
    fn set_source(&mut self, value: &Value<'_>, source: &str, cwd: &Path) -> Result<(), MountError> {
        if source.starts_with(['/', '.']) {
            self.kind = Kind::Bind;
            self.source = Some(absolute(value, source, cwd)?);
        } else {
            self.kind = Kind::Volume;
            self.source = Some(volume_name(value, source)?);
        }
        Ok(())
    }

    fn volume_option(&mut self, value: &Value<'_>, option: &str) -> Result<(), MountError> {
        match option {
            "rw" => self.readonly = false,
            "ro" => self.readonly = true,
            "nocopy" if self.kind == Kind::Volume => self.no_copy = true,
            "bind" if self.kind == Kind::Bind => self.non_recursive = true,
            "rbind" if self.kind == Kind::Bind => self.non_recursive = false,
            // The labels are SELinux's, which Docker too ignores where it is not active; and the words of consistency
            // mean nothing on Linux.
            "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
            _ => match Propagation::parse(option) {
                Some(propagation) if self.kind == Kind::Bind || propagation.is_private() => {
                    self.propagation = propagation;
                }
                _ => {
                    return Err(value.unknown(
                        option,
                        "ro, rw, z, Z, nocopy (volumes); bind, rbind, rprivate, rslave, rshared (host paths)",
                    ));
                }
            },
        }
        Ok(())
    }

    fn mount_field(
        &mut self,
        value: &Value<'_>,
        key: &str,
        setting: Option<&str>,
        cwd: &Path,
    ) -> Result<(), MountError> {
        let text = || setting.ok_or_else(|| value.invalid(format!("`{key}` needs a value: {key}=…")));
        match (key, self.kind) {
            ("type", _) => {}
            ("source" | "src", Kind::Bind) => self.source = Some(absolute(value, text()?, cwd)?),
            ("source" | "src", Kind::Volume) => self.source = Some(volume_name(value, text()?)?),
            ("target" | "dst" | "destination", _) => self.target = Some(value.target(text()?)?),
            ("readonly" | "ro", _) => self.readonly = value.flag_setting(key, setting)?,
            ("bind-nonrecursive", Kind::Bind) => self.non_recursive = value.flag_setting(key, setting)?,
            ("bind-recursive", Kind::Bind) if setting == Some("disabled") => self.non_recursive = true,
            ("bind-recursive", Kind::Bind) if matches!(setting, Some("enabled" | "readonly")) => {}
            ("bind-propagation", Kind::Bind) => {
                self.propagation = Propagation::parse(text()?).ok_or_else(|| {
                    value.unknown(&format!("{key}={}", setting.unwrap_or_default()), "rprivate, rslave, rshared")
                })?;
            }
            ("consistency", Kind::Bind) => {}
            ("source" | "src", Kind::Image) => self.source = Some(text()?.to_owned()),
            ("volume-subpath", Kind::Volume) => self.subpath = Some(value.below(text()?)?),
            ("volume-nocopy", Kind::Volume) => self.no_copy = value.flag_setting(key, setting)?,
            ("tmpfs-size", Kind::Tmpfs) => self.size_bytes = Some(value.bytes(text()?)?),
            ("tmpfs-mode", Kind::Tmpfs) => self.mode = Some(value.mode(text()?)?),
            _ => {
                return Err(
                    value.unknown(&setting.map_or(key.to_owned(), |text| format!("{key}={text}")), self.known_fields())
                );
            }
        }
        Ok(())
    }

    fn known_fields(&self) -> &'static str {
        match self.kind {
            Kind::Bind => "type, source, target, readonly, bind-recursive, bind-propagation",
            Kind::Volume => "type, source, target, readonly, volume-nocopy, volume-subpath",
            Kind::Image => "type, source, target",
            Kind::Tmpfs => "type, target, readonly, tmpfs-size, tmpfs-mode",
        }
    }

    fn finish(self, value: &Value<'_>) -> Result<MountSpec, MountError> {
        let target = self.target.ok_or_else(|| value.invalid("the target is missing: add target=/PATH"))?;
        let kind = match (self.kind, self.source) {
            (Kind::Bind, Some(source)) => {
                MountKind::Bind { source: source.into(), recursive: !self.non_recursive, propagation: self.propagation }
            }
            (Kind::Bind, None) => return Err(value.invalid("the source is missing: add source=/PATH")),
            (Kind::Volume, name) => {
                // Of a part of it there is nothing that the image's files could go to.
                MountKind::Volume { name, copy: !self.no_copy && self.subpath.is_none(), subpath: self.subpath }
            }
            (Kind::Image, Some(name)) => MountKind::Image { name, digest: String::new() },
            (Kind::Image, None) => return Err(value.invalid("the source is missing: add source=IMAGE")),
            (Kind::Tmpfs, _) => {
                let owner = self.uid.or(self.gid).map(|_| (self.uid.unwrap_or(0), self.gid.unwrap_or(0)));
                let (size_bytes, mode) = (self.size_bytes, self.mode.unwrap_or(0o1777));
                MountKind::Tmpfs { size_bytes, mode, exec: self.exec, owner }
            }
        };
        let readonly = self.readonly || matches!(kind, MountKind::Image { .. });
        Ok(MountSpec { target, readonly, kind })
    }
}

fn mount_type(value: &Value<'_>, pairs: &[(String, Option<&str>)]) -> Result<Kind, MountError> {
    let named = pairs.iter().rev().find(|(key, _)| key == "type").map(|(_, setting)| setting.unwrap_or_default());
    match named.map(str::to_ascii_lowercase).as_deref() {
        None | Some("volume") => Ok(Kind::Volume),
        Some("bind") => Ok(Kind::Bind),
        Some("tmpfs") => Ok(Kind::Tmpfs),
        Some("image") => Ok(Kind::Image),
        Some(other) => Err(value.invalid(format!("unknown type `{other}`: expected bind, volume, tmpfs or image"))),
    }
}

/// A host path: absolute as it is, one that begins with `.` from `cwd`.
fn absolute(value: &Value<'_>, source: &str, cwd: &Path) -> Result<String, MountError> {
    let path = match source {
        _ if source.starts_with('/') => clean(Path::new(source)),
        _ if source.starts_with('.') && !cwd.is_absolute() => {
            return Err(value.invalid("the current directory was removed: give an absolute path"));
        }
        _ if source.starts_with('.') => clean(&cwd.join(source)),
        _ => {
            return Err(
                value.invalid(format!("the source `{source}` must be an absolute path, or begin with `./` or `../`"))
            );
        }
    };
    path.into_os_string()
        .into_string()
        .map_err(|_| value.invalid("the current directory's name is not UTF-8: give an absolute path"))
}

fn volume_name(value: &Value<'_>, name: &str) -> Result<String, MountError> {
    match names::validate("volume name", name) {
        Ok(()) => Ok(name.to_owned()),
        Err(error) => {
            Err(value
                .invalid(format!("{error}; for a directory of the host, give an absolute path or begin with `./`")))
        }
    }
}

/// Removes `.`, double slashes, and `..` with what is before it.
fn clean(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut cleaned, component| {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir => {}
            _ => cleaned.push(component),
        }
        cleaned
    })
}

/// One line of CSV as Docker's `--mount` has it: a field that begins with `"` ends at the next single `"`. `None` if a
/// quote stays open.
fn split_csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(c),
        }
    }
    (!quoted).then_some(fields)
}

fn split_pair(field: &str) -> (String, Option<&str>) {
    match field.split_once('=') {
        Some((key, setting)) => (key.to_ascii_lowercase(), Some(setting)),
        None => (field.to_ascii_lowercase(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CWD: &str = "/home/me";

    fn bind(source: &str, target: &str, readonly: bool) -> MountSpec {
        let kind = MountKind::Bind { source: source.into(), recursive: true, propagation: Propagation::Private };
        MountSpec { target: target.into(), readonly, kind }
    }

    fn volume(name: Option<&str>, target: &str, readonly: bool) -> MountSpec {
        let kind = MountKind::Volume { name: name.map(str::to_owned), copy: true, subpath: None };
        MountSpec { target: target.into(), readonly, kind }
    }

    fn tmpfs(target: &str, size_bytes: Option<u64>, mode: u32, exec: bool) -> MountSpec {
        let kind = MountKind::Tmpfs { size_bytes, mode, exec, owner: None };
        MountSpec { target: target.into(), readonly: false, kind }
    }

    #[test]
    fn volumes_are_read() {
        let table = [
            ("/src:/dst", bind("/src", "/dst", false)),
            ("/src:/dst:ro", bind("/src", "/dst", true)),
            ("/src:/dst:ro,z", bind("/src", "/dst", true)),
            ("/src:/dst:Z,rw", bind("/src", "/dst", false)),
            ("/src:/dst:", bind("/src", "/dst", false)),
            ("/a//b/../c/:/x/./y/", bind("/a/c", "/x/y", false)),
            ("/:/host", bind("/", "/host", false)),
            ("/src:/..", bind("/src", "/", false)),
            (".:/src", bind("/home/me", "/src", false)),
            ("./a:/src", bind("/home/me/a", "/src", false)),
            ("../a:/src", bind("/home/a", "/src", false)),
            ("data:/var/lib", volume(Some("data"), "/var/lib", false)),
            ("data:/var/lib:ro", volume(Some("data"), "/var/lib", true)),
            ("/cache", volume(None, "/cache", false)),
        ];
        for (text, spec) in table {
            assert_eq!(parse_volume(text, Path::new(CWD)), Ok(spec), "{text}");
        }
        let spec = parse_volume("data:/d:nocopy", Path::new(CWD)).unwrap();
        assert_eq!(spec.kind, MountKind::Volume { name: Some("data".into()), copy: false, subpath: None });
    }

    #[test]
    fn bad_volumes_are_refused_with_the_reason() {
        let table = [
            ("", "the target `` must be an absolute path"),
            ("data", "the target `data` must be an absolute path"),
            ("/src:dst", "the target `dst` must be an absolute path"),
            (":/dst", "the source is empty"),
            ("/a:/b:ro:x", "expected SOURCE:TARGET[:OPTIONS]"),
            ("vol:/b:rslave", "unknown or unsupported option `rslave`"),
            ("/a:/b:unbindable", "unknown or unsupported option `unbindable`"),
            ("/a:/b:nocopy", "unknown or unsupported option `nocopy`"),
            ("a/b:/c", "begin with `./`"),
            ("~/x:/c", "invalid volume name `~/x`"),
        ];
        for (text, problem) in table {
            let message = parse_volume(text, Path::new(CWD)).unwrap_err().to_string();
            assert!(message.starts_with(&format!("invalid value `{text}` for --volume: ")), "{message}");
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn mounts_are_read() {
        let table = [
            ("type=bind,source=/a,target=/b", bind("/a", "/b", false)),
            ("target=/b,readonly,src=/a,type=bind", bind("/a", "/b", true)),
            ("type=bind,src=./a,dst=/b,ro=true", bind("/home/me/a", "/b", true)),
            ("type=bind,src=/a,destination=/b,readonly=false,bind-propagation=rprivate", bind("/a", "/b", false)),
            (r#"type=bind,"src=/a,b",dst=/b"#, bind("/a,b", "/b", false)),
            (r#"type=bind,"src=/a""b",dst=/b"#, bind("/a\"b", "/b", false)),
            ("src=data,dst=/b", volume(Some("data"), "/b", false)),
            ("type=volume,dst=/b", volume(None, "/b", false)),
            ("type=tmpfs,destination=/t", tmpfs("/t", None, 0o1777, false)),
            ("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=700", tmpfs("/t", Some(64 << 20), 0o700, false)),
        ];
        for (text, spec) in table {
            assert_eq!(parse_mount(text, Path::new(CWD)), Ok(spec), "{text}");
        }
        let image = parse_mount("type=image,src=bb:1,dst=/b", Path::new(CWD)).unwrap();
        assert_eq!(
            (image.readonly, image.kind),
            (true, MountKind::Image { name: "bb:1".into(), digest: String::new() })
        );
        let part = parse_mount("type=volume,src=vol,dst=/b,volume-subpath=a/b", Path::new(CWD)).unwrap().kind;
        assert_eq!(part, MountKind::Volume { name: Some("vol".into()), copy: false, subpath: Some("a/b".into()) });
        for text in ["type=bind,src=/a,dst=/b,bind-recursive=disabled", "type=bind,src=/a,dst=/b,bind-nonrecursive"] {
            let spec = parse_mount(text, Path::new(CWD)).unwrap();
            let propagation = Propagation::Private;
            assert_eq!(spec.kind, MountKind::Bind { source: "/a".into(), recursive: false, propagation });
        }
    }

    #[test]
    fn binds_pass_on_what_was_said() {
        let shared = parse_volume("/a:/b:ro,rshared", Path::new(CWD)).unwrap();
        let slave = parse_mount("type=bind,src=/a,dst=/b,bind-propagation=slave", Path::new(CWD)).unwrap();
        for (spec, propagation, word) in
            [(shared, Propagation::Shared, "rshared"), (slave, Propagation::Slave, "rslave")]
        {
            let kind = MountKind::Bind { source: "/a".into(), recursive: true, propagation };
            assert_eq!((spec.kind, propagation.to_string().as_str()), (kind, word));
        }
    }

    #[test]
    fn bad_mounts_are_refused_with_the_reason() {
        let table = [
            ("type=bind,target=/b", "the source is missing"),
            ("type=bind,source=/a", "the target is missing"),
            ("type=bind,source=a,target=/b", "must be an absolute path, or begin with `./`"),
            ("type=npipe,source=a,target=/b", "unknown type `npipe`"),
            ("type=image,target=/b", "the source is missing"),
            ("type=volume,source=vol,target=/b,volume-subpath=../x", "`../x`"),
            ("type=volume,source=vol,target=/b,volume-subpath=/x", "`/x`"),
            ("type=tmpfs,source=/a,target=/b", "unknown or unsupported option `source=/a`"),
            ("type=bind,source=/a,target=/b,bind-propagation=some", "`bind-propagation=some`"),
            ("type=volume,target=/b,volume-driver=nfs", "`volume-driver=nfs`"),
            ("type=volume,target=/b,readonly=maybe", "`readonly` is `maybe`"),
            ("type=tmpfs,target=/b,tmpfs-size=big", "`big` is not a size"),
            ("type=tmpfs,target=/b,tmpfs-mode=9", "the mode `9`"),
            ("type=bind,source,target=/b", "`source` needs a value"),
            ("type=bind,\"source=/a", "a quote is not closed"),
            ("colour=red", "`colour=red`"),
            ("", "unknown or unsupported option ``"),
        ];
        for (text, problem) in table {
            let message = parse_mount(text, Path::new(CWD)).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn tmpfs_is_read_or_refused() {
        assert_eq!(parse_tmpfs("/run"), Ok(tmpfs("/run", None, 0o1777, false)));
        assert_eq!(parse_tmpfs("/run:size=64m,mode=755,exec"), Ok(tmpfs("/run", Some(64 << 20), 0o755, true)));
        assert_eq!(parse_tmpfs("/run:rw,noexec,nosuid,nodev"), Ok(tmpfs("/run", None, 0o1777, false)));
        assert!(parse_tmpfs("/run:ro").unwrap().readonly);
        let owned = parse_tmpfs("/run:uid=7").unwrap().kind;
        assert!(matches!(owned, MountKind::Tmpfs { owner: Some((7, 0)), .. }), "{owned:?}");
        for text in ["run", "/run:size=x", "/run:suid", "/run:uid=root", "/run:mode=888", "/run:exec=yes"] {
            assert!(parse_tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_mounts_at_one_target_are_refused_and_outer_ones_come_first() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let volumes = strings(&["a1:/x/y", "b1:/x"]);
        let specs = parse_all(&volumes, &[], &strings(&["/t"]), Path::new(CWD)).unwrap();
        let targets: Vec<_> = specs.iter().map(|spec| spec.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["/x", "/t", "/x/y"]);
        let error = parse_all(&volumes, &[], &strings(&["/x/"]), Path::new(CWD)).unwrap_err();
        assert_eq!(error.to_string(), "two mounts at /x: give each mount a target of its own");
    }

    #[test]
    fn stored_mounts_come_back() {
        for spec in [bind("/a", "/b", true), volume(None, "/b", false), tmpfs("/t", Some(1), 0o755, true)] {
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<MountSpec>(&text).unwrap(), spec);
        }
        let newer = r#"{"target":"/b","readonly":true,"kind":{"bind":{"source":"/a","recursive":true,"x":1}},"y":2}"#;
        assert_eq!(serde_json::from_str::<MountSpec>(newer).unwrap(), bind("/a", "/b", true));
    }
}
