//! What a program imports that it would not be given.

use crate::{
    Profile, RunError, cache::Kind, config, engine, keyvalue, logging, parts::Parts, state::State, wasi_p1, wasi_p2,
};
use std::collections::HashMap;
use wasmparser::{CompositeInnerType, Parser, Payload, TypeRef};
use wasmtime::{Engine, FuncType, Store, ValType, component::Component};

/// An import of a module: the two names, and the type if it is a function.
type Import = (String, String, Option<FuncType>);

/// Imports that [`crate::run`] would not provide; for `explain` and for the check before a start.
///
/// Takes the program's bytes. A module's import is named `module::name`, with the two types where only those differ; a
/// component's as it stands in it, an interface with its version. Sockets and requests by HTTP are provided
/// whatever is granted: without a grant they fail, as they would for a user who may not. Configuration and key-value stores count
/// as provided here, and are refused where the program is run without any.
pub fn unprovided_imports(wasm: &[u8]) -> Result<Vec<String>, RunError> {
    let invalid = |detail: String| RunError::Program { detail };
    match Kind::of(wasm).map_err(|error| invalid(error.to_string()))? {
        Kind::Module => {
            let engine = engine::runner(Profile::default()).map_err(RunError::engine)?;
            let imports = imports_of_module(&engine, wasm).map_err(|error| invalid(error.to_string()))?;
            missing_of_module(&engine, imports).map_err(RunError::engine)
        }
        kind @ (Kind::Component | Kind::ConcurrentComponent) => {
            let profile = Profile { concurrent: kind == Kind::ConcurrentComponent, ..Profile::default() };
            let imports = ComponentImports::parse(wasm).map_err(|error| invalid(error.to_string()))?;
            let Some(error) = imports.link_error(profile).map_err(RunError::engine)? else { return Ok(Vec::new()) };
            let missing = missing_of_component(imports.names.iter().copied());
            Ok(if missing.is_empty() { vec![error] } else { missing })
        }
    }
}

/// Those of a module's imports that are not in its linker, or not of that type.
pub(crate) fn missing_of_module(engine: &Engine, imports: Vec<Import>) -> wasmtime::Result<Vec<String>> {
    let provided = provided(engine)?;
    let complaint = |(module, name, imported): Import| {
        let import = format!("{module}::{name}");
        match (provided.get(&(module, name)), imported) {
            (None, _) => Some(import),
            (Some(provided), Some(imported)) if FuncType::eq(provided, &imported) => None,
            (Some(provided), Some(imported)) => Some(format!("{import} (as {imported}, which here is {provided})")),
            (Some(_), None) => Some(format!("{import} (which here is a function)")),
        }
    };
    Ok(imports.into_iter().filter_map(complaint).collect())
}

fn provided(engine: &Engine) -> wasmtime::Result<HashMap<(String, String), FuncType>> {
    let linker = wasi_p1::linker(engine)?;
    let mut store = Store::new(engine, State::empty());
    let items: Vec<_> = linker
        .iter(&mut store)
        .filter_map(|(module, name, item)| Some(((module.to_owned(), name.to_owned()), item.into_func()?)))
        .collect();
    Ok(items.into_iter().map(|(names, func)| (names, func.ty(&store))).collect())
}

fn imports_of_module(engine: &Engine, wasm: &[u8]) -> wasmparser::Result<Vec<Import>> {
    let mut types = Vec::new();
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(section) => {
                for group in section {
                    types.extend(group?.into_types().map(|ty| func_type(engine, &ty.composite_type.inner)));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let ty = match import.ty {
                        TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                            types.get(index as usize).cloned().flatten()
                        }
                        _ => None,
                    };
                    imports.push((import.module.to_owned(), import.name.to_owned(), ty));
                }
            }
            // It comes after the imports, and reading on would only cost time.
            Payload::CodeSectionStart { .. } => break,
            _ => {}
        }
    }
    Ok(imports)
}

/// A function's type, if it is one that WASI p1 could have: of numbers alone.
fn func_type(engine: &Engine, ty: &CompositeInnerType) -> Option<FuncType> {
    let number = |ty: &wasmparser::ValType| match ty {
        wasmparser::ValType::I32 => Some(ValType::I32),
        wasmparser::ValType::I64 => Some(ValType::I64),
        wasmparser::ValType::F32 => Some(ValType::F32),
        wasmparser::ValType::F64 => Some(ValType::F64),
        _ => None,
    };
    let CompositeInnerType::Func(ty) = ty else { return None };
    let params: Option<Vec<_>> = ty.params().iter().map(number).collect();
    let results: Option<Vec<_>> = ty.results().iter().map(number).collect();
    Some(FuncType::new(engine, params?, results?))
}

/// Those of a component's imports that are not here. A linker cannot be asked what is in it.
pub(crate) fn missing_of_component<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_further =
        |name: &str| config::is_interface(name) || keyvalue::is_interface(name) || logging::is_interface(name);
    let is_provided = |name: &str| is_wasi(name) || is_further(name);
    names.filter(|name| !is_provided(name)).map(str::to_owned).collect()
}

/// Whether it is one of the packages of the `wasi:cli/command` and `wasi:http/proxy` worlds, in a version that is compatible with ours.
fn is_wasi(name: &str) -> bool {
    const PACKAGES: [&str; 6] =
        ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:random", "wasi:sockets"];
    name.split_once('@').is_some_and(|(interface, version)| {
        let package = interface.split_once('/').map(|(package, _)| package);
        package.is_some_and(|package| match PACKAGES.contains(&package) {
            true => version.starts_with("0.2.") || version.starts_with("0.3.") && !version.contains('-'),
            false => package == "wasi:io" && version.starts_with("0.2."),
        })
    })
}

/// What a component imports, and its bytes up to the last import.
struct ComponentImports<'a> {
    names: Vec<&'a str>,
    /// A component that imports the same and does nothing. None if there is code before the last import, which would
    /// have to be compiled.
    head: Option<&'a [u8]>,
}

impl<'a> ComponentImports<'a> {
    fn parse(wasm: &'a [u8]) -> wasmparser::Result<Self> {
        let mut imports = Self { names: Vec::new(), head: Some(&wasm[..8]) };
        let mut depth = 0_u32;
        let mut has_code = false;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                    depth += 1;
                    has_code = true;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    imports.head = (!has_code).then(|| &wasm[..section.range().end]);
                    for import in section {
                        imports.names.push(import?.name.name);
                    }
                }
                _ => {}
            }
        }
        Ok(imports)
    }

    /// What keeps them from being linked, if anything does; where that cannot be tried, the names decide.
    fn link_error(&self, profile: Profile) -> wasmtime::Result<Option<String>> {
        let Some(head) = self.head else {
            return Ok(missing_of_component(self.names.iter().copied()).into_iter().next());
        };
        let engine = engine::compiler(profile, 0)?;
        let component = Component::new(&engine, head)?;
        let linker = wasi_p2::linker(&engine, profile.concurrent, &Parts::named(self.names.iter().copied()))?;
        Ok(linker.instantiate_pre(&component).err().map(|error| format!("{error:#}")))
    }
}
