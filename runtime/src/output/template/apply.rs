//! Nodes to text, over one value.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    Row, Template, TemplateError,
    functions::{self, Problem},
    parse::{Command, Conditional, Node, Operand, Pipeline, What},
    value::{Val, is_true, text, type_of, weight},
};

/// What one template may do: its user waits, and its machine is not to run out of memory.
const STEPS: usize = 2_000_000;
const BYTES: usize = 64 << 20;
/// The largest number that can be counted to.
const LONGEST: u64 = 100_000;
/// How deep templates may call each other.
const CALLS: usize = 50;

/// Whose fields are names that a user chose: one that is not there has no value, which is no mistake.
const MAPS: [&str; 13] = [
    "Annotations",
    "Aux",
    "ExposedPorts",
    "GraphDriver",
    "Labels",
    "LogConfig",
    "Networks",
    "Options",
    "Ports",
    "Status",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Applies a template to a row.
pub(super) fn apply(template: &Template, row: &Row, is_header: bool) -> Result<String, TemplateError> {
    let root = Val::found(&row.fields);
    let mut run = Run {
        template,
        row,
        is_header,
        output: String::new(),
        variables: vec![("$".to_owned(), root.clone())],
        steps: 0,
        bytes: 0,
        calls: 0,
    };
    run.list(&template.tree.root, &root)?;
    Ok(run.output)
}

struct Run<'d> {
    template: &'d Template,
    row: &'d Row,
    /// What is rendered is the line above a table.
    is_header: bool,
    output: String,
    variables: Vec<(String, Val<'d>)>,
    steps: usize,
    bytes: usize,
    calls: usize,
}

/// Why the rest of a list of nodes is left out.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

type Applied<T> = Result<T, TemplateError>;

impl<'d> Run<'d> {
    fn list(&mut self, nodes: &'d [Node], dot: &Val<'d>) -> Applied<Flow> {
        for node in nodes {
            match self.node(node, dot)? {
                Flow::On => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &'d Node, dot: &Val<'d>) -> Applied<Flow> {
        match node {
            Node::Text(literal) => self.print(literal, 0)?,
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.print(&value.printed(), pipeline.at)?;
                }
            }
            Node::If(conditional) => return self.conditional(conditional, dot, false),
            Node::With(conditional) => return self.conditional(conditional, dot, true),
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Template { at, name, dot: new } => self.template(*at, name, new.as_ref(), dot)?,
        }
        Ok(Flow::On)
    }

    fn print(&mut self, text: &str, at: usize) -> Applied<()> {
        self.spend(text.len(), at)?;
        self.output.push_str(text);
        Ok(())
    }

    fn spend(&mut self, bytes: usize, at: usize) -> Applied<()> {
        self.steps += 1;
        self.bytes += bytes;
        if self.steps > STEPS || self.bytes > BYTES {
            return Err(self.error(at, "", format!("it takes more than {STEPS} steps or {BYTES} bytes")));
        }
        Ok(())
    }

    fn error(&self, at: usize, node: &str, problem: impl AsRef<str>) -> TemplateError {
        TemplateError::apply(self.template.words, &self.template.source, at, node, problem.as_ref())
    }

    fn conditional(&mut self, conditional: &'d Conditional, dot: &Val<'d>, moves: bool) -> Applied<Flow> {
        let known = self.variables.len();
        let mut flow = None;
        for (pipeline, body) in &conditional.branches {
            let value = self.pipeline(pipeline, dot)?;
            if is_true(&value.value) {
                flow = Some(self.list(body, if moves { &value } else { dot })?);
                break;
            }
        }
        let flow = match flow {
            Some(flow) => flow,
            None => self.list(&conditional.otherwise, dot)?,
        };
        self.variables.truncate(known);
        Ok(flow)
    }

    fn range(&mut self, over: &'d Pipeline, body: &'d [Node], otherwise: &'d [Node], dot: &Val<'d>) -> Applied<Flow> {
        let known = self.variables.len();
        let value = self.pipeline(over, dot)?;
        let items = self.items(&value, over)?;
        if items.is_empty() {
            let flow = self.list(otherwise, dot)?;
            self.variables.truncate(known);
            return Ok(flow);
        }
        let inside = self.variables.len();
        for (key, item) in items {
            self.spend(0, over.at)?;
            self.set_loop_variables(over, key, &item);
            let flow = self.list(body, &item)?;
            self.variables.truncate(inside);
            if flow == Flow::Break {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(Flow::On)
    }

    fn set_loop_variables(&mut self, over: &Pipeline, key: Val<'d>, item: &Val<'d>) {
        let values = match over.variables.len() {
            1 => vec![item.clone()],
            _ => vec![key, item.clone()],
        };
        for (name, value) in over.variables.iter().zip(values) {
            self.set(name, value);
        }
    }

    /// What `range` visits, each with its key.
    fn items(&self, value: &Val<'d>, over: &Pipeline) -> Applied<Vec<(Val<'d>, Val<'d>)>> {
        match value.value.as_ref() {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => {
                let item = |index| value.part(|list| list.get(index)).map(|item| (Val::made(index), item));
                Ok((0..items.len()).filter_map(item).collect())
            }
            Value::Object(fields) => {
                let key = |name: &String| Val { made: value.made, ..Val::made(name.as_str()) };
                let item = |name| value.part(|map| map.get(name)).map(|item| (key(name), item));
                Ok(fields.keys().filter_map(item).collect())
            }
            Value::Number(number) if number.as_u64().is_some_and(|count| count <= LONGEST) => {
                let count = number.as_u64().unwrap_or(0);
                Ok((0..count).map(|index| (Val::made(index), Val::made(index))).collect())
            }
            Value::Number(number) if number.as_i64().is_some_and(|count| count < 0) => Ok(Vec::new()),
            // A header stands for each of the items.
            _ if self.is_header => Ok(vec![(Val::made(0), value.clone())]),
            other => Err(self.error(
                over.at,
                &over.text(),
                format!("range can't iterate over {}", value.shown(&text(other))),
            )),
        }
    }

    fn template(&mut self, at: usize, name: &str, new: Option<&'d Pipeline>, dot: &Val<'d>) -> Applied<()> {
        let given = new.map(|pipeline| format!(" {}", pipeline.text())).unwrap_or_default();
        let node = format!("{{{{template {name:?}{given}}}}}");
        let template = self.template;
        let Some(nodes) = template.tree.defined.get(name) else {
            return Err(self.error(at, &node, format!("template {name:?} not defined")));
        };
        if self.calls == CALLS {
            return Err(self.error(at, &node, format!("exceeded maximum template depth ({CALLS})")));
        }
        let dot = match new {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Val::made(Value::Null),
        };
        let outside = std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]);
        self.calls += 1;
        self.list(nodes, &dot)?;
        self.calls -= 1;
        self.variables = outside;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &'d Pipeline, dot: &Val<'d>) -> Applied<Val<'d>> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        let value = piped.unwrap_or_else(|| Val::made(Value::Null));
        for name in &pipeline.variables {
            match pipeline.assigns {
                true => self.assign(name, value.clone()),
                false => self.set(name, value.clone()),
            }
        }
        Ok(value)
    }

    fn set(&mut self, name: &str, value: Val<'d>) {
        self.variables.push((name.to_owned(), value));
    }

    fn assign(&mut self, name: &str, value: Val<'d>) {
        if let Some((_, place)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *place = value;
        }
    }

    fn command(&mut self, command: &'d Command, piped: Option<Val<'d>>, dot: &Val<'d>) -> Applied<Val<'d>> {
        self.spend(0, command.first.at)?;
        match &command.first.what {
            What::Function(name) => self.function(name, command, piped, dot),
            What::Field(path) if path.as_slice() == ["Label"] && self.is_row(dot) => self.label(command, piped, dot),
            _ if !command.arguments.is_empty() || piped.is_some() => {
                let first = &command.first;
                let problem = match &first.what {
                    What::Field(path) | What::Variable(_, path) if !path.is_empty() => {
                        let name = path.last().map_or("", String::as_str);
                        format!("{name} is not a method but has arguments")
                    }
                    _ => format!("can't give argument to non-function {}", first.text),
                };
                Err(self.error(first.at, &first.text, problem))
            }
            What::Nil => Err(self.error(command.first.at, "nil", "nil is not a command")),
            _ => self.operand(&command.first, dot),
        }
    }

    fn is_row(&self, dot: &Val<'d>) -> bool {
        std::ptr::eq(dot.value.as_ref(), &raw const self.row.fields)
    }

    /// `.Label "name"`, which Docker's rows have: a method.
    fn label(&mut self, command: &'d Command, piped: Option<Val<'d>>, dot: &Val<'d>) -> Applied<Val<'d>> {
        let mut names = command.arguments.iter().map(|one| self.operand(one, dot)).collect::<Applied<Vec<_>>>()?;
        names.extend(piped);
        let first = &command.first;
        match names.as_slice() {
            [name] => match name.value.as_ref() {
                Value::String(name) if self.is_header => Ok(Val::made(name.as_str())),
                Value::String(name) => {
                    let label = self.row.labels.get(name).cloned().unwrap_or_default();
                    Ok(Val { made: false, ..Val::made(label) })
                }
                other => {
                    let problem = format!("wrong type for value; expected string; got {}", type_of(other));
                    Err(self.error(first.at, &first.text, problem))
                }
            },
            names => {
                let problem = format!("wrong number of args for Label: want 1 got {}", names.len());
                Err(self.error(first.at, &first.text, problem))
            }
        }
    }

    fn function(
        &mut self,
        name: &str,
        command: &'d Command,
        piped: Option<Val<'d>>,
        dot: &Val<'d>,
    ) -> Applied<Val<'d>> {
        if let "and" | "or" = name {
            return self.short_circuit(name, command, piped, dot);
        }
        let mut arguments = command.arguments.iter().map(|one| self.operand(one, dot)).collect::<Applied<Vec<_>>>()?;
        arguments.extend(piped);
        let made = match self.is_header && functions::passes_headers_on(name) {
            true => Ok(arguments.into_iter().find(|one| one.value.is_string()).unwrap_or_else(|| Val::made(""))),
            false => functions::call(name, &arguments),
        };
        let made = made.map_err(|problem| self.of_call(&problem, command))?;
        self.spend(if made.made { weight(&made.value) } else { 0 }, command.first.at)?;
        Ok(made)
    }

    /// An error with what of the command it is about.
    fn of_call(&self, problem: &Problem, command: &Command) -> TemplateError {
        let first = &command.first;
        match problem {
            Problem::Count(problem) => self.error(first.at, &first.text, problem),
            Problem::Call(problem) => self.error(first.at, &command.text(), problem),
            Problem::Argument { index, expected, found } => {
                // One that is piped has no place of its own.
                let operand = command.arguments.get(*index).unwrap_or(first);
                let problem = match operand.what {
                    What::Literal(_) => format!("expected {expected}; found {}", operand.text),
                    _ => format!("wrong type for value; expected {expected}; got {found}"),
                };
                self.error(operand.at, &operand.text, problem)
            }
        }
    }

    /// The first argument that decides; those after it are not looked at.
    fn short_circuit(
        &mut self,
        name: &str,
        command: &'d Command,
        piped: Option<Val<'d>>,
        dot: &Val<'d>,
    ) -> Applied<Val<'d>> {
        let mut last = None;
        for operand in &command.arguments {
            let value = self.operand(operand, dot)?;
            if is_true(&value.value) == (name == "or") {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| {
            let problem = format!("wrong number of args for {name}: want at least 1 got 0");
            self.error(command.first.at, &command.first.text, problem)
        })
    }

    fn operand(&mut self, operand: &'d Operand, dot: &Val<'d>) -> Applied<Val<'d>> {
        match &operand.what {
            What::Dot => Ok(dot.clone()),
            What::Nil => Ok(Val::made(Value::Null)),
            What::Literal(value) => Ok(Val { made: true, ..Val::found(value) }),
            What::Field(path) => self.walk(dot, path, operand),
            What::Variable(name, path) => {
                let value =
                    self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                self.walk(&value.unwrap_or_else(|| Val::made(Value::Null)), path, operand)
            }
            What::Nested(pipeline, path) => {
                let known = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                self.variables.truncate(known);
                self.walk(&value, path, operand)
            }
            What::Function(name) => match functions::call(name, &[]) {
                Ok(value) => Ok(value),
                Err(Problem::Count(problem) | Problem::Call(problem)) => {
                    Err(self.error(operand.at, &operand.text, problem))
                }
                Err(Problem::Argument { .. }) => Err(self.error(operand.at, &operand.text, "no argument was given")),
            },
        }
    }

    fn walk(&self, value: &Val<'d>, path: &[String], operand: &Operand) -> Applied<Val<'d>> {
        let mut value = value.clone();
        // The name of the map that this is, where it is one.
        let mut map = "";
        for name in path {
            let next = match value.value.as_ref() {
                Value::Object(fields) => match fields.contains_key(name) {
                    true => value.part(|map| map.get(name)),
                    false if other_spelling(name).is_some_and(|other| fields.contains_key(other)) => {
                        value.part(|map| map.get(other_spelling(name)?))
                    }
                    false if self.is_header || MAPS.contains(&map) => Some(Val::made(Value::Null)),
                    false => return Err(self.error(operand.at, &operand.text, no_entry(name, fields))),
                },
                Value::Null => {
                    let problem = format!("nil pointer evaluating interface {{}}.{name}");
                    return Err(self.error(operand.at, &operand.text, problem));
                }
                _ => {
                    let problem = format!("can't evaluate field {name} in type interface {{}}");
                    return Err(self.error(operand.at, &operand.text, problem));
                }
            };
            value = next.unwrap_or_else(|| Val::made(Value::Null));
            map = name;
        }
        Ok(value)
    }
}

/// Names of fields in Docker's program, where those in its JSON are others.
fn other_spelling(name: &str) -> Option<&'static str> {
    match name {
        "ID" => Some("Id"),
        "APIVersion" => Some("ApiVersion"),
        "MinAPIVersion" => Some("MinApiVersion"),
        _ => None,
    }
}

/// What there is instead, the likeliest first.
fn no_entry(name: &str, fields: &serde_json::Map<String, Value>) -> String {
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.sort_by(|a, b| match (a.eq_ignore_ascii_case(name), b.eq_ignore_ascii_case(name)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => a.cmp(b),
    });
    let names: Vec<String> = names.into_iter().map(|name| format!(".{name}")).collect();
    format!("map has no entry for key {name:?}; there are: {}", names.join(", "))
}
