//! Calling one function that a program exports, with arguments and results in WAVE (the component model's text for values).

use crate::{RunError, module, parts::Parts, state::State, stdio::Output, wasi_p2};
use wasmtime::{
    Engine, ExternType, InstancePre, Module, Store, Val as CoreVal, ValType,
    component::{
        self, Component, ComponentExportIndex, Val,
        types::{ComponentFunc, ComponentItem},
        wasm_wave::{
            untyped::UntypedFuncCall,
            wasm::{DisplayFuncResults, WasmFunc, WasmValue},
        },
    },
};

/// What a module of the kind called reactor wants called before anything else.
const INITIALIZE: &str = "_initialize";

/// A call that is ready: the function found, the arguments of its types.
#[derive(Clone)]
pub(crate) enum Call {
    /// Of a module.
    Module { module: InstancePre<State>, function: String, arguments: Vec<CoreVal>, results: Vec<ValType> },
    /// Of a component.
    Component {
        component: component::InstancePre<State>,
        function: ComponentExportIndex,
        arguments: Vec<Val>,
        results: usize,
    },
}

/// `name(arguments)`, taken apart.
struct Words<'a> {
    name: &'a str,
    arguments: UntypedFuncCall<'static>,
}

impl<'a> Words<'a> {
    fn parse(text: &'a str) -> Result<Self, RunError> {
        let (name, arguments) = match text.find('(') {
            Some(at) => (text[..at].trim(), &text[at..]),
            None => (text.trim(), "()"),
        };
        // What names WAVE knows does not matter: which there are the program says.
        let arguments = UntypedFuncCall::parse(&format!("f{arguments}")).map(UntypedFuncCall::into_owned);
        match arguments {
            Ok(arguments) if !name.is_empty() => Ok(Self { name, arguments }),
            Ok(_) => Err(RunError::Call { call: text.to_owned(), detail: "it names no function".to_owned() }),
            Err(error) => Err(RunError::Call { call: text.to_owned(), detail: error.to_string() }),
        }
    }

    fn arguments<V: WasmValue + 'static>(&self, types: &[V::Type]) -> Result<Vec<V>, RunError> {
        let told = |detail: String| RunError::Call { call: self.name.to_owned(), detail };
        self.arguments.to_wasm_params::<V>(types).map_err(|error| told(error.to_string()))
    }
}

/// Finds a module's function, and checks that all its imports are there.
pub(crate) fn of_module(engine: &Engine, module: &Module, call: &str) -> Result<Call, RunError> {
    let words = Words::parse(call)?;
    let told = |detail: String| RunError::Call { call: call.to_owned(), detail };
    let Some(ExternType::Func(ty)) = module.get_export(words.name) else {
        let functions = module.exports().filter(|export| matches!(export.ty(), ExternType::Func(_)));
        return Err(no_such_function(call, &functions.map(|export| export.name().to_owned()).collect::<Vec<_>>()));
    };
    if ty.params().chain(ty.results()).any(|ty| !is_number(&ty)) {
        return Err(told(format!("its type is {ty}, and only numbers have a text")));
    }
    let arguments = words.arguments::<CoreVal>(&WasmFunc::params(&ty).collect::<Vec<_>>())?;
    let results = ty.results().collect();
    let module = module::link(engine, module)?;
    Ok(Call::Module { module, function: words.name.to_owned(), arguments, results })
}

/// Finds a component's function, and checks that all its imports are there.
pub(crate) fn of_component(
    engine: &Engine,
    component: &Component,
    call: &str,
    concurrent: bool,
    parts: &Parts,
) -> Result<Call, RunError> {
    let words = Words::parse(call)?;
    let functions = functions(engine, component);
    let named: Vec<_> = functions.iter().filter(|function| function.is_called(words.name)).collect();
    let function = match named.as_slice() {
        [function] => *function,
        [] => return Err(no_such_function(call, &functions.iter().map(Function::full_name).collect::<Vec<_>>())),
        several => {
            let names: Vec<_> = several.iter().map(|function| function.full_name()).collect();
            let detail = format!("several functions are called so: {}", names.join(", "));
            return Err(RunError::Call { call: call.to_owned(), detail });
        }
    };
    let arguments = words.arguments::<Val>(&WasmFunc::params(&function.ty).collect::<Vec<_>>())?;
    let linker = wasi_p2::linker(engine, concurrent, parts).map_err(RunError::engine)?;
    let linked = linker.instantiate_pre(component);
    let linked = linked.map_err(|error| crate::component::missing(engine, component, &error))?;
    let results = function.ty.results().len();
    Ok(Call::Component { component: linked, function: function.index, arguments, results })
}

/// Calls it, and writes its results as one line to standard output.
pub(crate) async fn start(call: &Call, store: &mut Store<State>) -> wasmtime::Result<()> {
    let line = match call {
        Call::Module { module, function, arguments, results } => {
            let instance = module.instantiate_async(&mut *store).await?;
            if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE) {
                initialize.call_async(&mut *store, ()).await?;
            }
            let function = instance.get_func(&mut *store, function).ok_or_else(vanished)?;
            let mut found = vec![CoreVal::I32(0); results.len()];
            function.call_async(&mut *store, arguments, &mut found).await?;
            text(&found)
        }
        Call::Component { component, function, arguments, results } => {
            let instance = component.instantiate_async(&mut *store).await?;
            let function = instance.get_func(&mut *store, *function).ok_or_else(vanished)?;
            let mut found = vec![Val::Bool(false); *results];
            function.call_async(&mut *store, arguments, &mut found).await?;
            text(&found)
        }
    };
    let memory = store.data().memory.clone();
    Ok(Output::stdout(memory, None).write_whole(line.as_bytes()).map_err(std::io::Error::from)?)
}

/// One line, or nothing.
fn text(results: &[impl WasmValue]) -> String {
    if results.is_empty() { String::new() } else { format!("{}\n", DisplayFuncResults(results)) }
}

fn vanished() -> wasmtime::Error {
    wasmtime::Error::msg("the function that was found is not there")
}

/// A function that a component exports, alone or in an instance.
struct Function {
    instance: Option<String>,
    name: String,
    index: ComponentExportIndex,
    ty: ComponentFunc,
}

impl Function {
    fn full_name(&self) -> String {
        self.instance.as_ref().map_or_else(|| self.name.clone(), |instance| format!("{instance}#{}", self.name))
    }

    /// `f`, `ns:package/interface@1.0.0#f`, `ns:package/interface.f@1.0.0`, and these without the version.
    fn is_called(&self, name: &str) -> bool {
        if name == self.name {
            return true;
        }
        let Some(instance) = &self.instance else { return false };
        let (interface, version) =
            instance.split_once('@').map_or((&**instance, None), |(name, version)| (name, Some(version)));
        let plain = [format!("{interface}#{}", self.name), format!("{interface}.{}", self.name)];
        let exact = version
            .map(|version| [format!("{instance}#{}", self.name), format!("{interface}.{}@{version}", self.name)]);
        plain.iter().chain(exact.iter().flatten()).any(|spelling| spelling == name)
    }
}

fn functions(engine: &Engine, component: &Component) -> Vec<Function> {
    let mut functions = Vec::new();
    let exports = component.component_type();
    for (name, _) in exports.exports(engine) {
        match component.get_export(None, name) {
            Some((ComponentItem::ComponentFunc(ty), index)) => {
                functions.push(Function { instance: None, name: name.to_owned(), index, ty });
            }
            Some((ComponentItem::ComponentInstance(instance), within)) => {
                for (inner, _) in instance.exports(engine) {
                    if let Some((ComponentItem::ComponentFunc(ty), index)) = component.get_export(Some(&within), inner)
                    {
                        functions.push(Function { instance: Some(name.to_owned()), name: inner.to_owned(), index, ty });
                    }
                }
            }
            _ => {}
        }
    }
    functions
}

fn no_such_function(call: &str, there: &[String]) -> RunError {
    let there =
        if there.is_empty() { "it exports none".to_owned() } else { format!("it exports {}", there.join(", ")) };
    RunError::Call { call: call.to_owned(), detail: format!("there is no such function; {there}") }
}

/// Whether it has a text.
fn is_number(ty: &ValType) -> bool {
    matches!(ty, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_taken_apart() {
        for (text, name) in [("f(1, \"x\")", "f"), (" a:b/c.f@1.0.0 ([1, 2])", "a:b/c.f@1.0.0"), ("f", "f")] {
            assert_eq!(Words::parse(text).unwrap().name, name, "{text}");
        }
        for text in ["", "(1)", "f(1", "f(1))", "f(1) g", "f(\u{0})"] {
            assert!(matches!(Words::parse(text), Err(RunError::Call { .. })), "{text}");
        }
    }
}
