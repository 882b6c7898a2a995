//! The part of Go's text/template that `--format` is used for, over JSON values.
//!
//! Fields (`.`, `.A.B`, `(…).A`), strings, numbers, `true` and `false`; pipelines with `|`; `if`, `else if`, `else`,
//! `range`, `with`, `end`; `{{-` and `-}}`; and the functions of [`call`]. Variables, comparisons beyond `eq` and `ne`, and
//! nested definitions are not there. Outside of actions `\t` and `\n` stand for a tab and a new line, as Docker has it.

mod parse;

use parse::{Branch, Call, Node, Operand, Pipeline};
use serde_json::{Map, Value};

use super::{harmless, harmless_json};

/// A template that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It does not parse.
    #[error("invalid format template: {0}")]
    Syntax(String),
    /// A field that is not there, or a function that cannot work on what it was given.
    #[error("cannot apply the format template: {0}")]
    Apply(String),
}

fn apply_error(problem: impl Into<String>) -> TemplateError {
    TemplateError::Apply(harmless(&problem.into()).into_owned())
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What was found, and what was expected in its place.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let one_line = |problem: String| TemplateError::Syntax(harmless(&problem).into_owned());
        parse::parse(text).map(|nodes| Self { nodes }).map_err(one_line)
    }

    /// Renders one value.
    ///
    /// # Errors
    /// A field that the value does not have, by name, with those that it has.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        render(&self.nodes, value, Mode::Row)
    }

    /// Renders the line above a table: fields become their headers, functions pass them on, and a field without a header
    /// becomes its own name.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(crate) fn render_header(&self, headers: &Value) -> Result<String, TemplateError> {
        render(&self.nodes, headers, Mode::Header)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Row,
    Header,
}

fn render(nodes: &[Node], dot: &Value, mode: Mode) -> Result<String, TemplateError> {
    let mut output = String::new();
    for node in nodes {
        render_node(node, dot, mode, &mut output)?;
    }
    Ok(output)
}

fn render_node(node: &Node, dot: &Value, mode: Mode, output: &mut String) -> Result<(), TemplateError> {
    match node {
        Node::Text(literal) => output.push_str(literal),
        Node::Print(pipeline) => {
            let value = evaluate(pipeline, dot, mode)?;
            output.push_str(&if makes_text(pipeline) { text(&value) } else { shown(&value) });
        }
        Node::If(branches) => {
            if let Some((branch, _)) = chosen(branches, dot, mode)? {
                output.push_str(&render(&branch.body, dot, mode)?);
            }
        }
        Node::With(branches) => {
            if let Some((branch, value)) = chosen(branches, dot, mode)? {
                output.push_str(&render(&branch.body, value.as_ref().unwrap_or(dot), mode)?);
            }
        }
        Node::Range { over, body, otherwise } => {
            let items = items(evaluate(over, dot, mode)?, mode)?;
            if items.is_empty() {
                output.push_str(&render(otherwise, dot, mode)?);
            }
            for item in &items {
                output.push_str(&render(body, item, mode)?);
            }
        }
    }
    Ok(())
}

/// The first branch whose condition holds, with the condition's value; `else` has none.
fn chosen<'a>(
    branches: &'a [Branch],
    dot: &Value,
    mode: Mode,
) -> Result<Option<(&'a Branch, Option<Value>)>, TemplateError> {
    for branch in branches {
        let Some(condition) = &branch.condition else { return Ok(Some((branch, None))) };
        let value = evaluate(condition, dot, mode)?;
        if is_true(&value) {
            return Ok(Some((branch, Some(value))));
        }
    }
    Ok(None)
}

fn items(value: Value, mode: Mode) -> Result<Vec<Value>, TemplateError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Object(entries) => Ok(entries.into_iter().map(|(_, value)| value).collect()),
        Value::Null => Ok(Vec::new()),
        header if mode == Mode::Header => Ok(vec![header]),
        other => Err(apply_error(format!("`range` needs a list, and found `{}`", text(&other)))),
    }
}

fn evaluate(pipeline: &Pipeline, dot: &Value, mode: Mode) -> Result<Value, TemplateError> {
    let mut piped = None;
    for call in &pipeline.calls {
        piped = Some(evaluate_call(call, piped, dot, mode)?);
    }
    Ok(piped.unwrap_or(Value::Null))
}

fn evaluate_call(call: &Call, piped: Option<Value>, dot: &Value, mode: Mode) -> Result<Value, TemplateError> {
    match call {
        Call::Operand(operand) => evaluate_operand(operand, dot, mode),
        Call::Function { name, arguments } => {
            let is_piped = piped.is_some();
            let mut values =
                arguments.iter().map(|operand| evaluate_operand(operand, dot, mode)).collect::<Result<Vec<_>, _>>()?;
            values.extend(piped);
            match mode {
                Mode::Row => self::call(name, &values),
                Mode::Header => Ok(if is_piped { values.pop() } else { values.into_iter().next() }.unwrap_or_default()),
            }
        }
    }
}

fn evaluate_operand(operand: &Operand, dot: &Value, mode: Mode) -> Result<Value, TemplateError> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Fields(path) => walk(dot, path, mode),
        Operand::Nested(pipeline, path) => walk(&evaluate(pipeline, dot, mode)?, path, mode),
    }
}

fn walk(value: &Value, path: &[String], mode: Mode) -> Result<Value, TemplateError> {
    if let (Mode::Header, Some(last)) = (mode, path.last()) {
        return Ok(value.get(last).cloned().unwrap_or_else(|| last.to_uppercase().into()));
    }
    let mut value = value;
    for name in path {
        value = match value {
            Value::Object(fields) => fields.get(name).ok_or_else(|| no_field(name, fields))?,
            Value::Null => return Ok(Value::Null),
            other => return Err(apply_error(format!("`{}` has no field `.{name}`", text(other)))),
        };
    }
    Ok(value.clone())
}

fn no_field(name: &str, fields: &Map<String, Value>) -> TemplateError {
    let names: Vec<String> = fields.keys().map(|field| format!(".{field}")).collect();
    apply_error(format!("there is no field `.{name}`; there are: {}", names.join(", ")))
}

/// Whether what a pipeline gives is text that a function made or the user typed, whose lines are meant; else it is a value,
/// which is shown so that nothing in it reaches a terminal as a command or looks like a row of its own.
fn makes_text(pipeline: &Pipeline) -> bool {
    match pipeline.calls.last() {
        Some(Call::Operand(Operand::Literal(_))) => true,
        Some(Call::Operand(Operand::Nested(pipeline, path))) => path.is_empty() && makes_text(pipeline),
        Some(Call::Operand(Operand::Fields(_))) | None => false,
        Some(Call::Function { name, .. }) => name != "index",
    }
}

/// The functions. Those that make text of values show them harmlessly. Go's meaning, but that `eq` compares any two values, and `index` of what is not there is empty.
fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    match (name, arguments) {
        ("json", [value]) => Ok(harmless_json(&value.to_string()).into()),
        ("join", [Value::Array(items), Value::String(separator)]) => {
            Ok(items.iter().map(shown).collect::<Vec<_>>().join(separator).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("upper", [value]) => Ok(shown(value).to_uppercase().into()),
        ("lower", [value]) => Ok(shown(value).to_lowercase().into()),
        ("println", values) => Ok(format!("{}\n", values.iter().map(shown).collect::<Vec<_>>().join(" ")).into()),
        ("len", [value]) => length(value).map(Value::from),
        ("index", [value, keys @ ..]) => Ok(keys.iter().fold(value, |value, key| index(value, key)).clone()),
        ("not", [value]) => Ok((!is_true(value)).into()),
        ("eq", [first, others @ ..]) if !others.is_empty() => Ok(others.contains(first).into()),
        ("ne", [first, second]) => Ok((first != second).into()),
        _ => {
            let given: Vec<String> = arguments.iter().map(text).collect();
            Err(apply_error(format!("`{name}` cannot work on `{}`", given.join("`, `"))))
        }
    }
}

/// What [`call`] knows, for the parser and its errors.
const FUNCTIONS: [&str; 10] = ["eq", "index", "join", "json", "len", "lower", "ne", "not", "println", "upper"];

fn length(value: &Value) -> Result<usize, TemplateError> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Null => Ok(0),
        other => Err(apply_error(format!("`{}` has no length", text(other)))),
    }
}

fn index<'a>(value: &'a Value, key: &Value) -> &'a Value {
    static EMPTY: Value = Value::String(String::new());
    let found = match key {
        Value::String(name) => value.get(name.as_str()),
        key => key.as_u64().and_then(|index| value.get(usize::try_from(index).ok()?)),
    };
    found.unwrap_or(&EMPTY)
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as it is shown: [`text`], with nothing in it that a terminal obeys.
pub(super) fn shown(value: &Value) -> String {
    harmless(&text(value)).into_owned()
}

/// A value as Go prints it: lists as `[a b]`, maps as `map[a:1 b:2]`.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{}", text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "ID": "abc", "Size": 12, "Empty": "", "Running": true, "Nothing": null,
            "State": {"ExitCode": 3, "Status": "exited"},
            "Names": ["web", "db"],
            "Labels": {"a.b/c": "x", "tier": "front"},
            "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}],
        })
    }

    fn render(template: &str) -> Result<String, TemplateError> {
        Template::parse(template)?.render(&sample())
    }

    #[test]
    fn templates_are_applied() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            (r"a\tb\nc\d", "a\tb\nc\\d"),
            ("{{.ID}}", "abc"),
            ("{{ .ID }}-{{.State.ExitCode}}", "abc-3"),
            ("{{.Names}} {{.Labels}}", "[web db] map[a.b/c:x tier:front]"),
            ("{{.Nothing}}", "<no value>"),
            ("{{.Nothing.More}}", "<no value>"),
            ("{{json .State}}", r#"{"ExitCode":3,"Status":"exited"}"#),
            ("{{json .ID}}", r#""abc""#),
            (r#"{{join .Names ", "}}"#, "web, db"),
            (r#"{{join .Names "\n"}}"#, "web\ndb"),
            ("{{join .Names `|`}}", "web|db"),
            ("{{upper .ID}}{{.ID | upper | lower}}", "ABCabc"),
            (r#"{{.Names | json}}"#, r#"["web","db"]"#),
            ("{{range .Names}}<{{.}}>{{end}}", "<web><db>"),
            ("{{range .Mounts}}{{.Source}}{{if .RW}} rw{{else}} ro{{end}};{{end}}", "/a rw;/b ro;"),
            ("{{range .Labels}}{{.}},{{end}}", "x,front,"),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            ("{{if .Empty}}a{{else if .Running}}b{{else}}c{{end}}", "b"),
            (r#"{{if eq .State.Status "running" "exited"}}done{{end}}"#, "done"),
            (r#"{{if ne .Size 12}}x{{else}}y{{end}}"#, "y"),
            ("{{if not .Running}}x{{end}}", ""),
            ("{{with .State}}{{.ExitCode}}{{end}}{{with .Empty}}x{{else}}{{.ID}}{{end}}", "3abc"),
            (r#"{{index .Labels "a.b/c"}}|{{index .Labels "no"}}|{{index .Names 1}}"#, "x||db"),
            (r#"{{(index .Mounts 0).Source}}"#, "/a"),
            (r#"{{if eq (len .Names) 2}}two{{end}}"#, "two"),
            ("a {{- .ID -}} b", "aabcb"),
            (r#"{{"}}"}}{{true}}{{7}}"#, "}}true7"),
            ("{{println .ID .Size}}", "abc 12\n"),
            ("{{/* nothing }} */}}x", "x"),
            ("a {{- /* nothing */ -}} x", "ax"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn a_label_forges_no_row_and_commands_no_terminal() {
        let hostile = json!({"Labels": "a=b\nforged row\u{1b}[2J", "List": ["x\ny", "\u{9b}z"], "L": {"k\n": "v\r"}});
        for (template, expected) in [
            ("{{.Labels}}", "a=b\\nforged row\\u{1b}[2J"),
            ("{{(.Labels)}}", "a=b\\nforged row\\u{1b}[2J"),
            ("{{.List}}", "[x\\ny \\u{9b}z]"),
            ("{{.L}}", "map[k\\n:v\\r]"),
            (r#"{{index .L "k\n"}}"#, "v\\r"),
            (r#"{{join .List "\n"}}"#, "x\\ny\n\\u{9b}z"),
            ("{{range .List}}{{.}};{{end}}", "x\\ny;\\u{9b}z;"),
            ("{{println .Labels}}", "a=b\\nforged row\\u{1b}[2J\n"),
            ("{{json .List}}", r#"["x\ny","\u009bz"]"#),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&hostile).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_does_not_parse_is_named() {
        for (template, problem) in [
            ("{{.ID", "`{{` without `}}`"),
            ("{{if .ID}}x", "`if` without `end`"),
            ("{{range .ID}}{{else}}x", "`range` without `end`"),
            ("{{end}}", "`end` without"),
            ("{{else}}", "`else` without"),
            ("{{}}", "an empty action"),
            ("{{truncate .ID 3}}", "unknown function `truncate`; there are: eq, index"),
            ("{{$x := .ID}}", "`$`"),
            ("{{.ID | }}", "expected a value"),
            ("{{.ID .Size}}", "unexpected"),
            (r#"{{"abc}}"#, "a string is not closed"),
            ("{{(.ID}}", "`(` without `)`"),
            ("{{if}}x{{end}}", "an empty action"),
            ("{{/* nothing", "a comment is not closed"),
            ("{{/* nothing */ .ID}}", "after a comment"),
            ("{{if .ID}}{{else}}{{else}}{{end}}", "`else` after `else`"),
            ("{{.ID\n~}}", "unexpected `~` in `{{.ID\\n~}}`"),
            (&"{{if .ID}}".repeat(10_000), "deeper than 64"),
            (&"{{if .ID}}x{{else}}{{with .ID}}".repeat(10_000), "deeper than 64"),
            (&format!("{{{{{}", "(".repeat(100_000)), "deeper than 64"),
        ] {
            let message = Template::parse(template).unwrap_err().to_string();
            assert!(
                message.starts_with("invalid format template: ") && message.contains(problem),
                "{template}: {message}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (template, problem) in [
            ("{{.Id}}", "there is no field `.Id`; there are: .Empty, .ID, .Labels"),
            ("{{.ID.More}}", "`abc` has no field `.More`"),
            ("{{range .ID}}{{end}}", "`range` needs a list, and found `abc`"),
            ("{{join .ID}}", "`join` cannot work on `abc`"),
            ("{{len .Size}}", "`12` has no length"),
        ] {
            let message = render(template).unwrap_err().to_string();
            assert!(
                message.starts_with("cannot apply the format template: ") && message.contains(problem),
                "{message}"
            );
        }
    }

    #[test]
    fn headers_stand_for_their_fields() {
        let headers = json!({"ID": "CONTAINER ID"});
        for (template, expected) in [
            ("{{.ID}}\t{{.Other}}", "CONTAINER ID\tOTHER"),
            ("{{json .ID}}", "CONTAINER ID"),
            (r#"{{join .Names ","}}"#, "NAMES"),
            (r#"{{.Names | join ","}}"#, "NAMES"),
            ("{{.State.Status}}", "STATUS"),
        ] {
            assert_eq!(
                Template::parse(template).unwrap().render_header(&headers).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
    }
}
