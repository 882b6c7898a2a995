//! The functions: Go's own, and those that Docker adds.
//!
//! Those that make text of values show them harmlessly.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{
    harmless_json,
    printf::{sprint, sprintf, sprintln},
    value::{Val, is_true, text, type_of},
};

/// All there are. `and` and `or` are where arguments are evaluated.
const NAMES: [&str; 26] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower", "lt", "ne", "not", "or",
    "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Docker's own functions, which leave the header above a column as it is.
pub(super) fn passes_headers_on(name: &str) -> bool {
    matches!(name, "join" | "json" | "lower" | "pad" | "split" | "title" | "truncate" | "upper")
}

/// Why a function does not work, in Go's words.
#[derive(Debug)]
pub(super) enum Problem {
    /// It was given too few, or too many.
    Count(String),
    /// What one of its arguments is.
    Argument { index: usize, expected: &'static str, found: &'static str },
    /// It was called, and failed.
    Call(String),
}

type Called<'d> = Result<Val<'d>, Problem>;
type Worked<'d> = Result<Val<'d>, String>;

/// What a function makes of its arguments.
pub(super) fn call<'d>(name: &str, given: &[Val<'d>]) -> Called<'d> {
    check_count(name, given.len()).map_err(Problem::Count)?;
    let worked =
        |worked: Worked<'d>| worked.map_err(|problem| Problem::Call(format!("error calling {name}: {problem}")));
    match name {
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => worked(compared(name, given)),
        "index" => worked(index(given)),
        "slice" => worked(slice(given)),
        "len" => worked(length(&given[0])),
        "not" => Ok(Val::made(!is_true(&given[0].value))),
        "print" => Ok(Val::made(sprint(given))),
        "println" => Ok(Val::made(sprintln(given))),
        "printf" => Ok(Val::made(sprintf(&string(given, 0)?, &given[1..]))),
        "html" => Ok(Val::made(escaped_for_html(&to_escape(given)))),
        "js" => Ok(Val::made(escaped_for_js(&to_escape(given)))),
        "urlquery" => Ok(Val::made(escaped_for_a_query(&to_escape(given)))),
        _ => dockers(name, given),
    }
}

fn dockers<'d>(name: &str, given: &[Val<'d>]) -> Called<'d> {
    match name {
        "json" => Ok(Val::made(harmless_json(&given[0].value.to_string()).into_owned())),
        "join" => join(&given[0], &string(given, 1)?),
        "split" => split(given),
        "lower" => shown(given, 0).map(|text| Val::made(text.to_lowercase())),
        "upper" => shown(given, 0).map(|text| Val::made(text.to_uppercase())),
        "title" => shown(given, 0).map(|text| Val::made(titled(&text))),
        "truncate" => {
            let (text, length) = (shown(given, 0)?, whole(given, 1)?);
            let length = usize::try_from(length).unwrap_or(0);
            Ok(Val::made(text.chars().take(length).collect::<String>()))
        }
        // `pad`, as all others are taken.
        _ => {
            let (text, before, after) = (shown(given, 0)?, whole(given, 1)?, whole(given, 2)?);
            let spaces = |count: i64| " ".repeat(usize::try_from(count.clamp(0, WIDEST)).unwrap_or(0));
            let padded = if text.is_empty() { text } else { format!("{}{text}{}", spaces(before), spaces(after)) };
            Ok(Val::made(padded))
        }
    }
}

/// As far as anything is padded.
pub(super) const WIDEST: i64 = 1_000_000;

fn check_count(name: &str, given: usize) -> Result<(), String> {
    let (least, most) = match name {
        "printf" | "index" | "slice" | "eq" | "and" | "or" => (1, usize::MAX),
        "ne" | "lt" | "le" | "gt" | "ge" | "join" | "split" | "truncate" => (2, 2),
        "pad" => (3, 3),
        "print" | "println" | "html" | "js" | "urlquery" => (0, usize::MAX),
        _ => (1, 1),
    };
    match (given < least, given > most) {
        (true, _) if most == usize::MAX => {
            Err(format!("wrong number of args for {name}: want at least {least} got {given}"))
        }
        (true, _) | (_, true) => Err(format!("wrong number of args for {name}: want {least} got {given}")),
        _ => Ok(()),
    }
}

/// Text that is used as it is, and not shown.
fn string(given: &[Val], index: usize) -> Result<String, Problem> {
    match given[index].value.as_ref() {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong_type(index, "string", other)),
    }
}

fn shown(given: &[Val], index: usize) -> Result<String, Problem> {
    string(given, index).map(|text| given[index].shown(&text))
}

fn whole(given: &[Val], index: usize) -> Result<i64, Problem> {
    let value = given[index].value.as_ref();
    value.as_i64().ok_or_else(|| wrong_type(index, "int", value))
}

fn wrong_type(index: usize, expected: &'static str, found: &Value) -> Problem {
    Problem::Argument { index, expected, found: type_of(found) }
}

fn join<'d>(list: &Val<'d>, separator: &str) -> Called<'d> {
    match list.value.as_ref() {
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(|item| list.shown(&text(item))).collect();
            Ok(Val::made(texts.join(separator)))
        }
        Value::Null => Ok(Val::made("")),
        other => Err(wrong_type(0, "[]string", other)),
    }
}

/// The parts are shown as what they are parts of.
fn split<'d>(given: &[Val<'d>]) -> Called<'d> {
    let (text, separator) = (string(given, 0)?, string(given, 1)?);
    let parts: Vec<Value> = match separator.as_str() {
        "" => text.chars().map(|character| character.to_string().into()).collect(),
        separator => text.split(separator).map(Value::from).collect(),
    };
    Ok(Val { made: given[0].made, ..Val::made(parts) })
}

fn titled(text: &str) -> String {
    let mut before = ' ';
    let title = |character: char| {
        let begins = !(before.is_alphanumeric() || before == '_' || before == '\'');
        before = character;
        if begins { character.to_uppercase().collect::<String>() } else { character.to_string() }
    };
    text.chars().map(title).collect()
}

fn length<'d>(value: &Val<'d>) -> Worked<'d> {
    match value.value.as_ref() {
        Value::String(text) => Ok(Val::made(text.len())),
        Value::Array(items) => Ok(Val::made(items.len())),
        Value::Object(fields) => Ok(Val::made(fields.len())),
        // A list or a map that is not there.
        Value::Null => Ok(Val::made(0)),
        other => Err(format!("len of type {}", type_of(other))),
    }
}

fn index<'d>(given: &[Val<'d>]) -> Worked<'d> {
    let mut found = given[0].clone();
    for key in &given[1..] {
        found = match (found.value.as_ref(), key.value.as_ref()) {
            (Value::Object(fields), Value::String(name)) => match fields.contains_key(name) {
                true => found.part(|map| map.get(name)).unwrap_or_else(|| Val::made(Value::Null)),
                // What a map of texts has where it has nothing.
                false if fields.values().all(Value::is_string) => Val::made(""),
                false => Val::made(Value::Null),
            },
            (Value::Object(_), other) => {
                return Err(format!("value has type {}; should be of type string", type_of(other)));
            }
            (Value::Array(items), key) => {
                let at = position(key, items.len())?;
                found.part(|list| list.get(at)).unwrap_or_else(|| Val::made(Value::Null))
            }
            (Value::String(text), key) => {
                let at = position(key, text.len())?;
                Val::made(text.as_bytes().get(at).copied().unwrap_or(0))
            }
            (Value::Null, _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", type_of(other))),
        };
    }
    Ok(found)
}

/// A place in something of this length.
fn position(key: &Value, length: usize) -> Result<usize, String> {
    let Some(number) = key.as_i64() else {
        return Err(format!("cannot index slice/array with type {}", type_of(key)));
    };
    let index = usize::try_from(number).ok().filter(|index| *index < length);
    index.ok_or_else(|| format!("index out of range: {number}"))
}

fn slice<'d>(given: &[Val<'d>]) -> Worked<'d> {
    let length = match given[0].value.as_ref() {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Null => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", type_of(other))),
    };
    if given.len() > 3 {
        return Err(format!("too many slice indexes: {}", given.len() - 1));
    }
    let bound =
        |at: usize, otherwise: usize| given.get(at).map_or(Ok(otherwise), |key| position(&key.value, length + 1));
    let (from, to) = (bound(1, 0)?, bound(2, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    let part = match given[0].value.as_ref() {
        Value::String(text) => text.get(from..to).map(Value::from),
        Value::Array(items) => items.get(from..to).map(|items| items.to_vec().into()),
        _ => None,
    };
    let part = part.ok_or_else(|| format!("index inside of a character: {from} or {to}"))?;
    Ok(Val { made: given[0].made, ..Val::made(part) })
}

fn incompatible(first: &Value, second: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", type_of(first), type_of(second))
}

fn compared<'d>(name: &str, given: &[Val<'d>]) -> Worked<'d> {
    let first = given[0].value.as_ref();
    if name == "eq" {
        if given.len() == 1 {
            return Err("missing argument for comparison".to_owned());
        }
        for other in &given[1..] {
            if equal(first, other.value.as_ref())? {
                return Ok(Val::made(true));
            }
        }
        return Ok(Val::made(false));
    }
    let second = given[1].value.as_ref();
    if name == "ne" {
        return equal(first, second).map(|equal| Val::made(!equal));
    }
    let order = ordered(first, second)?;
    Ok(Val::made(match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn equal(first: &Value, second: &Value) -> Result<bool, String> {
    match (first, second) {
        (Value::Array(_) | Value::Object(_), Value::Null) | (Value::Null, Value::Array(_) | Value::Object(_)) => {
            Ok(false)
        }
        (Value::Array(_) | Value::Object(_), _) => {
            Err(format!("non-comparable type {}: {}", text(first), type_of(first)))
        }
        (_, Value::Array(_) | Value::Object(_)) => {
            Err(format!("non-comparable type {}: {}", text(second), type_of(second)))
        }
        (Value::Null, other) | (other, Value::Null) => Ok(other.is_null()),
        (Value::Bool(first), Value::Bool(second)) => Ok(first == second),
        _ => ordered(first, second).map(Ordering::is_eq),
    }
}

fn ordered(first: &Value, second: &Value) -> Result<Ordering, String> {
    match (first, second) {
        (Value::String(first), Value::String(second)) => Ok(first.cmp(second)),
        (Value::Number(one), Value::Number(other)) => numbers(one, other).ok_or_else(|| incompatible(first, second)),
        (Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_), _) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err(incompatible(first, second)),
    }
}

fn numbers(first: &Number, second: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(first), whole(second)) {
        (Some(first), Some(second)) => Some(first.cmp(&second)),
        (None, None) => first.as_f64()?.partial_cmp(&second.as_f64()?),
        _ => None,
    }
}

fn to_escape(given: &[Val]) -> String {
    match given {
        [one] => one.printed(),
        given => sprint(given),
    }
}

fn escaped_for_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\0' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn escaped_for_js(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\'' => escaped.push_str("\\'"),
            '"' => escaped.push_str("\\\""),
            '<' | '>' | '&' | '=' => escaped.push_str(&format!("\\u{:04X}", u32::from(character))),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn escaped_for_a_query(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
