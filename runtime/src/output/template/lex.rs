//! Text to tokens, as Go's lexer of templates has them: spaces are tokens, as `.A.B` and `.A .B` differ.

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Outside of actions.
    Text,
    /// `{{`
    Left,
    /// `}}`
    Right,
    Space,
    /// `.Name`
    Field,
    /// `$name`, or `$` alone
    Variable,
    /// A name: of a function, a keyword, `true`, `false` or `nil`
    Name,
    Number,
    /// `'x'`
    Character,
    /// `"x"`, with its quotes
    Quoted,
    /// `` `x` ``, with its quotes
    Raw,
    /// `.` alone
    Dot,
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Comma,
    Open,
    Close,
    /// A character that means nothing
    Other,
    /// What cannot be read; the text says why
    Error,
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: Cow<'t, str>,
    /// Where it begins, in bytes.
    pub(super) at: usize,
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// All tokens up to the end, or up to the first that cannot be read.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, open: 0, tokens: Vec::new() };
    if let Err((at, problem)) = lexer.run() {
        lexer.tokens.push(Token { kind: Kind::Error, text: problem.into(), at });
    }
    lexer.tokens.push(Token { kind: Kind::End, text: "".into(), at: source.len() });
    lexer.tokens
}

type Lexed<T> = Result<T, (usize, String)>;

struct Lexer<'t> {
    source: &'t str,
    at: usize,
    /// Parentheses that are open.
    open: usize,
    tokens: Vec<Token<'t>>,
}

impl<'t> Lexer<'t> {
    fn run(&mut self) -> Lexed<()> {
        let mut trims = false;
        while self.at < self.source.len() {
            let rest = self.rest();
            let end = rest.find("{{").unwrap_or(rest.len());
            let opens = rest.get(end..).unwrap_or_default();
            let trims_before = opens.strip_prefix("{{-").is_some_and(|after| after.starts_with(SPACES));
            self.text(end, trims, trims_before);
            if opens.is_empty() {
                return Ok(());
            }
            let left = self.at;
            self.at += if trims_before { "{{-".len() } else { "{{".len() };
            trims = match self.rest().trim_start_matches(SPACES).starts_with("/*") {
                true => self.comment()?,
                false => {
                    self.tokens.push(Token { kind: Kind::Left, text: "{{".into(), at: left });
                    self.action()?
                }
            };
        }
        Ok(())
    }

    fn rest(&self) -> &'t str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn text(&mut self, length: usize, trim_start: bool, trim_end: bool) {
        let mut text = self.rest().get(..length).unwrap_or_default();
        let at = self.at;
        if trim_start {
            text = text.trim_start_matches(SPACES);
        }
        if trim_end {
            text = text.trim_end_matches(SPACES);
        }
        if !text.is_empty() {
            self.tokens.push(Token { kind: Kind::Text, text: text.into(), at });
        }
        self.at += length;
    }

    /// Whether what follows is trimmed.
    fn comment(&mut self) -> Lexed<bool> {
        let start = self.at;
        let Some(end) = self.rest().find("*/") else { return Err((start, "unclosed comment".into())) };
        self.at += end + "*/".len();
        match self.closing() {
            Some((length, trims)) => {
                self.at += length;
                Ok(trims)
            }
            None => Err((start, "comment ends before closing delimiter".into())),
        }
    }

    /// How long the closing delimiter here is, and whether it trims.
    fn closing(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with("}}") {
            return Some((2, false));
        }
        (rest.starts_with(SPACES) && rest[1..].starts_with("-}}")).then_some((4, true))
    }

    /// One action, up to its end; whether what follows is trimmed.
    fn action(&mut self) -> Lexed<bool> {
        self.open = 0;
        let start = self.at;
        loop {
            let at = self.at;
            if let Some((length, trims)) = self.closing() {
                if self.open > 0 {
                    return Err((at, "unclosed left paren".into()));
                }
                self.push(Kind::Right, length);
                return Ok(trims);
            }
            let Some(first) = self.rest().chars().next() else { return Err((at, self.unclosed(start))) };
            self.token(first)?;
        }
    }

    fn unclosed(&self, start: usize) -> String {
        let line = |end: usize| 1 + self.source[..end].matches('\n').count();
        match line(start) == line(self.at) {
            true => "unclosed action".to_owned(),
            false => format!("unclosed action started at :{}", line(start)),
        }
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.rest().get(..length).unwrap_or_default();
        self.tokens.push(Token { kind, text: text.into(), at: self.at });
        self.at += length;
    }

    fn token(&mut self, first: char) -> Lexed<()> {
        let second = self.rest()[first.len_utf8()..].chars().next();
        match first {
            ' ' | '\t' | '\r' | '\n' => self.space(),
            '|' => self.push(Kind::Pipe, 1),
            ',' => self.push(Kind::Comma, 1),
            '=' => self.push(Kind::Assign, 1),
            ':' if second == Some('=') => self.push(Kind::Declare, 2),
            ':' => return Err((self.at, "expected :=".into())),
            '(' => {
                self.open += 1;
                self.push(Kind::Open, 1);
            }
            ')' => {
                self.open = self.open.checked_sub(1).ok_or((self.at, "unexpected right paren".to_owned()))?;
                self.push(Kind::Close, 1);
            }
            '"' => self.quoted('"', Kind::Quoted, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::Character, "unterminated character constant")?,
            '`' => self.raw()?,
            '$' => return self.word(Kind::Variable, 1),
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => return self.field(second),
            '+' | '-' | '.' | '0'..='9' => return self.number(),
            c if is_of_name(c) => return self.word(Kind::Name, 0),
            c if c.is_ascii_graphic() => self.push(Kind::Other, 1),
            c => return Err((self.at, format!("unrecognized character in action: {}", unicode(c)))),
        }
        Ok(())
    }

    /// All spaces but one before a closing delimiter that trims.
    fn space(&mut self) {
        let rest = self.rest();
        let length = rest.len() - rest.trim_start_matches(SPACES).len();
        let ends = rest[length..].starts_with("-}}");
        if length > 1 || !ends {
            self.push(Kind::Space, length - usize::from(ends));
        }
    }

    fn field(&mut self, second: Option<char>) -> Lexed<()> {
        match second.is_some_and(is_of_name) {
            true => self.word(Kind::Field, 1),
            false => {
                self.push(Kind::Dot, 1);
                Ok(())
            }
        }
    }

    /// A name, after `skipped` bytes that belong to it.
    fn word(&mut self, kind: Kind, skipped: usize) -> Lexed<()> {
        let rest = self.rest();
        let end = rest[skipped..].find(|c| !is_of_name(c)).map_or(rest.len(), |end| end + skipped);
        let next = rest[end..].chars().next();
        let ends = |next: &char| SPACES.contains(next) || ".,|:()".contains(*next) || rest[end..].starts_with("}}");
        if let Some(next) = next.filter(|next| !ends(next)) {
            return Err((self.at + end, format!("bad character {}", unicode(next))));
        }
        self.push(kind, end);
        Ok(())
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Lexed<()> {
        let mut escaped = false;
        for (index, character) in self.rest().char_indices().skip(1) {
            match character {
                '\n' => break,
                c if c == quote && !escaped => {
                    self.push(kind, index + 1);
                    return Ok(());
                }
                c => escaped = c == '\\' && !escaped,
            }
        }
        Err((self.at, unterminated.to_owned()))
    }

    fn raw(&mut self) -> Lexed<()> {
        let end = self.rest()[1..].find('`').ok_or((self.at, "unterminated raw quoted string".to_owned()))?;
        self.push(Kind::Raw, end + 2);
        Ok(())
    }

    fn number(&mut self) -> Lexed<()> {
        let rest = self.rest();
        let mut before = ' ';
        let ends = |c: char| {
            let sign = "+-".contains(c) && "eEpP ".contains(before);
            before = c;
            !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || sign)
        };
        let end = rest.find(ends).unwrap_or(rest.len());
        self.push(Kind::Number, end);
        Ok(())
    }
}

fn is_of_name(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// As Go's `%#U`.
fn unicode(character: char) -> String {
    let code = format!("U+{:04X}", u32::from(character));
    if character.is_control() { code } else { format!("{code} '{character}'") }
}
