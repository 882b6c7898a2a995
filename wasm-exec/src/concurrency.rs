//! Which components may have several calls under way at once: those of WASI 0.3, and whatever else uses the component model's
//! streams, futures and asynchronous functions.

use wasmparser::{Parser, Payload, ValidPayload, Validator, WasmFeatures};

/// Whether a component cannot be compiled without, or imports or exports of WASI 0.3.
///
/// Says no of what is malformed, of which compiling says more. Bodies of functions are not looked at.
pub(crate) fn is_needed(component: &[u8]) -> bool {
    let mut validator = Validator::new_with_features(WasmFeatures::all().difference(WasmFeatures::CM_ASYNC));
    for payload in Parser::new(0).parse_all(component) {
        let Ok(payload) = payload else { return false };
        if names_wasi_0_3(&payload) {
            return true;
        }
        match validator.payload(&payload) {
            Ok(ValidPayload::Ok | ValidPayload::Func(..) | ValidPayload::Parser(_) | ValidPayload::End(_)) => {}
            Err(_) => return true,
        }
    }
    false
}

fn names_wasi_0_3(payload: &Payload) -> bool {
    let is_of_it = |name: &str| name.starts_with("wasi:") && name.contains("@0.3.");
    match payload {
        Payload::ComponentImportSection(section) => {
            section.clone().into_iter().flatten().any(|import| is_of_it(import.name.name))
        }
        Payload::ComponentExportSection(section) => {
            section.clone().into_iter().flatten().any(|export| is_of_it(export.name.name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(text: &str) -> bool {
        is_needed(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn programs_say_whether_they_are_concurrent() {
        assert!(!needed("(component)"));
        assert!(!needed(r#"(component (import "wasi:cli/exit@0.2.9" (instance)))"#));
        assert!(needed(r#"(component (import "wasi:cli/exit@0.3.0" (instance)))"#));
        assert!(needed(r#"(component (instance $run) (export "wasi:cli/run@0.3.1" (instance $run)))"#));
        assert!(needed(r#"(component (type $bytes (stream u8)))"#));
        assert!(needed(r#"(component (component (import "work" (func async))))"#));
    }

    #[test]
    fn what_is_cut_short_is_left_to_the_compiler() {
        let whole = wat::parse_str(r#"(component (core module (func (export "a"))))"#).unwrap();
        assert!(!is_needed(&whole[..whole.len() - 3]));
    }
}
