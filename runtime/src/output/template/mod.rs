//! Go's text/template, which `--format` is, over JSON values, with the functions that Docker adds.
//!
//! ```text
//! text → lex → tokens → parse → nodes → apply → text
//!                                         functions, printf, value
//! ```
//!
//! Actions, pipelines, variables, `if`, `range`, `with`, `break`, `continue`, `template`, `define` and `block`, trim markers, and
//! the errors are Go's. What differs: values are JSON, so there are no methods but `.Label` of a row; what a template does is
//! bounded; and what it prints of a value is harmless (see [`value::Val`]).

mod apply;
mod functions;
mod lex;
mod literal;
mod parse;
mod printf;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{harmless, harmless_json};

/// A template that cannot be used: Go's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It does not parse.
    #[error("{0}")]
    Syntax(String),
    /// What it is applied to does not have what it names, or not in the form that it needs.
    #[error("{0}")]
    Apply(String),
}

impl TemplateError {
    fn parse(words: &str, source: &str, at: usize, problem: &str) -> Self {
        let line = 1 + before(source, at).matches('\n').count();
        Self::Syntax(harmless(&format!("{words}: template: :{line}: {problem}")).into_owned())
    }

    /// `node` is what of the template could not be applied.
    fn apply(words: &str, source: &str, at: usize, node: &str, problem: &str) -> Self {
        let before = before(source, at);
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |index| index + 1);
        let sentence = format!("template: :{line}:{column}: executing \"\" at <{node}>: {problem}");
        Self::Apply(harmless(&format!("{words}: {sentence}")).into_owned())
    }
}

fn before(source: &str, at: usize) -> &str {
    source.get(..at).unwrap_or(source)
}

/// What a template is applied to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// An object, as a rule.
    pub(crate) fields: Value,
    /// What `.Label "name"` gives.
    pub(crate) labels: BTreeMap<String, String>,
}

impl From<Value> for Row {
    fn from(fields: Value) -> Self {
        Self { fields, labels: BTreeMap::new() }
    }
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    /// Before the words of an error while it is applied.
    words: &'static str,
    tree: parse::Tree,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What was found, and where.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_as(text, ["template parsing error"; 2])
    }

    /// `words` begin the errors of parsing and of applying.
    fn parse_as(text: &str, words: [&'static str; 2]) -> Result<Self, TemplateError> {
        let tree = parse::parse(text).map_err(|(at, problem)| TemplateError::parse(words[0], text, at, &problem))?;
        Ok(Self { source: text.to_owned(), words: words[1], tree })
    }

    /// The same for one of a list's lines: outside of actions `\t` and `\n` stand for a tab and a new line.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn parse_line(text: &str) -> Result<Self, TemplateError> {
        Self::parse_as(&with_tabs(text), ["failed to parse template", "failed to execute template"])
    }

    /// Renders one value.
    ///
    /// # Errors
    /// A field that the value does not have, by name, with those that it has; a function that cannot work on what it was given.
    pub(crate) fn render(&self, row: &Row) -> Result<String, TemplateError> {
        apply::apply(self, row, false)
    }

    /// Renders the line above a table: fields become their headers, and Docker's functions pass them on.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(crate) fn render_header(&self, headers: &Row) -> Result<String, TemplateError> {
        apply::apply(self, headers, true)
    }
}

/// Docker replaces them everywhere, and by that breaks `{{join .List "\n"}}`.
fn with_tabs(text: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let end = rest[start..].find("}}").map_or(rest.len(), |end| start + end);
        replaced.push_str(&rest[..start].replace(r"\t", "\t").replace(r"\n", "\n"));
        replaced.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    replaced.push_str(&rest.replace(r"\t", "\t").replace(r"\n", "\n"));
    replaced
}

/// A value in a cell of a table, with nothing in it that a terminal obeys.
pub(super) fn shown(value: &Value) -> String {
    value::Val::found(value).printed()
}
