//! Looks inside a Wasm binary, for `image explain` and for errors that say what a file is. Pure: takes bytes.

use wasmparser::{ExternalKind, MemoryType, Parser, Payload, TypeRef, Validator, WasmFeatures};

/// The form of a Wasm binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `00 61 73 6d 01 00 00 00`
    Module,
    /// `00 61 73 6d 0d 00 01 00`
    Component,
}

impl Form {
    /// By the first eight bytes; None if they are not those of Wasm.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..8)? {
            b"\0asm\x01\0\0\0" => Some(Self::Module),
            b"\0asm\x0d\0\x01\0" => Some(Self::Component),
            _ => None,
        }
    }
}

/// command, function or library by exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `_start` or `wasi:cli/run`.
    Command,
    /// `wasi:http/incoming-handler` or `wasi:http/handler`.
    Function,
    /// Neither.
    Library,
}

/// What a Wasm binary is and wants.
#[derive(Debug, Clone)]
pub struct Program {
    /// Module or component.
    pub form: Form,
    /// By its exports.
    pub role: Role,
    /// `wasi_snapshot_preview1::fd_write`, `wasi:cli/stdout@0.2.3`, sorted.
    pub imports: Vec<String>,
    /// Names.
    pub exports: Vec<String>,
    /// Initial and maximum bytes of the first declared or imported memory (modules).
    pub memory: Option<(u64, Option<u64>)>,
}

/// Not Wasm, cut short, or malformed: offset and reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The bytes are something else.
    #[error("not Wasm but {found}; expected a file that begins with 00 61 73 6d")]
    NotWasm {
        /// What they look like: `an ELF executable (native code)`.
        found: String,
    },
    /// Wasm of a version that nobody runs.
    #[error(
        "Wasm of an unknown version: the bytes from 4 are {found}; expected 01 00 00 00 (module) or 0d 00 01 00 (component)"
    )]
    UnknownVersion {
        /// In hexadecimal.
        found: String,
    },
    /// The file ends too early.
    #[error(
        "the Wasm binary is cut short: {length} bytes are there, and what begins at {offset:#x} needs more; fetch or build it again"
    )]
    Truncated {
        /// Where the part begins that is not whole.
        offset: usize,
        /// Bytes of the file.
        length: usize,
    },
    /// The file breaks the format's rules.
    #[error("the Wasm binary is malformed at offset {offset:#x}: {reason}")]
    Malformed {
        /// Where.
        offset: usize,
        /// Which rule.
        reason: String,
    },
}

/// Parses and validates the structure.
///
/// Imports, exports, types and all sections are checked; the bodies of functions are not, which the compiler does.
pub fn inspect(bytes: &[u8]) -> Result<Program, ProgramError> {
    let form = form_of(bytes)?;
    walk(bytes).map(|found| found.finish(form)).map_err(|error| broken(&error, bytes.len()))
}

/// Goes through all sections; those of nested modules and components are validated and not looked at.
fn walk(bytes: &[u8]) -> wasmparser::Result<Found> {
    let mut found = Found::default();
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        validator.payload(&payload)?;
        match payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            outermost if depth == 1 => found.take(outermost)?,
            _ => {}
        }
    }
    Ok(found)
}

/// What the outermost module or component showed so far.
#[derive(Default)]
struct Found {
    imports: Vec<String>,
    exports: Vec<String>,
    memory: Option<(u64, Option<u64>)>,
    starts: bool,
}

impl Found {
    fn take(&mut self, payload: Payload) -> wasmparser::Result<()> {
        match payload {
            Payload::ImportSection(section) => section.into_imports().try_for_each(|import| self.import(import?)),
            Payload::MemorySection(section) => section.into_iter().try_for_each(|memory| self.memory(memory?)),
            Payload::ExportSection(section) => section.into_iter().try_for_each(|export| self.export(export?)),
            Payload::ComponentImportSection(section) => section
                .into_iter()
                .try_for_each(|import| import.map(|import| self.imports.push(import.name.name.to_owned()))),
            Payload::ComponentExportSection(section) => section
                .into_iter()
                .try_for_each(|export| export.map(|export| self.exports.push(export.name.name.to_owned()))),
            _ => Ok(()),
        }
    }

    fn import(&mut self, import: wasmparser::Import) -> wasmparser::Result<()> {
        self.imports.push(format!("{}::{}", import.module, import.name));
        match import.ty {
            TypeRef::Memory(memory) => self.memory(memory),
            _ => Ok(()),
        }
    }

    /// Keeps the first one only.
    fn memory(&mut self, memory: MemoryType) -> wasmparser::Result<()> {
        let bytes = |pages: u64| pages.saturating_mul(u64::from(memory.page_size()));
        self.memory.get_or_insert((bytes(memory.initial), memory.maximum.map(bytes)));
        Ok(())
    }

    fn export(&mut self, export: wasmparser::Export) -> wasmparser::Result<()> {
        self.starts |= export.name == "_start" && export.kind == ExternalKind::Func;
        self.exports.push(export.name.to_owned());
        Ok(())
    }

    fn finish(mut self, form: Form) -> Program {
        let exports_one_of = |interfaces: &[&str]| {
            let names = self.exports.iter().map(|export| export.split('@').next().unwrap_or(export));
            form == Form::Component && names.into_iter().any(|name| interfaces.contains(&name))
        };
        let role = if self.starts || exports_one_of(&["wasi:cli/run"]) {
            Role::Command
        } else if exports_one_of(&["wasi:http/incoming-handler", "wasi:http/handler"]) {
            Role::Function
        } else {
            Role::Library
        };
        self.imports.sort_unstable();
        Program { form, role, imports: self.imports, exports: self.exports, memory: self.memory }
    }
}

fn form_of(bytes: &[u8]) -> Result<Form, ProgramError> {
    if let Some(form) = Form::of(bytes) {
        return Ok(form);
    }
    match bytes {
        [b'\0', b'a', b's', b'm', version @ ..] if version.len() >= 4 => {
            let found = version[..4].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            Err(ProgramError::UnknownVersion { found })
        }
        [b'\0', b'a', b's', b'm', version @ ..] => {
            Err(ProgramError::Truncated { offset: 4, length: 4 + version.len() })
        }
        _ => Err(ProgramError::NotWasm { found: describe(bytes).to_owned() }),
    }
}

/// The parser's error as ours: it has no kind for the end of the file, only this beginning of its message.
fn broken(error: &wasmparser::Error, length: usize) -> ProgramError {
    let offset = error.offset();
    match error.message() {
        early if early.starts_with("unexpected end-of-file") => ProgramError::Truncated { offset, length },
        // Some of its messages have lines.
        reason => {
            let words: Vec<&str> = reason.split_ascii_whitespace().collect();
            ProgramError::Malformed { offset, reason: words.join(" ") }
        }
    }
}

/// What bytes look like, by how they begin: `an ELF file (native code)`, `a script`.
pub fn describe(bytes: &[u8]) -> &'static str {
    const BEGINNINGS: [(&[u8], &str); 14] = [
        (b"\0asm", "Wasm"),
        (b"\x7fELF", "an ELF file (native code)"),
        (b"#!", "a script"),
        (b"MZ", "a Windows executable"),
        (b"\xcf\xfa\xed\xfe", "a macOS executable"),
        (b"\xca\xfe\xba\xbe", "a macOS executable or a Java class"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"PK\x03\x04", "a zip file"),
        (b"BZh", "a bzip2 file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"!<arch>\n", "an archive of object files"),
        (b"BC\xc0\xde", "LLVM bitcode"),
        (b"(module", "Wasm in text form (WAT)"),
    ];
    if bytes.is_empty() {
        return "an empty file";
    }
    if let Some((_, name)) = BEGINNINGS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return name;
    }
    // The magic of a tar lies at the end of its first header's names, POSIX pax(1).
    if bytes.get(257..262) == Some(b"ustar") {
        return "a tar archive";
    }
    let start = &bytes[..bytes.len().min(512)];
    let is_text = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    if start.iter().all(is_text) { "text" } else { "binary data of an unknown kind" }
}

#[cfg(test)]
mod tests;
