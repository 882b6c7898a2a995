//! Text to nodes. The errors are sentences without their beginning.

use super::FUNCTIONS;
use serde_json::Value;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Vec<Branch>),
    With(Vec<Branch>),
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Of `if` and `with`; without a condition it is the `else`, and the last.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) condition: Option<Pipeline>,
    pub(super) body: Vec<Node>,
}

/// Each call's result is the last argument of the next.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) calls: Vec<Call>,
}

#[derive(Debug)]
pub(super) enum Call {
    Operand(Operand),
    Function { name: String, arguments: Vec<Operand> },
}

#[derive(Debug)]
pub(super) enum Operand {
    Literal(Value),
    Fields(Vec<String>),
    Nested(Pipeline, Vec<String>),
}

#[derive(Debug, PartialEq)]
enum Token {
    Fields(Vec<String>),
    Word(String),
    Literal(Value),
    Pipe,
    Open,
    Close,
}

/// How deep blocks, and parentheses, may lie within each other: they are parsed and rendered on the stack.
const DEEPEST: usize = 64;

/// What an action between `{{` and `}}` is.
enum Action {
    Print(Pipeline),
    If(Pipeline),
    With(Pipeline),
    Range(Pipeline),
    ElseIf(Pipeline),
    Else,
    End,
    Nothing,
}

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { rest: text, trim_next: false, depth: 0 };
    match parser.nodes()? {
        (nodes, None) => Ok(nodes),
        (_, Some(Action::End)) => Err("`end` without `if`, `range` or `with`".to_owned()),
        (_, Some(_)) => Err("`else` without `if`, `range` or `with`".to_owned()),
    }
}

struct Parser<'a> {
    rest: &'a str,
    /// The last action ended with `-}}`.
    trim_next: bool,
    /// Blocks that are open.
    depth: usize,
}

impl Parser<'_> {
    /// Nodes up to an `else` or `end`, which is returned, or up to the end of the text.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<Action>), String> {
        if self.depth > DEEPEST {
            return Err(format!("blocks lie within each other deeper than {DEEPEST}"));
        }
        self.depth += 1;
        let parsed = self.nodes_of_block();
        self.depth -= 1;
        parsed
    }

    fn nodes_of_block(&mut self) -> Result<(Vec<Node>, Option<Action>), String> {
        let mut nodes = Vec::new();
        loop {
            self.text(&mut nodes);
            if self.rest.is_empty() {
                return Ok((nodes, None));
            }
            match self.action()? {
                Action::Print(pipeline) => nodes.push(Node::Print(pipeline)),
                Action::If(condition) => nodes.push(Node::If(self.branches("if", condition)?)),
                Action::With(condition) => nodes.push(Node::With(self.branches("with", condition)?)),
                Action::Range(over) => nodes.push(self.range(over)?),
                Action::Nothing => {}
                closing => return Ok((nodes, Some(closing))),
            }
        }
    }

    /// The text up to the next action.
    fn text(&mut self, nodes: &mut Vec<Node>) {
        let (mut text, rest) = self.rest.split_at(self.rest.find("{{").unwrap_or(self.rest.len()));
        self.rest = rest;
        if self.trim_next {
            text = text.trim_start();
        }
        if rest.strip_prefix("{{-").is_some_and(|rest| rest.starts_with(char::is_whitespace)) {
            text = text.trim_end();
        }
        if !text.is_empty() {
            nodes.push(Node::Text(text.replace(r"\t", "\t").replace(r"\n", "\n")));
        }
    }

    fn branches(&mut self, what: &str, condition: Pipeline) -> Result<Vec<Branch>, String> {
        let mut branches = Vec::new();
        let mut condition = Some(condition);
        loop {
            let (body, closing) = self.nodes()?;
            let was_else = condition.is_none();
            branches.push(Branch { condition: condition.take(), body });
            match closing {
                Some(Action::End) => return Ok(branches),
                Some(_) if was_else => return Err("`else` after `else`".to_owned()),
                Some(Action::ElseIf(next)) => condition = Some(next),
                Some(_) => {}
                None => return Err(format!("`{what}` without `end`")),
            }
        }
    }

    fn range(&mut self, over: Pipeline) -> Result<Node, String> {
        let (body, closing) = self.nodes()?;
        let (otherwise, closing) = match closing {
            Some(Action::Else) => self.nodes()?,
            closing => (Vec::new(), closing),
        };
        match closing {
            Some(Action::End) => Ok(Node::Range { over, body, otherwise }),
            Some(_) => Err("`else` of `range` takes no condition, and stands once".to_owned()),
            None => Err("`range` without `end`".to_owned()),
        }
    }

    /// One action, from `{{` to `}}`.
    fn action(&mut self) -> Result<Action, String> {
        let start = self.rest;
        let inside = &self.rest["{{".len()..];
        self.rest = inside.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)).unwrap_or(inside);
        if let Some(comment) = self.rest.trim_start().strip_prefix("/*") {
            self.rest = comment.split_once("*/").ok_or("a comment is not closed")?.1;
            return if self.closes_action() {
                Ok(Action::Nothing)
            } else {
                Err("unexpected text after a comment".to_owned())
            };
        }
        let (mut tokens, mut open) = (Vec::new(), 0_usize);
        while !self.closes_action() {
            let token = self.token().map_err(|problem| format!("{problem} in `{}`", excerpt(start)))?;
            match token {
                Token::Open if open == DEEPEST => {
                    return Err(format!("parentheses lie within each other deeper than {DEEPEST}"));
                }
                Token::Open => open += 1,
                Token::Close => open = open.saturating_sub(1),
                _ => {}
            }
            tokens.push(token);
        }
        classify(tokens).map_err(|problem| format!("{problem} in `{}`", excerpt(start)))
    }

    fn closes_action(&mut self) -> bool {
        let trimmed = self.rest.trim_start();
        let spaced = trimmed.len() < self.rest.len();
        let after = trimmed.strip_prefix("-}}").filter(|_| spaced);
        self.trim_next = after.is_some();
        let closed = after.or_else(|| trimmed.strip_prefix("}}"));
        self.rest = closed.unwrap_or(trimmed);
        closed.is_some()
    }

    fn token(&mut self) -> Result<Token, String> {
        let Some(first) = self.rest.chars().next() else { return Err("`{{` without `}}`".to_owned()) };
        match first {
            '|' => Ok(self.punctuation(Token::Pipe)),
            '(' => Ok(self.punctuation(Token::Open)),
            ')' => Ok(self.punctuation(Token::Close)),
            '.' => Ok(Token::Fields(self.fields())),
            '"' | '`' => self.string(first),
            '-' | '0'..='9' => self.number(),
            'a'..='z' | 'A'..='Z' | '_' => Ok(match self.name() {
                "true" => Token::Literal(true.into()),
                "false" => Token::Literal(false.into()),
                name => Token::Word(name.to_owned()),
            }),
            other => Err(format!("unexpected `{other}`")),
        }
    }

    fn punctuation(&mut self, token: Token) -> Token {
        self.rest = &self.rest[1..];
        token
    }

    fn name(&mut self) -> &str {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    /// `.` is the value itself, `.A.B` a path into it.
    fn fields(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            match self.name() {
                "" => break,
                name => names.push(name.to_owned()),
            }
        }
        names
    }

    fn number(&mut self) -> Result<Token, String> {
        let end = self.rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(self.rest.len(), |end| end + 1);
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number = serde_json::from_str(digits).map_err(|_| format!("`{digits}` is not a number"))?;
        Ok(Token::Literal(number))
    }

    /// A string: in backquotes as it stands, in double quotes with Go's escapes, of which JSON has the usual ones.
    fn string(&mut self, quote: char) -> Result<Token, String> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped && quote == '"';
            ends
        });
        let (literal, rest) = self.rest.split_at(end.ok_or("a string is not closed")? + 2);
        self.rest = rest;
        match quote {
            '"' => {
                serde_json::from_str(literal).map(Token::Literal).map_err(|_| format!("`{literal}` is not a string"))
            }
            _ => Ok(Token::Literal(literal[1..literal.len() - 1].into())),
        }
    }
}

/// The beginning of what is wrong, for a message of one line.
fn excerpt(text: &str) -> &str {
    let end = text.find("}}").map_or(text.len(), |end| end + 2);
    text.char_indices().nth(60).map_or(&text[..end], |(limit, _)| &text[..end.min(limit)])
}

fn classify(tokens: Vec<Token>) -> Result<Action, String> {
    let word = |index: usize| match tokens.get(index) {
        Some(Token::Word(word)) => word.as_str(),
        _ => "",
    };
    let (make, skipped): (fn(Pipeline) -> Action, usize) = match (word(0), word(1)) {
        ("if", _) => (Action::If, 1),
        ("with", _) => (Action::With, 1),
        ("range", _) => (Action::Range, 1),
        ("else", "if") => (Action::ElseIf, 2),
        ("else", _) if tokens.len() == 1 => return Ok(Action::Else),
        ("end", _) if tokens.len() == 1 => return Ok(Action::End),
        _ => (Action::Print, 0),
    };
    let mut tokens = tokens.into_iter().skip(skipped).peekable();
    let pipeline = pipeline(&mut tokens)?;
    match tokens.next() {
        None => Ok(make(pipeline)),
        Some(token) => Err(format!("unexpected {}", describe(&token))),
    }
}

type Tokens = std::iter::Peekable<std::iter::Skip<std::vec::IntoIter<Token>>>;

fn pipeline(tokens: &mut Tokens) -> Result<Pipeline, String> {
    if tokens.peek().is_none() {
        return Err("an empty action".to_owned());
    }
    let mut calls = vec![call(tokens)?];
    while tokens.next_if_eq(&Token::Pipe).is_some() {
        calls.push(call(tokens)?);
    }
    match &calls[1..].iter().find(|call| matches!(call, Call::Operand(_))) {
        Some(_) => Err("expected a function after `|`".to_owned()),
        None => Ok(Pipeline { calls }),
    }
}

fn call(tokens: &mut Tokens) -> Result<Call, String> {
    let Some(Token::Word(name)) = tokens.next_if(|token| matches!(token, Token::Word(_))) else {
        return operand(tokens).map(Call::Operand);
    };
    if !FUNCTIONS.contains(&name.as_str()) {
        return Err(format!("unknown function `{name}`; there are: {}", FUNCTIONS.join(", ")));
    }
    let mut arguments = Vec::new();
    while tokens.peek().is_some_and(|token| !matches!(token, Token::Pipe | Token::Close)) {
        arguments.push(operand(tokens)?);
    }
    Ok(Call::Function { name, arguments })
}

fn operand(tokens: &mut Tokens) -> Result<Operand, String> {
    match tokens.next() {
        Some(Token::Literal(value)) => Ok(Operand::Literal(value)),
        Some(Token::Fields(path)) => Ok(Operand::Fields(path)),
        Some(Token::Open) => {
            let pipeline = pipeline(tokens)?;
            tokens.next_if_eq(&Token::Close).ok_or("`(` without `)`")?;
            Ok(Operand::Nested(pipeline, trailing_fields(tokens)))
        }
        Some(token) => Err(format!("expected a value, found {}", describe(&token))),
        None => Err("expected a value, found the end".to_owned()),
    }
}

/// What follows a parenthesis at once; `(x) .A` is read the same, which no template means otherwise.
fn trailing_fields(tokens: &mut Tokens) -> Vec<String> {
    match tokens.next_if(|token| matches!(token, Token::Fields(path) if !path.is_empty())) {
        Some(Token::Fields(path)) => path,
        _ => Vec::new(),
    }
}

fn describe(token: &Token) -> String {
    match token {
        Token::Fields(path) => format!("`.{}`", path.join(".")),
        Token::Word(word) => format!("`{word}`"),
        Token::Literal(value) => format!("`{value}`"),
        Token::Pipe => "`|`".to_owned(),
        Token::Open => "`(`".to_owned(),
        Token::Close => "`)`".to_owned(),
    }
}
