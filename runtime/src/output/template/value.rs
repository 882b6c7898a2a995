//! Values while a template is applied, and how Go prints them.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::harmless;

/// A value, and whether it is text that a function made or the user typed, whose lines are meant. Any other is shown so that
/// nothing in it reaches a terminal as a command or looks like a row of its own.
#[derive(Debug, Clone)]
pub(super) struct Val<'d> {
    pub(super) value: Cow<'d, Value>,
    pub(super) made: bool,
}

impl<'d> Val<'d> {
    pub(super) fn made(value: impl Into<Value>) -> Self {
        Self { value: Cow::Owned(value.into()), made: true }
    }

    pub(super) fn found(value: &'d Value) -> Self {
        Self { value: Cow::Borrowed(value), made: false }
    }

    /// A part of this one.
    pub(super) fn part(&self, of: impl for<'a> FnOnce(&'a Value) -> Option<&'a Value>) -> Option<Self> {
        let value = match &self.value {
            Cow::Borrowed(value) => Cow::Borrowed(of(value)?),
            Cow::Owned(value) => Cow::Owned(of(value)?.clone()),
        };
        Some(Self { value, made: self.made })
    }

    /// As an action prints it.
    pub(super) fn printed(&self) -> String {
        match self.value.as_ref() {
            Value::Null => "<no value>".to_owned(),
            value => self.shown(&text(value)),
        }
    }

    /// Text of this value, harmless.
    pub(super) fn shown(&self, text: &str) -> String {
        if self.made { text.to_owned() } else { harmless(text).into_owned() }
    }
}

/// A value as Go prints it: lists as `[a b]`, maps as `map[a:1 b:2]`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => decimal(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{}", text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

/// Floats as `%v` has them: with an exponent where they are very small or very large.
fn decimal(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        None => number.to_string(),
        Some(float) => {
            let exponent = format!("{float:e}");
            let power: i32 = exponent.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
            if (-4..21).contains(&power) { float.to_string() } else { go_exponent(&exponent) }
        }
    }
}

/// `1e21` as Go writes it: `1e+21`.
pub(super) fn go_exponent(text: &str) -> String {
    let Some((mantissa, power)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = power.strip_prefix('-').map_or(('+', power), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// As Go names the type.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// How much memory it takes, about.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 32,
        Value::Array(items) => 32 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => 32 + fields.iter().map(|(name, value)| name.len() + weight(value)).sum::<usize>(),
        _ => 32,
    }
}
