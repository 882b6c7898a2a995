//! Tokens to nodes, with the errors that Go has for them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    functions,
    lex::{self, Kind, Token},
    literal,
};

/// What is to be done, in order.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Conditional),
    With(Conditional),
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
    Template { at: usize, name: String, dot: Option<Pipeline> },
}

/// The first branch whose pipeline is true, or `otherwise`.
#[derive(Debug)]
pub(super) struct Conditional {
    pub(super) branches: Vec<(Pipeline, Vec<Node>)>,
    pub(super) otherwise: Vec<Node>,
}

/// Each command's result is the last argument of the next.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// Variables that get its value.
    pub(super) variables: Vec<String>,
    /// `=` instead of `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

impl Pipeline {
    /// For errors.
    pub(super) fn text(&self) -> String {
        self.commands.iter().map(Command::text).collect::<Vec<_>>().join(" | ")
    }
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
}

impl Command {
    /// For errors.
    pub(super) fn text(&self) -> String {
        let arguments = self.arguments.iter().map(|operand| operand.text.as_str());
        std::iter::once(self.first.text.as_str()).chain(arguments).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    /// For errors.
    pub(super) text: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Dot,
    Nil,
    Literal(Value),
    Field(Vec<String>),
    /// With its fields.
    Variable(String, Vec<String>),
    Function(String),
    /// In parentheses, with its fields.
    Nested(Box<Pipeline>, Vec<String>),
}

/// A whole template.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Vec<Node>,
    /// By `define` and `block`.
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// How deep blocks, and parentheses, may lie within each other: they are parsed and rendered on the stack.
const DEEPEST: usize = 64;

type Parsed<T> = Result<T, (usize, String)>;

/// Parses a template. An error has the place where it is.
pub(super) fn parse(source: &str) -> Parsed<Tree> {
    let mut parser = Parser {
        tokens: lex::tokens(source),
        next: 0,
        depth: 0,
        ranges: 0,
        variables: vec!["$".to_owned()],
        defined: BTreeMap::new(),
    };
    let (root, end) = parser.list(true)?;
    match end {
        Closing::Text => Ok(Tree { root, defined: parser.defined }),
        Closing::End(at) => Err((at, "unexpected {{end}}".to_owned())),
        Closing::Else(at) => Err((at, "unexpected {{else}}".to_owned())),
    }
}

/// What a list of nodes ended with.
enum Closing {
    Text,
    End(usize),
    Else(usize),
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    /// Blocks and parentheses that are open.
    depth: usize,
    /// Loops that are open.
    ranges: usize,
    /// Those that are known here.
    variables: Vec<String>,
    defined: BTreeMap<String, Vec<Node>>,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> &Token<'t> {
        // The last one is the end, and nobody goes past it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn skip_spaces(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn take_solid(&mut self) -> Token<'t> {
        self.skip_spaces();
        self.take()
    }

    fn peek_solid(&mut self) -> &Token<'t> {
        self.skip_spaces();
        self.peek()
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == DEEPEST {
            return Err((self.peek().at, format!("nested deeper than {DEEPEST} levels")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Nodes up to `end`, `else` or the end of the text.
    fn list(&mut self, at_top: bool) -> Parsed<(Vec<Node>, Closing)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::Text => nodes.push(Node::Text(token.text.into_owned())),
                Kind::End => return Ok((nodes, Closing::Text)),
                Kind::Left => {
                    let word = self.peek_solid().clone();
                    let keyword = if word.kind == Kind::Name { word.text.as_ref() } else { "" };
                    match keyword {
                        "end" => {
                            self.closed_keyword("end")?;
                            return Ok((nodes, Closing::End(word.at)));
                        }
                        "else" => {
                            self.take();
                            return Ok((nodes, Closing::Else(word.at)));
                        }
                        "define" if at_top => self.define()?,
                        _ => nodes.push(self.action(keyword)?),
                    }
                }
                _ => return Err(unexpected(&token, "input")),
            }
        }
    }

    fn closed_keyword(&mut self, word: &str) -> Parsed<()> {
        self.take();
        let token = self.take_solid();
        if token.kind == Kind::Right { Ok(()) } else { Err(unexpected(&token, word)) }
    }

    fn action(&mut self, keyword: &str) -> Parsed<Node> {
        let at = self.peek().at;
        if matches!(keyword, "if" | "with" | "range" | "template" | "block" | "define") {
            self.take();
        }
        match keyword {
            "if" => self.conditional("if").map(Node::If),
            "with" => self.conditional("with").map(Node::With),
            "range" => self.range(),
            "template" => self.template(),
            "block" => self.block(),
            "break" | "continue" => {
                self.closed_keyword(keyword)?;
                match (self.ranges, keyword) {
                    (0, _) => Err((at, format!("{{{{{keyword}}}}} outside {{{{range}}}}"))),
                    (_, "break") => Ok(Node::Break),
                    _ => Ok(Node::Continue),
                }
            }
            "define" => Err((at, "unexpected {{define}}".to_owned())),
            _ => self.pipeline("command", Kind::Right).map(Node::Print),
        }
    }

    /// A body up to its `end` or `else`.
    fn body(&mut self) -> Parsed<(Vec<Node>, Closing)> {
        match self.deeper(|parser| parser.list(false))? {
            (_, Closing::Text) => Err((self.peek().at, "unexpected EOF".to_owned())),
            closed => Ok(closed),
        }
    }

    fn conditional(&mut self, what: &str) -> Parsed<Conditional> {
        let known = self.variables.len();
        let mut branches = Vec::new();
        let otherwise = loop {
            let pipeline = self.pipeline(what, Kind::Right)?;
            let (body, closing) = self.body()?;
            branches.push((pipeline, body));
            if matches!(closing, Closing::End(_)) {
                break Vec::new();
            }
            let word = self.peek_solid();
            if word.kind == Kind::Name && word.text == what {
                self.take();
                continue;
            }
            break self.last_branch()?;
        };
        self.variables.truncate(known);
        Ok(Conditional { branches, otherwise })
    }

    /// What follows `else`, up to `end`.
    fn last_branch(&mut self) -> Parsed<Vec<Node>> {
        let token = self.take_solid();
        if token.kind != Kind::Right {
            return Err(unexpected(&token, "else"));
        }
        match self.body()? {
            (nodes, Closing::End(_)) => Ok(nodes),
            (_, Closing::Else(at)) => Err((at, "expected end; found {{else}}".to_owned())),
            (_, Closing::Text) => Ok(Vec::new()),
        }
    }

    fn range(&mut self) -> Parsed<Node> {
        let known = self.variables.len();
        let over = self.pipeline("range", Kind::Right)?;
        self.ranges += 1;
        let body = self.body();
        self.ranges -= 1;
        let (body, closing) = body?;
        let otherwise = match closing {
            Closing::Else(_) => self.last_branch()?,
            _ => Vec::new(),
        };
        self.variables.truncate(known);
        Ok(Node::Range { over, body, otherwise })
    }

    fn name_of_template(&mut self, what: &str) -> Parsed<(usize, String)> {
        let token = self.take_solid();
        match token.kind {
            Kind::Quoted | Kind::Raw => {
                literal::string(&token.text).map(|name| (token.at, name)).map_err(|problem| (token.at, problem))
            }
            _ => Err(unexpected(&token, &format!("{what} clause"))),
        }
    }

    fn template(&mut self) -> Parsed<Node> {
        let (at, name) = self.name_of_template("template")?;
        let dot = match self.peek_solid().kind {
            Kind::Right => {
                self.take();
                None
            }
            _ => Some(self.pipeline("template clause", Kind::Right)?),
        };
        Ok(Node::Template { at, name, dot })
    }

    fn block(&mut self) -> Parsed<Node> {
        let (at, name) = self.name_of_template("block")?;
        let dot = self.pipeline("block clause", Kind::Right)?;
        self.definition(name.clone(), "block clause")?;
        Ok(Node::Template { at, name, dot: Some(dot) })
    }

    fn define(&mut self) -> Parsed<()> {
        self.take();
        let (_, name) = self.name_of_template("define")?;
        let token = self.take_solid();
        if token.kind != Kind::Right {
            return Err(unexpected(&token, "define clause"));
        }
        self.definition(name, "define clause")
    }

    fn definition(&mut self, name: String, what: &str) -> Parsed<()> {
        let outside = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, closing) = self.body()?;
        (self.variables, self.ranges) = (outside, ranges);
        match closing {
            Closing::Else(at) => Err((at, format!("unexpected {{{{else}}}} in {what}"))),
            _ => {
                self.defined.insert(name, nodes);
                Ok(())
            }
        }
    }

    fn pipeline(&mut self, what: &str, end: Kind) -> Parsed<Pipeline> {
        let at = self.peek_solid().at;
        let (variables, assigns) = self.declarations(what)?;
        let mut commands = Vec::new();
        loop {
            let token = self.take_solid();
            match token.kind {
                kind if kind == end => break,
                _ => {
                    self.next -= 1;
                    commands.push(self.command()?);
                }
            }
        }
        check_pipeline(&commands, at, what)?;
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { at, variables, assigns, commands })
    }

    /// `$x :=`, `$x =`, and for `range` `$k, $v :=`.
    fn declarations(&mut self, what: &str) -> Parsed<(Vec<String>, bool)> {
        let start = self.next;
        let mut variables = Vec::new();
        while self.peek_solid().kind == Kind::Variable {
            let variable = self.take();
            variables.push(variable.text.into_owned());
            match self.take_solid() {
                Token { kind: Kind::Declare, .. } => return Ok((variables, false)),
                Token { kind: Kind::Assign, at, .. } => {
                    let unknown = variables.iter().find(|variable| !self.variables.contains(variable));
                    return match unknown {
                        Some(variable) => Err((at, format!("undefined variable \"{variable}\""))),
                        None => Ok((variables, true)),
                    };
                }
                Token { kind: Kind::Comma, .. } if what == "range" && variables.len() < 2 => {}
                Token { kind: Kind::Comma, at, .. } => return Err((at, format!("too many declarations in {what}"))),
                _ => break,
            }
        }
        if variables.len() > 1 {
            return Err((self.peek().at, "range can only initialize variables".to_owned()));
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut operands = Vec::new();
        loop {
            self.skip_spaces();
            let at = self.peek().at;
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            let token = self.take();
            match token.kind {
                Kind::Space => continue,
                Kind::Right | Kind::Close => self.next -= 1,
                Kind::Pipe => {}
                _ => return Err(unexpected(&token, "operand")),
            }
            let mut operands = operands.into_iter();
            let Some(first) = operands.next() else { return Err((at, "empty command".to_owned())) };
            return Ok(Command { first, arguments: operands.collect() });
        }
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(operand) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(operand));
        }
        let (at, mut fields, mut text) = (self.peek().at, Vec::new(), operand.text.clone());
        while self.peek().kind == Kind::Field {
            let token = self.take();
            text.push_str(&token.text);
            fields.push(token.text[1..].to_owned());
        }
        let (at, what) = match operand.what {
            What::Field(mut names) => {
                names.append(&mut fields);
                (at, What::Field(names))
            }
            What::Variable(name, _) => (at, What::Variable(name, fields)),
            What::Nested(pipeline, _) => (at, What::Nested(pipeline, fields)),
            What::Literal(_) | What::Nil | What::Dot | What::Function(_) => {
                return Err((at, format!("unexpected . after term {}", literal::quoted(&operand.text))));
            }
        };
        Ok(Some(Operand { at, text, what }))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let token = self.take_solid();
        let what = match token.kind {
            Kind::Name => match token.text.as_ref() {
                "true" => What::Literal(true.into()),
                "false" => What::Literal(false.into()),
                "nil" => What::Nil,
                name if functions::is_known(name) => What::Function(name.to_owned()),
                name if KEYWORDS.contains(&name) => return Err(unexpected(&token, "operand")),
                name => return Err((token.at, format!("function \"{name}\" not defined"))),
            },
            Kind::Dot => What::Dot,
            Kind::Variable => match self.variables.iter().any(|known| *known == token.text) {
                true => What::Variable(token.text.to_string(), Vec::new()),
                false => return Err((token.at, format!("undefined variable \"{}\"", token.text))),
            },
            Kind::Field => What::Field(vec![token.text[1..].to_owned()]),
            Kind::Number | Kind::Character | Kind::Quoted | Kind::Raw => {
                What::Literal(literal::value(&token).map_err(|problem| (token.at, problem))?)
            }
            Kind::Open => return self.nested(token.at).map(Some),
            _ => {
                self.next -= 1;
                return Ok(None);
            }
        };
        Ok(Some(Operand { at: token.at, text: token.text.into_owned(), what }))
    }

    fn nested(&mut self, at: usize) -> Parsed<Operand> {
        let known = self.variables.len();
        let pipeline = self.deeper(|parser| parser.pipeline("parenthesized pipeline", Kind::Close))?;
        self.variables.truncate(known);
        Ok(Operand { at, text: format!("({})", pipeline.text()), what: What::Nested(Box::new(pipeline), Vec::new()) })
    }
}

const KEYWORDS: [&str; 10] = ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

fn check_pipeline(commands: &[Command], at: usize, what: &str) -> Parsed<()> {
    if commands.is_empty() {
        return Err((at, format!("missing value for {what}")));
    }
    let is_value = |command: &&Command| matches!(command.first.what, What::Dot | What::Nil | What::Literal(_));
    match commands.iter().enumerate().skip(1).find(|(_, command)| is_value(command)) {
        Some((index, command)) => {
            Err((command.first.at, format!("non executable command in pipeline stage {}", index + 1)))
        }
        None => Ok(()),
    }
}

fn unexpected(token: &Token, context: &str) -> (usize, String) {
    let found = match token.kind {
        Kind::Error => return (token.at, token.text.clone().into_owned()),
        Kind::End => "EOF".to_owned(),
        Kind::Name if KEYWORDS.contains(&token.text.as_ref()) => format!("<{}>", token.text),
        Kind::Dot => "<.>".to_owned(),
        Kind::Right => "\"}}\"".to_owned(),
        _ => match token.text.char_indices().nth(10) {
            Some((end, _)) => format!("{}...", literal::quoted(&token.text[..end])),
            None => literal::quoted(&token.text),
        },
    };
    (token.at, format!("unexpected {found} in {context}"))
}
